//! An MCP server for tests: of both eras of the protocol, and of bad manners.
//!
//! It has the tools `echo` (its arguments as text), `wait` (answers when the gate is open), `fail` (an
//! error of the tool), and whatever a [`Manner`] adds.

mod answer;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::client::PATIENCE;
use crate::scripted_model::Gate;

/// Returns the command of a server that is a local program. Its tools: `say` (its process id), `crash` (ends),
/// `variables` (the names in its environment), `children` (starts one, and says both ids), `hoard` (takes
/// 200 MB), `noise` (writes the variable `SECRET` to its standard error).
pub fn program() -> Vec<String> {
    let script = include_str!("mcp_server/program.sh");
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// The era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2026-07-28: no handshake, no session.
    Modern,
    /// 2025-11-25: a handshake and a session.
    Legacy,
}

/// The behaviour of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// As the protocol says.
    Honest,
    /// Answers methods that it does not know with an empty result.
    AnswersAnything,
    /// Lists this many more tools.
    ManyTools(usize),
    /// Never ends its list: each page names a further one.
    EndlessPages,
    /// Answers `tools/list` with a body without an end.
    EndlessBody,
    /// Answers each call with a body without an end.
    FloodsCalls,
    /// Answers `tools/list` with a response to another request.
    WrongIds,
    /// Answers `tools/list` one byte a second.
    SlowDrip,
    /// Redirects every request.
    Redirects(String),
    /// Lists a tool with control characters in its name and its description.
    ControlCharacters,
    /// Lists a tool with a description of 10 KiB, and one with arguments that are no schema.
    BadDefinitions,
    /// Repeats the `Authorization` header wherever it can.
    TellsSecrets,
    /// Refuses every request without this bearer token.
    Guarded(String),
    /// Lists the tool `ask`, which asks a person before it answers. Its argument `rounds` is the number of times
    /// that it asks, and `kind` its question: see `answer.rs`. With `hold`, its result waits for the gate.
    Asks,
    /// Lists the tool `task`, which goes on by itself until the gate is open. Its argument `kind` is the end of its
    /// task: `done`, `failed`, `cancelled`, `lost`, or `asks`, which asks a person before it is done.
    Tasks,
}

/// The requests so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The methods, in order.
    pub methods: Vec<String>,
    /// The parameters of the calls that began, in order.
    pub calls: Vec<Value>,
    /// Calls that the client cancelled by a notification.
    pub cancelled: usize,
    /// Calls with a connection that the client closed before the answer.
    pub abandoned: usize,
    /// The tasks that the client cancelled.
    pub tasks_cancelled: Vec<String>,
    /// The answers that the client gave to tasks.
    pub task_answers: Vec<Value>,
    /// The capabilities that the client named in the handshake.
    pub capabilities: Value,
}

/// Is given the parameters of each call before the call takes place.
pub type Observer = Box<dyn Fn(&Value) + Send + Sync>;

/// A server at a free port of the loopback. It ends when dropped.
pub struct McpServer {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    era: Era,
    manner: Mutex<Manner>,
    gate: Gate,
    /// Open once unanswered calls break off.
    broken: Gate,
    seen: watch::Sender<Seen>,
    observer: Option<Observer>,
}

impl State {
    fn manner(&self) -> Manner {
        let manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        manner.clone()
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl McpServer {
    /// Begins to serve.
    pub async fn start(era: Era, manner: Manner) -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), era, manner).await
    }

    /// Begins to serve honestly, with an observer of the calls. Each takes a while.
    pub async fn observed(observer: Observer) -> std::io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::serve(address, Era::Modern, Manner::Honest, Some(observer)).await
    }

    /// Begins to serve at an address, for instance that of a server that was dropped.
    pub async fn start_at(address: SocketAddr, era: Era, manner: Manner) -> std::io::Result<Self> {
        Self::serve(address, era, manner, None).await
    }

    async fn serve(
        address: SocketAddr,
        era: Era,
        manner: Manner,
        observer: Option<Observer>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            era,
            manner: Mutex::new(manner),
            gate: Gate::closed(),
            broken: Gate::closed(),
            seen: watch::Sender::default(),
            observer,
        });
        let router = Router::new()
            .route("/mcp", any(answer::answer))
            .with_state(Arc::clone(&state));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        TaskTracker::new().spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, router) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self {
            address,
            state,
            _stop: stop.drop_guard(),
        })
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Sets the behaviour for the requests from now on.
    pub fn set_manner(&self, manner: Manner) {
        let mut now = self
            .state
            .manner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *now = manner;
    }

    /// Lets `wait` answer, now and later.
    pub fn open_gate(&self) {
        self.state.gate.open();
    }

    /// Closes the connections of the calls that have no answer.
    pub fn break_off(&self) {
        self.state.broken.open();
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Seen {
        self.state.seen.borrow().clone()
    }

    /// Waits until the requests meet the condition.
    ///
    /// # Panics
    ///
    /// If they do not meet it in time.
    pub async fn wait_until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.state.seen.subscribe();
        let Ok(reached) = timeout(PATIENCE, seen.wait_for(condition)).await else {
            panic!("waited in vain: {:?}", self.seen());
        };
        reached.map_or_else(|_| self.seen(), |seen| seen.clone())
    }
}
