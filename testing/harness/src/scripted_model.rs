//! An upstream that replies exactly as a test demands, down to the bytes, and records its requests.
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
mod piece;
mod reply;
mod respond;
mod script;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::PATIENCE;

pub use gate::Gate;
pub use piece::Piece;
pub use reply::Reply;
pub use script::{Recorded, Script};
pub use state::Counts;

use state::{ScriptBox, State};

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

    /// Begins to listen at an address, for instance that of an upstream that was stopped.
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

    /// Returns the URL to configure for the upstream; it ends with `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the script for the requests from now on.
    pub fn set_script(&self, script: Script) {
        self.state
            .script
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .0 = script;
    }

    /// Returns the requests for completions so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        *self.state.counts.borrow()
    }

    /// Returns the number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until the counts meet the condition.
    ///
    /// # Panics
    ///
    /// If they do not meet it in time: a failing test says more than one that waits for ever.
    pub async fn wait_until(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.state.counts.subscribe();
        let Ok(reached) = timeout(PATIENCE, counts.wait_for(condition)).await else {
            panic!("waited in vain: {:?}", self.counts());
        };
        // The sender is in `self`, and so exists during the wait.
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
            // For instance too many open files. Such an error passes, and the loop must not spin
            // until then.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        state.connections.fetch_add(1, Ordering::Relaxed);
        // If the socket was closed meanwhile, serving it fails.
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
                // A client that disconnected, or a scripted cut; both are counted elsewhere.
                _ = connection => {}
            }
        });
    }
}

#[cfg(test)]
mod tests;
