//! `baton agents`: lists, shows, applies and deletes agents, over HTTP.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config_command::print;
use crate::server::{ApiArgs, Refusal, Server};
use crate::visible::{visible, visible_json, visible_lines};

#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// List the agents, the newest first: name and version, model, tools
    List {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print the definition of an agent, as `apply` takes it
    Show {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name or id, in its newest version; support@2 is version 2
        #[arg(value_name = "AGENT[@N]")]
        agent: String,
    },
    /// Make the agents of files, or change them to what the files say
    ///
    /// A file holds one definition in JSON, or an array of them. A definition that changes nothing makes no
    /// new version. A change of somebody else in the same moment is refused, not overwritten. Agents that no
    /// file names stay.
    Apply {
        #[command(flatten)]
        api: ApiArgs,
        /// The files; - is the standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete an agent with all its versions; accepted runs go on
    Delete {
        #[command(flatten)]
        api: ApiArgs,
        /// Its name or id
        #[arg(value_name = "AGENT")]
        agent: String,
    },
}

/// The fields of an agent that are not of its definition.
const ADDED: [&str; 6] = [
    "id",
    "object",
    "version",
    "source",
    "created_at",
    "updated_at",
];

/// An agent, as far as a line shows it.
#[derive(Debug, Deserialize)]
struct Shown {
    name: String,
    version: u32,
    model: Option<String>,
    #[serde(default)]
    tools: Vec<ShownTool>,
}

#[derive(Debug, Deserialize)]
struct ShownTool {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Value>,
    next_cursor: Option<String>,
}

pub(crate) async fn run(command: AgentsCommand) -> anyhow::Result<()> {
    match command {
        AgentsCommand::List { api } => list(&api).await,
        AgentsCommand::Show { api, agent } => show(&api, &agent).await,
        AgentsCommand::Apply {
            api,
            files,
            dry_run,
        } => apply(&api, &files, dry_run).await,
        AgentsCommand::Delete { api, agent } => {
            Server::new(&api)?.delete(&path_of(&agent)?).await?;
            let outcome = json!({"name": agent, "outcome": "deleted"});
            report(&api, &outcome, &format!("{}  deleted", visible(&agent)))
        }
    }
}

/// Returns the path of an agent.
fn path_of(agent: &str) -> anyhow::Result<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if agent.is_empty() || !agent.bytes().all(allowed) {
        bail!("`{}` is no agent's name or id", visible(agent));
    }
    Ok(format!("/v1/agents/{agent}"))
}

fn report(api: &ApiArgs, outcome: &Value, line: &str) -> anyhow::Result<()> {
    if api.json {
        return print(&visible_json(outcome));
    }
    print(line)
}

async fn list(api: &ApiArgs) -> anyhow::Result<()> {
    let server = Server::new(api)?;
    let mut found = Vec::new();
    let mut more = String::new();
    loop {
        let page: Page = server.get(&format!("/v1/agents?limit=100{more}")).await?;
        found.extend(page.data);
        match page.next_cursor {
            Some(cursor) => more = format!("&cursor={cursor}"),
            None => break,
        }
    }
    if api.json {
        return print(&visible_json(&json!({ "data": found })));
    }
    for agent in found {
        let agent: Shown =
            serde_json::from_value(agent).context("the server's agent cannot be read")?;
        let tools: Vec<_> = agent.tools.iter().map(|tool| visible(&tool.name)).collect();
        print(&format!(
            "{}@{}  {}  {}",
            visible(&agent.name),
            agent.version,
            visible(agent.model.as_deref().unwrap_or("-")),
            tools.join(","),
        ))?;
    }
    Ok(())
}

async fn show(api: &ApiArgs, agent: &str) -> anyhow::Result<()> {
    let path = match agent.split_once('@') {
        None => path_of(agent)?,
        Some((name, version)) => {
            let version: u32 = version
                .parse()
                .with_context(|| format!("`{}` names no version, such as 2", visible(version)))?;
            format!("{}?version={version}", path_of(name)?)
        }
    };
    let shown: Map<String, Value> = Server::new(api)?.get(&path).await?;
    if api.json {
        return print(&visible_json(&Value::Object(shown)));
    }
    let definition = Value::Object(definition_of(shown));
    print(&visible_lines(&serde_json::to_string_pretty(&definition)?))
}

fn definition_of(mut shown: Map<String, Value>) -> Map<String, Value> {
    shown.retain(|field, _| !ADDED.contains(&field.as_str()));
    shown
}

async fn apply(api: &ApiArgs, files: &[PathBuf], dry_run: bool) -> anyhow::Result<()> {
    // All files are read before anything changes.
    let mut definitions = Vec::new();
    for file in files {
        definitions.extend(read(file)?);
    }
    let server = Server::new(api)?;
    let mut refused = 0;
    for (name, definition) in &definitions {
        let (outcome, line) = match apply_one(&server, name, definition, dry_run).await {
            Ok((version, done)) => (
                json!({"name": name, "version": version, "outcome": done}),
                format!("{name}@{version}  {done}"),
            ),
            Err(error) => {
                // Other mistakes than the definition's would be the next one's as well.
                let Some(Refusal { code, detail }) = error.downcast_ref::<Refusal>() else {
                    return Err(error);
                };
                refused += 1;
                (
                    json!({"name": name, "error": {"code": code, "message": detail}}),
                    format!("{name}  {}", visible(&error.to_string())),
                )
            }
        };
        report(api, &outcome, &line)?;
    }
    if refused > 0 {
        bail!("{refused} of {} agents are refused", definitions.len());
    }
    Ok(())
}

/// Reads the definitions of a file, each with its name.
fn read(file: &Path) -> anyhow::Result<Vec<(String, Value)>> {
    let shown = file.display();
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("{shown} cannot be read"))?;
    let json = serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))?;
    let definitions = match json {
        Value::Array(definitions) => definitions,
        definition => vec![definition],
    };
    let named = definitions.into_iter().enumerate();
    named
        .map(|(place, definition)| {
            let name = definition.get("name").and_then(Value::as_str);
            let name = name.filter(|name| path_of(name).is_ok());
            let name = name.with_context(|| {
                format!(
                    "{shown}: agent {} has no `name` that an agent can have",
                    place + 1
                )
            })?;
            Ok((name.to_owned(), definition))
        })
        .collect()
}

/// Makes or changes an agent. Returns its version, and what was done.
async fn apply_one(
    server: &Server,
    name: &str,
    definition: &Value,
    dry_run: bool,
) -> anyhow::Result<(u32, &'static str)> {
    let path = path_of(name)?;
    let present = match server.get::<Map<String, Value>>(&path).await {
        Ok(present) => present,
        Err(error) if is_absent(&error) => {
            let made = if dry_run {
                1
            } else {
                version(&server.post("/v1/agents", definition).await?)?
            };
            return Ok((made, "created"));
        }
        Err(error) => return Err(error),
    };
    let before = version(&present)?;
    if Value::Object(definition_of(present)) == *definition {
        return Ok((before, "unchanged"));
    }
    if dry_run {
        return Ok((before + 1, "changed"));
    }
    let path = format!("{path}?if_version={before}");
    let after = version(&server.put(&path, definition).await?)?;
    // The server fills in defaults, so that only it knows whether a field that is left out is a change.
    let done = if after == before {
        "unchanged"
    } else {
        "changed"
    };
    Ok((after, done))
}

fn is_absent(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.code == "agent_not_found")
}

fn version(agent: &Map<String, Value>) -> anyhow::Result<u32> {
    let version = agent.get("version").and_then(Value::as_u64);
    let version = version.and_then(|version| version.try_into().ok());
    version.context("the server's answer has no `version`: is it a Baton of this version?")
}
