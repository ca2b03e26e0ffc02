//! `baton approvals`: lists and decides the questions of runs that wait for a person, over HTTP.

use anyhow::{Context as _, bail};
use baton_protocol::{ApprovalId, ApprovalScope, Decision, RequestLimits, RunId};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config_command::print;
use crate::server::{ApiArgs, Server};
use crate::visible::{visible, visible_json};

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// List the open questions, the newest first: run, question, expiry, reason, then tool and arguments, tool and
    /// the question of its server, or the limit with its values
    ///
    /// Long arguments are cut; --json has all of them.
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only those of this run
        #[arg(long, value_name = "RUN")]
        run: Option<RunId>,
        /// The most questions to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Make calls that wait for a yes
    Approve {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// Make the one named call with this JSON object in place of the model's arguments; it must match
        /// the tool's schema
        #[arg(long, value_name = "JSON", conflicts_with = "all")]
        arguments: Option<String>,
        /// The calls that need no other approval: once: the named ones; run: also later ones of their tool in
        /// the run; thread: also those of other runs of its thread
        #[arg(long, value_name = "SCOPE", default_value = "once", value_parser = parse_scope)]
        scope: ApprovalScope,
    },
    /// Do not make calls that wait for a yes; the model reads the reason
    Reject {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The reason for the model
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Make calls of unknown outcome again, once
    Retry {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
    },
    /// Give the model this result of a call of unknown outcome
    Result {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The result for the model
        #[arg(long, value_name = "TEXT")]
        text: String,
    },
    /// Raise limits of runs that wait at one of them; they go on
    Raise {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Let runs end at the limit that they wait at
    Stop {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
    },
    /// Give the server of a tool what it asks for
    Accept {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// A JSON object for the one named question, which must match its schema; defaults of the schema fill it
        #[arg(long, value_name = "JSON", conflicts_with = "all")]
        content: Option<String>,
    },
    /// Do not give the server of a tool what it asks for
    Decline {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
    },
    /// Leave the question of a tool's server without a choice, as if it had expired
    Cancel {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
    },
    /// Give up calls of unknown outcome; the model reads the reason
    Fail {
        #[command(flatten)]
        api: ApiArgs,
        #[command(flatten)]
        which: QuestionArgs,
        /// The reason for the model
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

fn parse_scope(given: &str) -> Result<ApprovalScope, String> {
    let mut all = ApprovalScope::ALL.into_iter();
    let found = all.find(|scope| scope.as_str() == given);
    found.ok_or_else(|| "it is once, run or thread".to_owned())
}

/// The questions to decide.
#[derive(Debug, Clone, Args)]
pub(crate) struct QuestionArgs {
    /// The run that waits
    #[arg(value_name = "RUN")]
    pub(crate) run: RunId,
    /// Its questions, as `list` shows them
    #[arg(value_name = "QUESTION")]
    pub(crate) questions: Vec<ApprovalId>,
    /// All open questions of the run that can be decided so
    #[arg(long, conflicts_with = "questions")]
    pub(crate) all: bool,
}

/// Higher limits.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
#[expect(clippy::struct_field_names, reason = "the names are those of requests")]
pub(crate) struct LimitArgs {
    /// Tokens over all turns
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// A decimal number in the currency of the prices
    #[arg(long, value_name = "AMOUNT")]
    max_cost: Option<String>,
    /// Calls of the server's tools
    #[arg(long, value_name = "N")]
    max_tool_calls: Option<u32>,
    /// The time from the first claim of the run, such as 90s, 5m or 1h
    #[arg(long, value_name = "TIME")]
    max_wall_time: Option<String>,
}

/// The most decisions that the server takes in one request.
const AT_ONCE: usize = 100;
/// The size of a page.
const PAGE: usize = 100;
/// The longest shown arguments, in characters.
const SHOWN: usize = 200;

/// A question, as far as it is shown as text.
#[derive(Debug, Deserialize)]
struct Question {
    id: ApprovalId,
    run_id: RunId,
    status: String,
    reason: String,
    call: Option<Call>,
    budget: Option<Budget>,
    #[serde(default)]
    input: Option<Input>,
    options: Vec<String>,
    expires_at: String,
}

#[derive(Debug, Deserialize)]
struct Call {
    name: String,
    arguments: String,
}

/// The input that a tool's server asks for.
#[derive(Debug, Deserialize)]
struct Input {
    requests: Vec<InputRequest>,
}

#[derive(Debug, Deserialize)]
struct InputRequest {
    message: String,
    url: Option<String>,
}

/// The limit that a run waits at.
#[derive(Debug, Deserialize)]
struct Budget {
    limit: String,
    limits: Value,
    used: Value,
}

/// The outcome of a decision, as far as it is shown as text.
#[derive(Debug, Deserialize)]
struct Outcome {
    approval_id: ApprovalId,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

/// A decision, as the server reads it.
#[derive(Debug, Serialize)]
struct Item<'a> {
    approval_id: ApprovalId,
    #[serde(flatten)]
    decision: &'a Decision,
}

pub(crate) async fn run(command: ApprovalsCommand) -> anyhow::Result<()> {
    match command {
        ApprovalsCommand::List { api, run, limit } => list(&api, run, limit).await,
        ApprovalsCommand::Approve {
            api,
            which,
            arguments,
            scope,
        } => {
            if arguments.is_some() && which.questions.len() > 1 {
                bail!("--arguments are those of one call: name one question");
            }
            let arguments = arguments.as_deref().map(serde_json::from_str);
            let arguments = arguments
                .transpose()
                .context("--arguments takes a JSON object, such as '{\"amount\": 5}'")?;
            decide(&api, &which, &Decision::Approve { arguments, scope }).await
        }
        ApprovalsCommand::Reject { api, which, reason } => {
            decide(&api, &which, &Decision::Reject { reason }).await
        }
        ApprovalsCommand::Retry { api, which } => decide(&api, &which, &Decision::Retry {}).await,
        ApprovalsCommand::Result { api, which, text } => {
            decide(&api, &which, &Decision::Result { result: text }).await
        }
        ApprovalsCommand::Raise { api, which, limits } => {
            let limits = RequestLimits {
                max_tokens: limits.max_tokens,
                max_cost: limits.max_cost,
                max_tool_calls: limits.max_tool_calls,
                max_wall_time: limits.max_wall_time,
            };
            decide(&api, &which, &Decision::Raise { limits }).await
        }
        ApprovalsCommand::Stop { api, which } => decide(&api, &which, &Decision::Stop {}).await,
        ApprovalsCommand::Accept {
            api,
            which,
            content,
        } => {
            if content.is_some() && which.questions.len() > 1 {
                bail!("--content is that of one question: name one");
            }
            let content = content.as_deref().map(serde_json::from_str);
            let content = content
                .transpose()
                .context("--content takes a JSON object, such as '{\"name\": \"Ada\"}'")?;
            decide(&api, &which, &Decision::Accept { content }).await
        }
        ApprovalsCommand::Decline { api, which } => {
            decide(&api, &which, &Decision::Decline {}).await
        }
        ApprovalsCommand::Cancel { api, which } => decide(&api, &which, &Decision::Cancel {}).await,
        ApprovalsCommand::Fail { api, which, reason } => {
            decide(&api, &which, &Decision::Fail { reason }).await
        }
    }
}

async fn list(api: &ApiArgs, run: Option<RunId>, limit: usize) -> anyhow::Result<()> {
    let server = Server::new(api)?;
    let mut found = match run {
        Some(run) => open_of_run(&server, run).await?,
        None => open_of_tenant(&server, limit).await?,
    };
    found.truncate(limit);
    if api.json {
        return print(&visible_json(&json!({ "data": found })));
    }
    for question in found {
        let question: Question =
            serde_json::from_value(question).context("the server's question cannot be read")?;
        print(&line(&question))?;
    }
    Ok(())
}

/// Returns the open questions of all runs of the key's tenant, at least `limit` if there are so many.
async fn open_of_tenant(server: &Server, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    while found.len() < limit {
        let size = PAGE.min(limit - found.len());
        let more = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/approvals?limit={size}{more}");
        let page: Page = server.get(&path).await?;
        found.extend(page.data);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Value>,
    next_cursor: Option<String>,
}

/// Returns the open questions of a run, the newest first.
async fn open_of_run(server: &Server, run: RunId) -> anyhow::Result<Vec<Value>> {
    let page: Page = server.get(&format!("/v1/runs/{run}/approvals")).await?;
    let open = page.data.into_iter().rev();
    Ok(open.filter(|it| it["status"] == "open").collect())
}

fn line(question: &Question) -> String {
    let Question {
        id,
        run_id,
        reason,
        call,
        budget,
        input,
        expires_at,
        ..
    } = question;
    let (name, whole) = match (call, budget) {
        (Some(call), _) => (call.name.clone(), asked_of(call, input.as_ref())),
        (None, Some(at)) => (at.limit.clone(), format!("{} used {}", at.limits, at.used)),
        (None, None) => (String::new(), String::new()),
    };
    let mut shown: String = whole.chars().take(SHOWN).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    format!(
        "{run_id}  {id}  expires {}  {}  {}  {}",
        visible(expires_at),
        visible(reason),
        visible(&name),
        visible(&shown),
    )
}

/// Returns the questions of a call's server, or else the arguments of the call.
fn asked_of(call: &Call, input: Option<&Input>) -> String {
    let Some(input) = input else {
        return call.arguments.clone();
    };
    let asked = input.requests.iter().map(|request| match &request.url {
        Some(url) => format!("{} {url}", request.message),
        None => request.message.clone(),
    });
    asked.collect::<Vec<_>>().join(" ")
}

/// Decides questions, and prints the outcome of each. Fails if one is not decided so.
async fn decide(api: &ApiArgs, which: &QuestionArgs, decision: &Decision) -> anyhow::Result<()> {
    let server = Server::new(api)?;
    let run = which.run;
    let questions = if which.all {
        let open = open_of_run(&server, run).await?;
        let open: Vec<Question> =
            serde_json::from_value(open.into()).context("the server's questions cannot be read")?;
        let name = decision.as_str();
        let open = open
            .into_iter()
            .filter(|it| it.status == "open" && it.options.iter().any(|option| option == name))
            .map(|it| it.id);
        let open: Vec<_> = open.collect();
        if open.is_empty() {
            bail!(
                "run {run} has no open question that can be decided with `{name}`: see `baton approvals list`"
            );
        }
        open
    } else if which.questions.is_empty() {
        bail!("name questions of the run, as `baton approvals list` shows them, or all with --all");
    } else {
        which.questions.clone()
    };
    let path = format!("/v1/runs/{run}/approvals");
    let mut outcomes = Vec::new();
    for some in questions.chunks(AT_ONCE) {
        let items = some.iter().map(|&approval_id| Item {
            approval_id,
            decision,
        });
        let items: Vec<_> = items.collect();
        let answer: Map<String, Value> = server.post(&path, &json!({ "decisions": items })).await?;
        match answer.get("data").and_then(Value::as_array) {
            Some(data) => outcomes.extend(data.iter().cloned()),
            None => bail!("the server's answer has no `data`: is it a Baton of this version?"),
        }
    }
    if api.json {
        print(&visible_json(&json!({ "data": outcomes })))?;
    }
    let outcomes: Vec<Outcome> =
        serde_json::from_value(outcomes.into()).context("the server's outcomes cannot be read")?;
    for outcome in &outcomes {
        let words = match &outcome.error {
            None => decision.as_str().to_owned(),
            Some(error) => format!("{}: {}", visible(&error.code), visible(&error.message)),
        };
        if !api.json {
            print(&format!("{}  {words}", outcome.approval_id))?;
        }
    }
    let refused = outcomes.iter().filter(|it| it.error.is_some()).count();
    if refused > 0 {
        bail!(
            "{refused} of {} questions are not decided so",
            outcomes.len()
        );
    }
    Ok(())
}
