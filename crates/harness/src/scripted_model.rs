//! An upstream that does what a test says, down to the bytes, and tells what was done to it.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use baton_harness::scripted_model::{Reply, Script, ScriptedModel};
//!
//! let upstream = ScriptedModel::start(Script::sequence([
//!     Reply::status(429).header("retry-after", "0"),
//!     Reply::tokens(5).hang(),
//! ]))
//! .await?;
//! // … point a worker at `upstream.base_url()`, make it ask, make it stop …
//! upstream.wait_until(|counts| counts.disconnected == 1).await;
//! # Ok(())
//! # }
//! ```

mod by_model;
mod gate;
mod reply;
mod respond;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::PATIENCE;

pub use gate::Gate;
pub use reply::{Piece, Reply};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its place among the requests, from 0.
    pub index: usize,
    /// The model that it names.
    pub model: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

impl Recorded {
    /// Whether it asks for a stream.
    pub fn is_stream(&self) -> bool {
        self.body["stream"] == true
    }

    /// The text of its last message of the given role.
    pub fn last_text(&self, role: &str) -> Option<&str> {
        let messages = self.body["messages"].as_array()?;
        messages.iter().rfind(|message| message["role"] == role)?["content"].as_str()
    }

    /// The role of its last message.
    pub fn last_role(&self) -> Option<&str> {
        self.body["messages"].as_array()?.last()?["role"].as_str()
    }
}

/// What happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for a completion.
    pub requests: usize,
    /// Answers under way.
    pub open: usize,
    /// Answers that were given to their scripted end.
    pub finished: usize,
    /// Answers that the client did not wait for.
    pub disconnected: usize,
}

/// Which reply a request gets.
#[derive(Clone)]
pub struct Script(Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>);

impl Script {
    /// What a function says.
    pub fn new(choose: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// The same for every request.
    pub fn always(reply: Reply) -> Self {
        Self::new(move |_| reply.clone())
    }

    /// One after the other; the last for every further request.
    pub fn sequence(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        let next = Mutex::new(0);
        Self::new(move |_| {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            let reply = replies.get(*next).or(replies.last()).cloned();
            *next += 1;
            reply.unwrap_or_else(|| Reply::text("An empty script."))
        })
    }

    /// What the model's name says, see [`Reply::by_model`].
    pub fn by_model() -> Self {
        by_model::script()
    }
}

#[derive(Debug)]
struct State {
    script: RwLock<ScriptBox>,
    requests: Mutex<Vec<Recorded>>,
    counts: watch::Sender<Counts>,
    connections: AtomicUsize,
}

struct ScriptBox(Script);

impl std::fmt::Debug for ScriptBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl State {
    fn record(&self, headers: HeaderMap, body: Value) -> Recorded {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let recorded = Recorded {
            index: requests.len(),
            model,
            headers,
            body,
        };
        requests.push(recorded.clone());
        recorded
    }

    fn choose(&self, request: &Recorded) -> Reply {
        let script = self
            .script
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone();
        (script.0)(request)
    }
}

/// The upstream. It listens on a free port of the loopback until it is stopped or dropped; both
/// close its connections.
#[derive(Debug)]
pub struct ScriptedModel {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ScriptedModel {
    /// Begins to listen.
    pub async fn start(script: Script) -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script).await
    }

    /// Begins to listen at an address: to come back where another one was stopped.
    pub async fn start_at(address: SocketAddr, script: Script) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let model = Self {
            address: listener.local_addr()?,
            state: Arc::new(State {
                script: RwLock::new(ScriptBox(script)),
                requests: Mutex::default(),
                counts: watch::Sender::default(),
                connections: AtomicUsize::new(0),
            }),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        model.tasks.spawn(accept(
            listener,
            model.state.clone(),
            model.stop.clone(),
            model.tasks.clone(),
        ));
        Ok(model)
    }

    /// What to configure as the upstream's URL; it ends with `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another script, for the requests from now on.
    pub fn set_script(&self, script: Script) {
        self.state
            .script
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .0 = script;
    }

    /// The requests for completions so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        *self.state.counts.borrow()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until what happened is what a test waits for.
    ///
    /// # Panics
    ///
    /// If it does not happen: a test that waits for ever says less than one that fails.
    pub async fn wait_until(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.state.counts.subscribe();
        let Ok(reached) = timeout(PATIENCE, counts.wait_for(condition)).await else {
            panic!("waited in vain: {:?}", self.counts());
        };
        // The sender is in `self`: it is there while we wait.
        reached.map_or_else(|_| self.counts(), |counts| *counts)
    }

    /// Closes all connections and the port.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = accepted else {
            // Such as too many open files: it passes, and must not spin until then.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        state.connections.fetch_add(1, Ordering::Relaxed);
        // A socket that was closed meanwhile shows itself when it is served.
        let _ = socket.set_nodelay(true);
        let state = state.clone();
        let stop = stop.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| respond::respond(state.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                () = stop.cancelled() => {}
                // A client that went away, or a scripted cut: both are counted elsewhere.
                _ = connection => {}
            }
        });
    }
}

#[cfg(test)]
mod tests;
