//! One connection to a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_outbound::{Client, Guard};
use rmcp::model::{
    CallToolRequest, CallToolResult, CancelTaskParams, CancelTaskRequest, CancelledNotification,
    CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitationCapability, FormElicitationCapability, GetTaskParams, GetTaskRequest,
    Implementation, JsonObject, PaginatedRequestParams, ProtocolVersion, RequestId,
    RequestMetaObject, ServerResult, TASKS_EXTENSION_ID, UpdateTaskParams, UpdateTaskRequest,
    UrlElicitationCapability,
};
use rmcp::service::{
    ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _,
    NotificationContext, Peer, PeerRequestOptions, RunningService,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ClientHandler, RoleClient};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::authorized::Authorized;
use crate::call::{CallAnswer, InputNeeded, NewTask, TaskState, ToolCall};
use crate::endpoint::{Endpoint, MAX_MESSAGE, Way};
use crate::error::McpError;
use crate::listing::{Listing, ToolInfo};
use crate::outcome::CallOutcome;
use crate::program::Process;

/// The most pages of a list.
const MAX_PAGES: usize = 64;
/// The most tools of a list.
const MAX_TOOLS: usize = 1_024;
/// The longest name of a tool, in bytes.
const MAX_NAME: usize = 256;

/// A server's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// Its name, if it gives one.
    pub name: Option<String>,
    /// Its version, if it gives one.
    pub version: Option<String>,
    /// The version of the protocol that both speak.
    pub protocol: String,
}

/// An open connection to a server. Dropping it ends the session, and kills the server's program.
pub struct Connection {
    running: RunningService<RoleClient, Handler>,
    /// The process of a server that is a program.
    process: Option<Process>,
    opened_at: Instant,
    endpoint: Arc<Endpoint>,
    list_changed: Arc<AtomicBool>,
}

impl Connection {
    /// Opens a connection. The server's program, if it is one, is started.
    pub async fn open(endpoint: Arc<Endpoint>, guard: &Guard) -> Result<Self, McpError> {
        let limit = endpoint.open_timeout;
        let list_changed = Arc::new(AtomicBool::new(false));
        let opening = async {
            let either = ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            };
            match serve(&endpoint, guard, &list_changed, either).await? {
                // Some servers of the earlier era answer a method that they do not know with a result.
                Err(
                    ClientInitializeError::ExpectedInitResult(_)
                    | ClientInitializeError::ExpectedInitResponse(_),
                ) => {
                    let earlier = ClientLifecycleMode::Initialize;
                    serve(&endpoint, guard, &list_changed, earlier).await?
                }
                opened => opened,
            }
            .map_err(|error| McpError::opening(&error, &endpoint))
        };
        let (running, process) = timeout(limit, opening)
            .await
            .map_err(|_| McpError::TimedOut(limit))??;
        // The list is cached here, within limits of its own.
        let cache = ClientCacheConfig::disabled();
        running.set_response_cache_config(cache).await;
        Ok(Self {
            running,
            process,
            opened_at: Instant::now(),
            endpoint,
            list_changed,
        })
    }

    /// Ends the server's program, and returns how it ended and how long it ran; `None` for a server over HTTP.
    pub(crate) fn end_program(&self) -> Option<(String, Duration)> {
        let ended = self.process.as_ref()?.end();
        Some((ended, self.opened_at.elapsed()))
    }

    /// Returns the server's description of itself.
    pub fn info(&self) -> ServerInfo {
        let info = self.running.peer_info();
        let server = info.as_ref().and_then(|info| info.server_info.as_ref());
        let short = |text: &str| self.endpoint.clear(text.chars().take(200).collect());
        ServerInfo {
            name: server.map(|server| short(&server.name)),
            version: server.map(|server| short(&server.version)),
            protocol: info
                .as_ref()
                .map(|info| short(info.protocol_version.as_str()))
                .unwrap_or_default(),
        }
    }

    /// Returns whether the connection is lost.
    pub(crate) fn is_closed(&self) -> bool {
        self.running.is_closed()
            || self.running.is_transport_closed()
            || self.process.as_ref().is_some_and(Process::has_ended)
    }

    /// Returns whether the server has said since the last question that its list has changed.
    pub(crate) fn take_list_changed(&self) -> bool {
        self.list_changed.swap(false, Ordering::AcqRel)
    }

    /// Lists the server's tools, all pages.
    pub async fn list_tools(&self) -> Result<Listing, McpError> {
        let limit = self.endpoint.open_timeout;
        timeout(limit, self.list_pages())
            .await
            .map_err(|_| McpError::TimedOut(limit))?
    }

    async fn list_pages(&self) -> Result<Listing, McpError> {
        let mut tools = Vec::new();
        let mut ttl: Option<u64> = None;
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let page = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self
                .running
                .list_tools(Some(page))
                .await
                .map_err(|error| McpError::using(&error, &self.endpoint))?;
            // The page that expires first decides.
            ttl = [ttl, page.ttl_ms].into_iter().flatten().min();
            if tools.len() + page.tools.len() > MAX_TOOLS {
                return Err(McpError::TooMuch(format!("more than {MAX_TOOLS} tools")));
            }
            let named = page.tools.iter().filter(|it| it.name.len() <= MAX_NAME);
            tools.extend(named.map(|tool| self.cleared(ToolInfo::of(tool))));
            cursor = page.next_cursor;
            if cursor.is_none() {
                let ttl = ttl.map(Duration::from_millis);
                return Ok(Listing { tools, ttl });
            }
        }
        Err(McpError::TooMuch(format!(
            "more than {MAX_PAGES} pages of tools"
        )))
    }

    /// Returns a tool without the secrets that its server may have put into it.
    fn cleared(&self, mut tool: ToolInfo) -> ToolInfo {
        tool.description = self.endpoint.clear(tool.description);
        let written = tool.parameters.to_string();
        let cleared = self.endpoint.clear(written.clone());
        if cleared != written
            && let Ok(parameters) = serde_json::from_str(&cleared)
        {
            tool.parameters = parameters;
        }
        tool
    }

    /// Calls a tool. Dropping the future cancels the call at the server.
    pub async fn call(&self, call: ToolCall) -> Result<CallAnswer, McpError> {
        let request = CallToolRequest::new(call.into_params());
        let request = ClientRequest::CallToolRequest(request);
        let answer = self.send(request).await?;
        let result = match answer {
            ServerResult::CallToolResult(result) => result,
            // Results without content have the form of these.
            ServerResult::EmptyResult(_) | ServerResult::TaskAckResult(_) => {
                CallToolResult::default()
            }
            ServerResult::InputRequiredResult(result) => {
                return InputNeeded::of(result, &self.endpoint).map(CallAnswer::Input);
            }
            ServerResult::CreateTaskResult(begun) => {
                return NewTask::of(begun.task).map(CallAnswer::Task);
            }
            _ => return Err(McpError::Protocol("its answer has another form".to_owned())),
        };
        let outcome = CallOutcome::of(&result).cleared(&self.endpoint);
        Ok(CallAnswer::Done(outcome))
    }

    /// Returns the state of a task.
    pub async fn task(&self, id: &str) -> Result<TaskState, McpError> {
        let request = GetTaskRequest::new(GetTaskParams::new(id));
        let found = self.send(ClientRequest::GetTaskRequest(request)).await?;
        match found {
            ServerResult::GetTaskResult(found) => TaskState::of(found, &self.endpoint),
            _ => Err(McpError::Protocol("its answer has another form".to_owned())),
        }
    }

    /// Gives a task the answers to its questions, by their ids.
    pub async fn answer_task(
        &self,
        id: &str,
        answers: Vec<(String, Value)>,
    ) -> Result<(), McpError> {
        let answers = answers.into_iter().collect();
        let request = UpdateTaskRequest::new(UpdateTaskParams::new(id, answers));
        let sent = self.send(ClientRequest::UpdateTaskRequest(request));
        sent.await.map(drop)
    }

    /// Asks the server to end a task.
    pub async fn cancel_task(&self, id: &str) -> Result<(), McpError> {
        let request = CancelTaskRequest::new(CancelTaskParams::new(id));
        let sent = self.send(ClientRequest::CancelTaskRequest(request));
        sent.await.map(drop)
    }

    /// Returns whether the server speaks a version without a handshake, in which each request names what the
    /// client can do.
    fn is_stateless(&self) -> bool {
        let info = self.running.peer_info();
        info.is_some_and(|info| !info.protocol_version.has_initialize())
    }

    /// Sends a request, and says in it that a person can be asked, unless the server would ask while the call
    /// is open. Dropping the future cancels the request at the server.
    async fn send(&self, request: ClientRequest) -> Result<ServerResult, McpError> {
        let mut options = PeerRequestOptions::no_options();
        if self.is_stateless() {
            let mut meta = RequestMetaObject::new();
            meta.set_client_capabilities(capabilities());
            options = options.with_meta(meta);
        }
        let peer = self.running.peer();
        let sent = peer.send_request_with_option(request, options).await;
        let sent = sent.map_err(|error| McpError::using(&error, &self.endpoint))?;
        let mut abandoned = Abandoned {
            peer: peer.clone(),
            request: Some(sent.id.clone()),
        };
        let answered = sent.await_response().await;
        abandoned.request = None;
        answered.map_err(|error| McpError::using(&error, &self.endpoint))
    }
}

/// The things that a server may do with a call: ask a person for a form or a visit, or make it a task.
fn capabilities() -> ClientCapabilities {
    let mut capabilities = ClientCapabilities::default();
    let form = FormElicitationCapability::new().with_schema_validation(true);
    let elicitation = ElicitationCapability::new().with_form(form);
    capabilities.elicitation = Some(elicitation.with_url(UrlElicitationCapability::default()));
    let tasks = (TASKS_EXTENSION_ID.to_owned(), JsonObject::new());
    capabilities.extensions = Some(std::iter::once(tasks).collect());
    capabilities
}

/// A request without an answer so far. Dropping it tells the server that nobody waits for one.
struct Abandoned {
    peer: Peer<RoleClient>,
    /// The request; `None` once it is answered.
    request: Option<RequestId>,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else {
            return;
        };
        let peer = self.peer.clone();
        TaskTracker::new().spawn(async move {
            let cancelled = CancelledNotification::new(CancelledNotificationParam::new(
                Some(request),
                Some("the call was given up".to_owned()),
            ));
            // A lost connection has no request to cancel.
            let _ = peer.send_notification(cancelled.into()).await;
        });
    }
}

/// A protocol that has begun, with the process of a server that is a program.
type Begun = (RunningService<RoleClient, Handler>, Option<Process>);

/// Begins the protocol over a new transport.
async fn serve(
    endpoint: &Arc<Endpoint>,
    guard: &Guard,
    list_changed: &Arc<AtomicBool>,
    lifecycle: ClientLifecycleMode,
) -> Result<Result<Begun, ClientInitializeError>, McpError> {
    let handler = Handler {
        list_changed: Arc::clone(list_changed),
    };
    match &endpoint.way {
        Way::Http(address) => {
            let http = Client::to_origin(guard, &address.url, endpoint.open_timeout)
                .map_err(|error| McpError::Setup(error.to_string()))?
                .into_http();
            let config = address.transport();
            let begun = if let Some(tokens) = &address.tokens {
                let http = Authorized::new(http, guard, tokens)?;
                let transport = StreamableHttpClientTransport::with_client(http, config);
                handler.serve_with_lifecycle(transport, lifecycle).await
            } else {
                let transport = StreamableHttpClientTransport::with_client(http, config);
                handler.serve_with_lifecycle(transport, lifecycle).await
            };
            Ok(begun.map(|running| (running, None)))
        }
        Way::Program(program) => {
            let cleared = Arc::clone(endpoint);
            let (process, output, input) = program
                .start(move |line| cleared.clear(line))
                .map_err(|error| McpError::NotStarted(error.to_string()))?;
            let transport =
                AsyncRwTransport::new_client(output, input).with_max_line_length(MAX_MESSAGE);
            let begun = handler.serve_with_lifecycle(transport, lifecycle).await;
            Ok(begun.map(|running| (running, Some(process))))
        }
    }
}

/// The client's side of a connection. A server that asks while a call is open gets no answer of a person, so that the
/// handshake offers neither elicitation nor sampling nor roots; see [`capabilities`].
struct Handler {
    list_changed: Arc<AtomicBool>,
}

impl ClientHandler for Handler {
    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.list_changed.store(true, Ordering::Release);
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("baton", env!("CARGO_PKG_VERSION")),
        )
        .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }
}
