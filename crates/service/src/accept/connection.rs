//! One connection, from its first byte to its close.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tower::Service;

use super::request_body::RequestBody;
use super::socket::Socket;
use super::{OpenConnection, Server};
use crate::activity::{Activity, AnswerBody, Expiry, WatchedIo};

/// Why a connection is over.
enum End {
    /// The HTTP implementation closed it.
    Closed,
    /// The HTTP implementation gave it up.
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// A time limit passed.
    Expired(Expiry),
    /// The client left in the middle of a request.
    Left,
}

impl Server {
    /// Serves a connection, and keeps its place until its end.
    ///
    /// A future that is moved into another is stored twice, and thousands of connections wait here: so
    /// the inner ones are pinned where they are made.
    pub(super) async fn connection<P>(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _place: P,
    ) {
        let _open = OpenConnection::new(&self);
        let activity = Activity::new();
        let socket = Socket::new(stream);
        let mut served = pin!(self.serve_socket(&socket, peer, &activity));
        let mut left = pin!(socket.left(|| activity.reads_of_request()));
        let ended = async {
            tokio::select! {
                end = &mut served => end,
                () = &mut left => End::Left,
            }
        };
        let malformed = match self.cut.run_until_cancelled(ended).await {
            // A connection ends as its client likes; what it asked for has been logged.
            Some(End::Failed(error)) => {
                tracing::debug!(%peer, %error, "connection failed");
                is_malformed(&*error)
            }
            Some(End::Expired(expiry)) => {
                let reason = match expiry {
                    Expiry::Header | Expiry::Idle => "header_timeout",
                    Expiry::Write => "write_timeout",
                };
                tracing::debug!(%peer, reason, "connection cut");
                return self.count_cut(reason, 1);
            }
            Some(End::Left) => return tracing::debug!(%peer, "the client left"),
            Some(End::Closed) => false,
            None => return,
        };
        if malformed || activity.has_unread() {
            self.cut.run_until_cancelled(socket.linger()).await;
        }
    }

    /// Speaks HTTP until the connection is over, and lets go of all that its requests hold.
    async fn serve_socket(
        &self,
        socket: &Socket,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) -> End {
        let io = TokioIo::new(WatchedIo::new(socket.clone(), Arc::clone(activity)));
        let service = {
            let (router, activity) = (self.router.clone(), Arc::clone(activity));
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
        let mut draining = pin!(self.drain.cancelled());
        let mut timer = pin!(sleep(self.patience.header));
        let protocol = tokio::select! {
            biased;
            is_http1 = socket.begins_as_http1() => if is_http1 { &self.http1 } else { &self.protocol },
            () = &mut draining => return End::Closed,
            () = &mut timer => return End::Expired(Expiry::Header),
        };
        let mut connection = pin!(protocol.serve_connection(io, service));
        let (mut closing, mut drained) = (false, false);

        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(match result {
                        Ok(()) => End::Closed,
                        Err(error) => End::Failed(error),
                    });
                }
                if !drained && draining.as_mut().poll(cx).is_ready() {
                    drained = true;
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                // Asked anew after each poll, as polling is what changes the answer.
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
                    return Poll::Ready(End::Expired(expiry));
                }
                closing = true;
                activity.closing();
                connection.as_mut().graceful_shutdown();
            }
        })
        .await
    }
}

/// Says whether the client got an error because it did not speak HTTP.
fn is_malformed(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse)
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    body_timeout: Duration,
    activity: Arc<Activity>,
) -> Result<Response<AnswerBody>, Infallible> {
    let version = request.version();
    let waits = request.headers().contains_key(EXPECT);
    let open = activity.request(version);
    let mut unread = None;
    let mut request = request.map(|body| {
        if body.is_end_stream() {
            Body::empty()
        } else {
            let (body, slot) = RequestBody::new(body, body_timeout);
            unread = Some(slot);
            Body::new(body)
        }
    });
    request.extensions_mut().insert(ConnectInfo(peer));
    let mut response = Service::<Request<Body>>::call(&mut router, request).await?;
    // A stream of HTTP/2 ends by itself, and its connection goes on.
    if let Some(unread) = unread.filter(|_| version < Version::HTTP_2)
        && !unread.read_rest(waits).await
    {
        // Without this, a client would send its next request into a connection that closes.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        activity.leave_unread();
    }
    Ok(response.map(|body| AnswerBody::new(body, open)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size<A, B, C, D, F>(_: &impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_holds_little_while_it_waits() {
        assert!(size(&Server::connection::<()>) < 5 << 10);
    }
}
