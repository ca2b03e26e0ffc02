//! The HTTP accept loop: limits with real timers, and a stop that lets answers finish.
//!
//! axum's own `serve` installs no timer, has no limit of connections, and waits for ever for an
//! open stream. This loop drops a connection if a head is late, if a client stops reading or leaves,
//! and at the end of the drain; it closes an idle one gracefully.

mod addresses;
mod connection;
mod request_body;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::addresses::{Addresses, Place, refuse};
use crate::activity::Patience;
use crate::config::HttpConfig;
use crate::lifecycle::Shutdown;
use crate::metrics as names;

pub use addresses::{AddressLimit, network};
pub use request_body::{BodyTimeout, is_body_timeout};

/// The most bytes gathered for one write, and the size up to which every head of a request is taken. None
/// of twice this size is: the limit is looked at between reads, which grow. Buffers begin at 8 KiB.
const BUFFER: usize = 64 * 1024;
/// The most concurrent requests on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// The largest head of a request on an HTTP/2 stream, measured as in RFC 9113.
const HEAD: u32 = 16 * 1024;
/// The flow-control windows of an HTTP/2 stream, and of its connection.
const WINDOWS: (u32, u32) = (256 * 1024, 256 * 1024);
/// The most streams that a client opened and reset before they were accepted ("rapid reset").
const PENDING_RESETS: usize = 20;
/// The most resets that a client provoked by errors.
const PROVOKED_RESETS: usize = 128;
/// The interval of pings on a quiet HTTP/2 connection, and the time until an unanswered one ends
/// it.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// The pause after an error that lasts, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of a listener for its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The listener's name in metrics and logs.
    pub listener: &'static str,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for a request's body, from the first wait for it.
    pub body_timeout: Duration,
    /// Time during which a client may accept no bytes.
    pub write_timeout: Duration,
    /// Time between two requests.
    pub keep_alive: Duration,
    /// Open connections; beyond them, no more are accepted until one closes.
    pub max_connections: usize,
    /// Open connections of one client address; beyond them, a connection is answered with 429.
    pub per_address: Option<AddressLimit>,
    /// Time from the soft stop until the listener closes.
    pub lame_duck: Duration,
    /// Time from then until open connections are cut.
    pub drain: Duration,
}

impl Limits {
    /// Returns the limits of the public listener. The router limits a body's size
    /// (`DefaultBodyLimit`), because that answer has the route's shape.
    pub fn of(config: &HttpConfig) -> Self {
        Self {
            listener: "public",
            header_timeout: config.header_timeout,
            body_timeout: config.body_timeout,
            write_timeout: config.write_timeout,
            keep_alive: config.keep_alive,
            max_connections: config.connections(),
            per_address: Some(AddressLimit {
                connections: config.connections_per_address(),
                excepted: config.trusted_proxies.clone(),
            }),
            lame_duck: config.lame_duck,
            drain: config.drain,
        }
    }
}

/// The totals of a listener at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeReport {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that were cut at the end of the drain.
    pub cut: usize,
}

/// Serves `router` until `shutdown.soft` and for `limits.lame_duck` longer, then lets open
/// connections finish for at most `limits.drain`. `shutdown.hard` ends it at once. Returns when all
/// connections are closed.
///
/// Every request has an extension [`ConnectInfo<SocketAddr>`] with the peer's address. Handlers of
/// endless streams should end them after `shutdown.soft`, because the drain takes its whole time
/// otherwise.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: &Shutdown,
) -> ServeReport {
    names::create_listener_series(limits.listener);
    let (lame_duck, most) = (limits.lame_duck, limits.max_connections);
    let server = Arc::new(Server::new(router, limits));
    let permits = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut accepted = 0_u64;
    {
        let closing = async {
            shutdown.soft.cancelled().await;
            sleep(lame_duck).await;
        };
        tokio::pin!(closing);
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                () = shutdown.hard.cancelled() => break,
                () = &mut closing => break,
                connection = server.accept(&listener, &permits) => connection,
            };
            accepted += 1;
            let connection = Arc::clone(&server).connection(stream, peer, place);
            server.tasks.spawn(connection);
        }
    }
    drop(listener);
    let cut = server.stop(shutdown).await;
    ServeReport { accepted, cut }
}

/// Returns whether the client left before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Spawns hyper's tasks besides the connection (HTTP/2 streams), so that they are awaited and cut
/// like the connection itself.
#[derive(Clone)]
struct Spawner {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl<F> Executor<F> for Spawner
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let cut = self.cut.clone();
        self.tasks
            .spawn(async move { cut.run_until_cancelled_owned(future).await });
    }
}

struct Server {
    router: Router,
    limits: Limits,
    patience: Patience,
    /// Finds out from the first bytes whether a client speaks HTTP/1 or HTTP/2.
    protocol: auto::Builder<Spawner>,
    /// For a client that is known to speak HTTP/1. The first bytes are then read with all others, into a
    /// buffer of half the size.
    http1: auto::Builder<Spawner>,
    tasks: TaskTracker,
    /// Connections finish their requests and close.
    drain: CancellationToken,
    /// Connections are dropped.
    cut: CancellationToken,
    open: AtomicUsize,
    addresses: Addresses,
}

impl Server {
    fn new(router: Router, limits: Limits) -> Self {
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        let mut protocol = auto::Builder::new(Spawner {
            tasks: tasks.clone(),
            cut: cut.clone(),
        });
        // [`Activity`] limits heads. The default limit of 100 header fields applies, and is cheaper
        // if not set.
        protocol
            .http1()
            .header_read_timeout(None)
            .max_buf_size(BUFFER);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(PROVOKED_RESETS)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        let patience = Patience {
            header: limits.header_timeout,
            idle: limits.keep_alive,
            write: limits.write_timeout,
        };
        let (drain, open) = (CancellationToken::new(), AtomicUsize::new(0));
        let addresses = Addresses::new(limits.per_address.clone());
        Self {
            router,
            limits,
            patience,
            http1: protocol.clone().http1_only(),
            protocol,
            tasks,
            drain,
            cut,
            open,
            addresses,
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        permits: &Arc<Semaphore>,
    ) -> (TcpStream, SocketAddr, (OwnedSemaphorePermit, Place)) {
        let permit = loop {
            match Arc::clone(permits).acquire_owned().await {
                Ok(permit) => break permit,
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        };
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(place) = self.addresses.take(peer.ip()) else {
                        refuse(&stream);
                        self.count_cut("address_limit", 1);
                        continue;
                    };
                    // Tokens are small and must not wait for each other. The option fails only on a
                    // dead socket.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer, (permit, place));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Lets connections finish, cuts the rest, and returns the number of those.
    async fn stop(&self, shutdown: &Shutdown) -> usize {
        self.drain.cancel();
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => {}
            () = shutdown.hard.cancelled() => {}
            () = sleep(self.limits.drain) => {}
        }
        let left = self.open.load(Ordering::Acquire);
        self.cut.cancel();
        self.tasks.wait().await;
        if left > 0 {
            tracing::warn!(
                listener = self.limits.listener,
                connections = left,
                "cut at the end of the drain"
            );
            self.count_cut("drain", left);
        }
        left
    }

    fn count_cut(&self, reason: &'static str, connections: usize) {
        let labels = [("listener", self.limits.listener), ("reason", reason)];
        metrics::counter!(names::HTTP_CONNECTIONS_CUT, &labels).increment(connections as u64);
    }
}

/// A guard that counts a connection while it lives.
struct OpenConnection<'a>(&'a Server);

impl<'a> OpenConnection<'a> {
    fn new(server: &'a Server) -> Self {
        server.open.fetch_add(1, Ordering::AcqRel);
        let listener = server.limits.listener;
        metrics::gauge!(names::HTTP_ACTIVE_CONNECTIONS, "listener" => listener).increment(1.0);
        Self(server)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        let listener = self.0.limits.listener;
        metrics::gauge!(names::HTTP_ACTIVE_CONNECTIONS, "listener" => listener).decrement(1.0);
    }
}
