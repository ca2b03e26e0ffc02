//! The HTTP accept loop: limits with real timers, and a stop that lets answers finish.
//!
//! axum's own `serve` installs no timer, has no limit of connections, and waits for ever for an
//! open stream. This loop drops a connection if a head is late, if a client stops reading, and at
//! the end of the drain; it closes an idle one gracefully.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::activity::{Activity, AnswerBody, Expiry, Patience, WatchedIo};
use crate::config::HttpConfig;
use crate::deadline_body::DeadlineBody;
use crate::lifecycle::Shutdown;
use crate::metrics as names;

pub use crate::deadline_body::{BodyTimeout, is_body_timeout};

/// The largest head of a request, and the most bytes gathered for one write. An upper bound:
/// buffers begin at 8 KiB.
const BUFFER: usize = 64 * 1024;
/// The most concurrent requests on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// The largest head of a request on an HTTP/2 stream, measured as in RFC 9113.
const HEAD: u32 = 16 * 1024;
/// The flow-control windows of an HTTP/2 stream, and of its connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);
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
#[derive(Debug, Clone, Copy)]
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
    /// Time from the soft stop until the listener closes.
    pub lame_duck: Duration,
    /// Time from then until open connections are cut.
    pub drain: Duration,
}

impl Limits {
    /// Returns the limits of the public listener. The router limits a body's size
    /// (`DefaultBodyLimit`), because that answer has the route's shape.
    pub const fn of(config: &HttpConfig) -> Self {
        Self {
            listener: "public",
            header_timeout: config.header_timeout,
            body_timeout: config.body_timeout,
            write_timeout: config.write_timeout,
            keep_alive: config.keep_alive,
            max_connections: config.max_connections,
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
    let server = Arc::new(Server::new(router, limits));
    let permits = Arc::new(Semaphore::new(
        limits.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let mut accepted = 0_u64;
    {
        let closing = async {
            shutdown.soft.cancelled().await;
            sleep(limits.lame_duck).await;
        };
        tokio::pin!(closing);
        loop {
            let (stream, peer, permit) = tokio::select! {
                biased;
                () = shutdown.hard.cancelled() => break,
                () = &mut closing => break,
                connection = accept(&listener, &permits) => connection,
            };
            accepted += 1;
            let connection = Arc::clone(&server).connection(stream, peer);
            server.tasks.spawn(async move {
                connection.await;
                drop(permit);
            });
        }
    }
    drop(listener);
    let cut = server.stop(shutdown).await;
    ServeReport { accepted, cut }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
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
                // Tokens are small and must not wait for each other. The option fails only on a
                // dead socket.
                let _ = stream.set_nodelay(true);
                return (stream, peer, permit);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
    protocol: auto::Builder<Spawner>,
    tasks: TaskTracker,
    /// Connections finish their requests and close.
    drain: CancellationToken,
    /// Connections are dropped.
    cut: CancellationToken,
    open: AtomicUsize,
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
        Self {
            router,
            limits,
            patience,
            protocol,
            tasks,
            drain,
            cut,
            open,
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

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let _open = OpenConnection::new(&self);
        let activity = Activity::new();
        let io = TokioIo::new(WatchedIo::new(stream, Arc::clone(&activity)));
        let service = {
            let (router, activity) = (self.router.clone(), Arc::clone(&activity));
            let body_timeout = self.limits.body_timeout;
            service_fn(move |request| {
                answer(
                    router.clone(),
                    request,
                    peer,
                    body_timeout,
                    Arc::clone(&activity),
                )
            })
        };
        let connection = self.protocol.serve_connection(io, service);
        let draining = self.drain.cancelled();
        let timer = sleep(self.patience.header);
        let (mut closing, mut drained) = (false, false);
        tokio::pin!(connection, draining, timer);

        let served = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Ok(result));
                }
                if !drained && draining.as_mut().poll(cx).is_ready() {
                    drained = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                // Read again after each poll, because polling changes the deadline.
                let Some((at, expiry)) = activity.deadline(&self.patience) else {
                    return Poll::Pending;
                };
                if timer.deadline() != at {
                    timer.as_mut().reset(at);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if expiry != Expiry::Idle || closing {
                    return Poll::Ready(Err(expiry));
                }
                closing = true;
                activity.closing();
                connection.as_mut().graceful_shutdown();
            }
        });
        match self.cut.run_until_cancelled(served).await {
            // Only a debug line, because clients end connections at will and their requests are
            // logged.
            Some(Ok(Err(error))) => tracing::debug!(%peer, %error, "connection failed"),
            Some(Err(expiry)) => {
                let reason = match expiry {
                    Expiry::Header | Expiry::Idle => "header_timeout",
                    Expiry::Write => "write_timeout",
                };
                tracing::debug!(%peer, reason, "connection cut");
                self.count_cut(reason, 1);
            }
            Some(Ok(Ok(()))) | None => {}
        }
    }
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    body_timeout: Duration,
    activity: Arc<Activity>,
) -> Result<Response<AnswerBody>, Infallible> {
    let open = activity.request(request.version());
    let mut request = request.map(|body| {
        if body.is_end_stream() {
            Body::empty()
        } else {
            Body::new(DeadlineBody::new(body, body_timeout))
        }
    });
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = Service::<Request<Body>>::call(&mut router, request).await?;
    Ok(response.map(|body| AnswerBody::new(body, open)))
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
