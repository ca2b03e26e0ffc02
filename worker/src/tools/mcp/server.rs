//! One MCP server and its tools.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_admission::tool_arguments;
use baton_mcp::{
    CallAnswer, ClientAuth, ClientCredentials, Endpoint, Health, Listing, McpError, Program,
    Question, Server, TaskState, TaskTimes, ToolCall, ToolInfo,
};
use baton_metering::MCP_TOOL_SIZE;
use baton_outbound::Guard;
use baton_protocol::{
    CallPause, Decision, Effect, InputRequest, RemoteTask, RequestedInput, ToolSource,
};
use baton_service::config::{McpClientAuth, McpServerConfig, McpTrust, OutboundConfig};
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use crate::metrics;
use crate::tools::{RegisteredTool, Tool, ToolContext, ToolError, ToolSetupError, ToolSpec};

/// The most rounds of a call: the number of times that its server may leave it.
const MAX_ROUNDS: u32 = 10;
/// Half of the time before the first repetition of a call that its server wanted again without a question.
const SHORTEST_REST: Duration = Duration::from_millis(5);
/// The longest time before such a repetition.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The tools of a server, by their names for models.
type Tools = HashMap<String, Arc<RegisteredTool>>;

/// A configured server.
pub(super) struct McpServer {
    config: McpServerConfig,
    outbound: OutboundConfig,
    link: Arc<Link>,
    /// The tools as they were made from the last list.
    made: Mutex<Option<(Arc<Listing>, Arc<Tools>)>>,
}

/// A server's name and the client of it.
struct Link {
    name: Arc<str>,
    client: Server,
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

impl McpServer {
    pub(super) fn new(
        config: &McpServerConfig,
        outbound: &OutboundConfig,
        guard: &Guard,
    ) -> Result<Self, ToolSetupError> {
        let name: Arc<str> = config.name.as_str().into();
        let shown = Arc::clone(&name);
        let client = Server::new(endpoint(config)?, guard.clone(), move |health| {
            show(&shown, health);
        });
        Ok(Self {
            config: config.clone(),
            outbound: outbound.clone(),
            link: Arc::new(Link { name, client }),
            made: Mutex::default(),
        })
    }

    pub(super) fn is_as(&self, config: &McpServerConfig, outbound: &OutboundConfig) -> bool {
        self.config == *config && self.outbound == *outbound
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.link.name
    }

    /// Returns the time limit of a call.
    pub(super) const fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Cancels a task at the server.
    pub(super) async fn cancel_task(&self, id: &str) -> Result<(), String> {
        let limit = self.config.connect_timeout;
        match timeout(limit, self.link.client.cancel_task(id)).await {
            // A server that does not know the task has nothing to end.
            Ok(Ok(()) | Err(McpError::Answered { .. })) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(McpError::TimedOut(limit).to_string()),
        }
    }

    /// Returns the configured tools, as the server lists them now.
    pub(super) async fn tools(&self) -> Arc<Tools> {
        let listing = match self.link.client.tools().await {
            Ok(listing) => listing,
            Err(error) => {
                metrics::mcp_failed(&self.link.name, &error);
                let why = format!(
                    "the MCP server `{}` cannot be used: {error}",
                    self.config.name
                );
                let tools = self.config.offered_names();
                let tools =
                    tools.filter_map(|offered| Some((offered.clone(), away(offered, &why)?)));
                return Arc::new(tools.collect());
            }
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, tools)) = &*made
            && Arc::ptr_eq(of, &listing)
        {
            return Arc::clone(tools);
        }
        let tools = self.config.tools.iter();
        let tools = tools.filter_map(|tool| {
            let offered = self.config.offered_name(tool);
            Some((offered.clone(), self.make(tool, offered, &listing)?))
        });
        let tools = Arc::new(tools.collect());
        *made = Some((listing, Arc::clone(&tools)));
        tools
    }

    /// Makes a tool out of the server's description of it.
    fn make(&self, tool: &str, offered: String, listing: &Listing) -> Option<Arc<RegisteredTool>> {
        let made = match listing.get(tool) {
            None => Err("the server does not list it".to_owned()),
            Some(info) => self.usable(info, offered.clone()),
        };
        match made {
            Ok(tool) => Some(Arc::new(tool)),
            Err(why) => {
                let server = &*self.config.name;
                tracing::warn!(
                    mcp.server = server,
                    tool.name = offered,
                    error = why,
                    "a tool of an MCP server cannot be offered"
                );
                let why = format!("the MCP server `{server}` has no usable tool of this name");
                away(offered, &why)
            }
        }
    }

    fn usable(&self, info: &ToolInfo, offered: String) -> Result<RegisteredTool, String> {
        let trusted = self.config.trust == McpTrust::Hints;
        let effect = if trusted && (info.read_only || info.idempotent) {
            Effect::Idempotent
        } else {
            Effect::AtMostOnce
        };
        let spec = ToolSpec {
            name: offered,
            description: info.description.clone(),
            parameters: info.parameters.clone(),
            source: ToolSource::Mcp,
            effect,
            timeout: self.config.timeout,
        };
        let call = Call {
            link: Arc::clone(&self.link),
            tool: info.name.clone(),
            limit: self.config.timeout / 3,
        };
        let tool = RegisteredTool::new(spec, Box::new(call)).map_err(|error| error.to_string())?;
        let tool = tool.with_annotations(info.annotations.clone());
        let size = tool.definition().get().len();
        if size > MCP_TOOL_SIZE {
            return Err(format!(
                "its definition has {size} bytes, of at most {MCP_TOOL_SIZE}"
            ));
        }
        Ok(tool)
    }
}

/// Makes the client's view of a program. Its standard error goes to the log.
fn program(config: &McpServerConfig) -> Option<Program> {
    let (path, arguments) = config.command.split_first()?;
    let server = config.name.clone();
    let memory = config.program_memory().as_u64();
    let program = Program::new(path.into(), arguments.to_vec(), memory, move |line| {
        tracing::info!(
            mcp.server = server,
            mcp.stderr = line,
            "an MCP server's program wrote to its standard error"
        );
    });
    let variables = config.env.iter();
    Some(variables.fold(program, |program, (name, value)| {
        program.with_variable(name.clone(), value.expose().clone())
    }))
}

/// Makes the endpoint of a server. The configuration's checks have refused what fails here.
pub(super) fn endpoint(config: &McpServerConfig) -> Result<Endpoint, ToolSetupError> {
    if let Some(program) = program(config) {
        let (open, list) = (config.connect_timeout, config.list_for);
        return Ok(Endpoint::of_program(program, open, list));
    }
    let mistake = |what: &str| ToolSetupError::Mcp {
        name: config.name.clone(),
        what: what.to_owned(),
    };
    let url = Url::parse(&config.url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| mistake("its url is not an http or https URL"))?;
    let mut endpoint = Endpoint::new(url.clone(), config.connect_timeout, config.list_for);
    if let Some(token) = &config.token {
        endpoint = endpoint.with_bearer(token.expose().clone());
    }
    if let Some(auth) = &config.auth {
        let token_url = Url::parse(&auth.token_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| mistake("its token_url is not an http or https URL"))?;
        let secret = auth.client_secret.as_ref();
        let resource = auth.resource.clone().unwrap_or_else(|| {
            let mut resource = url.clone();
            resource.set_query(None);
            resource.set_fragment(None);
            resource.into()
        });
        endpoint = endpoint.with_client_credentials(ClientCredentials {
            token_url,
            client_id: auth.client_id.clone(),
            client_secret: secret.map(|it| it.expose().clone()).unwrap_or_default(),
            auth: match auth.client_auth {
                McpClientAuth::Basic => ClientAuth::Basic,
                McpClientAuth::Post => ClientAuth::Form,
            },
            scope: auth.scope.clone(),
            resource: Some(resource).filter(|resource| !resource.is_empty()),
        });
    }
    for (name, value) in &config.headers {
        let header = HeaderName::try_from(name).map_err(|_| mistake("a header has no name"))?;
        let value = HeaderValue::try_from(value.expose())
            .map_err(|_| mistake("the value of a header cannot be sent"))?;
        endpoint = endpoint.with_header(header, value);
    }
    Ok(endpoint)
}

fn show(server: &Arc<str>, health: &Health) {
    match health {
        Health::Up => {
            metrics::mcp_up(server, true);
            tracing::info!(mcp.server = &**server, "an MCP server lists its tools");
        }
        Health::Down(error) => {
            metrics::mcp_up(server, false);
            let text = error.to_string();
            tracing::warn!(
                mcp.server = &**server,
                error = text,
                "an MCP server cannot be used; runs go on without its tools"
            );
        }
    }
}

/// One tool of a server.
struct Call {
    link: Arc<Link>,
    /// The server's name for it.
    tool: String,
    /// The time limit of a question about a task.
    limit: Duration,
}

impl Call {
    async fn request(&self, arguments: Value, context: &ToolContext) -> Result<String, ToolError> {
        let Value::Object(arguments) = arguments else {
            let what = "the arguments of this tool are a JSON object; the call was not made";
            return Err(ToolError::Arguments(what.to_owned()));
        };
        let mut call = ToolCall {
            arguments,
            ..ToolCall::of(&self.tool)
        };
        call.meta.insert(
            "idempotencyKey".to_owned(),
            json!(context.idempotency_key()),
        );
        let mut round = 0;
        if let Some(resumed) = context.resumes.as_deref() {
            let (asked, state) = match &resumed.pause {
                CallPause::Input { asked, state } => (asked, state),
                CallPause::Task { task } => {
                    let given = resumed.given.as_ref();
                    return self.follow(task.clone(), given, context.now).await;
                }
            };
            if asked.requests.is_empty() {
                tokio::time::sleep(rest(asked.round)).await;
            }
            call.state.clone_from(state);
            call.answers = asked.answers(resumed.given.as_ref());
            round = asked.round;
        }
        match self.link.client.call(call).await {
            Ok(CallAnswer::Done(outcome)) if outcome.ok => Ok(outcome.text),
            Ok(CallAnswer::Done(outcome)) => Err(ToolError::Failed(outcome.text)),
            Ok(CallAnswer::Input(needed)) => {
                let asked = self.asked(needed.questions, round + 1)?;
                let state = needed.state;
                Err(ToolError::Paused(Box::new(CallPause::Input {
                    asked,
                    state,
                })))
            }
            Ok(CallAnswer::Task(begun)) => {
                let TaskTimes {
                    poll_after,
                    kept_for,
                } = begun.times;
                let task = RemoteTask::new(begun.id, context.now);
                Err(goes_on(task.timed(context.now, poll_after, kept_for)))
            }
            Err(error) => {
                metrics::mcp_failed(&self.link.name, &error);
                let name = &self.link.name;
                Err(ToolError::Failed(match error {
                    McpError::Answered { .. } => format!("the MCP server `{name}`: {error}"),
                    error if error.may_have_arrived() => {
                        format!("the MCP server `{name}`: {error}; the call may have taken effect")
                    }
                    error => {
                        format!("the MCP server `{name}`: {error}; the call has had no effect")
                    }
                }))
            }
        }
    }
}

impl Call {
    /// Makes the questions of a server those of a person, or returns the reason for giving the call up.
    fn asked(&self, questions: Vec<Question>, round: u32) -> Result<RequestedInput, ToolError> {
        let name = &self.link.name;
        if round > MAX_ROUNDS {
            return Err(ToolError::Failed(format!(
                "the MCP server `{name}` asked for input more than {MAX_ROUNDS} times, and the call was given up"
            )));
        }
        let requests = questions.into_iter().map(|question| InputRequest {
            id: question.id,
            message: question.message,
            schema: question.schema,
            url: question.url,
        });
        let requests = requests.collect();
        let asked = RequestedInput { round, requests };
        if let Some(schema) = asked.schema()
            && let Err(mistake) = tool_arguments::compile(&schema)
        {
            return Err(ToolError::Failed(format!(
                "the MCP server `{name}` asks for input with a schema that cannot be used ({mistake}), and \
                 the call was given up"
            )));
        }
        Ok(asked)
    }

    /// Asks the server about a task, after it has given it the answers of a person.
    async fn follow(
        &self,
        task: RemoteTask,
        given: Option<&Decision>,
        now: DateTime<Utc>,
    ) -> Result<String, ToolError> {
        let (name, client) = (&self.link.name, &self.link.client);
        let mut next = task.clone();
        if let Some(asked) = next.asked.take() {
            let answers = asked.answers(given);
            next.answered
                .extend(answers.iter().map(|(id, _)| id.clone()));
            let told = client.answer_task(&task.id, answers);
            if let Err(error) = self.in_time(told).await {
                return self.later(task, &error, now);
            }
        }
        let state = match self.in_time(client.task(&task.id)).await {
            Ok(state) => state,
            Err(error) => return self.later(next, &error, now),
        };
        match state {
            TaskState::Done(outcome) if outcome.ok => Ok(outcome.text),
            TaskState::Done(outcome) => Err(ToolError::Failed(outcome.text)),
            TaskState::Failed(why) => {
                Err(ToolError::Failed(format!("the MCP server `{name}`: {why}")))
            }
            TaskState::Working(times) => self.working(next, times, now),
            TaskState::Input(mut questions, times) => {
                questions.retain(|question| !next.answered.contains(&question.id));
                if questions.is_empty() {
                    return self.working(next, times, now);
                }
                match self.asked(questions, next.rounds + 1) {
                    Ok(asked) => {
                        next.rounds = asked.round;
                        next.asked = Some(asked);
                        Err(goes_on(next.timed(now, times.poll_after, times.kept_for)))
                    }
                    Err(refused) => {
                        // The scheduler cancels only tasks of ended runs.
                        let _ = self.in_time(client.cancel_task(&task.id)).await;
                        Err(refused)
                    }
                }
            }
        }
    }

    fn working(
        &self,
        task: RemoteTask,
        times: TaskTimes,
        now: DateTime<Utc>,
    ) -> Result<String, ToolError> {
        let task = task.timed(now, times.poll_after, times.kept_for);
        if now >= task.until {
            let name = &self.link.name;
            return Err(ToolError::Failed(format!(
                "the MCP server `{name}` did not end its task in time; the call may have taken effect"
            )));
        }
        Err(goes_on(task))
    }

    /// Asks about a task again later, if the server could not be asked; a task that the server does not know is lost.
    fn later(
        &self,
        task: RemoteTask,
        error: &McpError,
        now: DateTime<Utc>,
    ) -> Result<String, ToolError> {
        metrics::mcp_failed(&self.link.name, error);
        let name = &self.link.name;
        if let McpError::Answered { .. } = error {
            return Err(ToolError::Failed(format!(
                "the MCP server `{name}` has lost its task: {error}; the call may have taken effect"
            )));
        }
        if now >= task.until {
            return Err(ToolError::Failed(format!(
                "the MCP server `{name}` could not be asked about its task in time: {error}; the call may have \
                 taken effect"
            )));
        }
        Err(goes_on(task))
    }

    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, McpError>>,
    ) -> Result<T, McpError> {
        let answered = timeout(self.limit, asking).await;
        answered.unwrap_or(Err(McpError::TimedOut(self.limit)))
    }
}

/// Leaves a call to its server, which goes on with the task.
fn goes_on(task: RemoteTask) -> ToolError {
    ToolError::Paused(Box::new(CallPause::Task { task }))
}

/// Returns the time before a call is repeated that its server wanted again without a question.
fn rest(round: u32) -> Duration {
    let rest = SHORTEST_REST * 2_u32.saturating_pow(round.min(MAX_ROUNDS));
    rest.min(LONGEST_REST)
}

impl Tool for Call {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        self.request(arguments, context).boxed()
    }
}

/// Makes a tool that only says that it cannot be used.
fn away(offered: String, why: &str) -> Option<Arc<RegisteredTool>> {
    let spec = ToolSpec {
        name: offered,
        description: format!(
            "This tool cannot be used now: {why}. Do not call it. If the task needs it, say that it is \
             missing."
        ),
        parameters: json!({ "type": "object" }),
        source: ToolSource::Mcp,
        // An earlier attempt may have begun a call that is not known to have ended.
        effect: Effect::AtMostOnce,
        timeout: Duration::from_secs(1),
    };
    let tool = RegisteredTool::new(spec, Box::new(Away(why.to_owned())));
    // The configuration's checks leave only names that can be offered.
    tool.ok().map(|tool| Arc::new(tool.unavailable(why)))
}

/// A tool that cannot be used.
struct Away(String);

impl Tool for Away {
    fn call<'a>(
        &'a self,
        _arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        let task = context.resumes.as_ref().and_then(|it| it.pause.task());
        let failed = match task {
            // The server may be back before the task has to end.
            Some(task) if context.now < task.until => goes_on(task.clone()),
            Some(_) => ToolError::Failed(format!(
                "{}; its task was not asked about in time, and the call may have taken effect",
                self.0
            )),
            None => ToolError::Failed(format!("{}; the call was not made", self.0)),
        };
        std::future::ready(Err(failed)).boxed()
    }
}
