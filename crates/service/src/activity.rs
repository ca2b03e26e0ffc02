//! The activity of a connection, and its deadline.
//!
//! hyper's own header timer also runs between requests, so a short limit for slow clients would
//! also shorten the keep-alive; and before the first bytes, the automatic choice of the HTTP
//! version runs no timer at all. So the limits are kept here: the socket and the service report
//! events, and the connection's task asks for the deadline.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) header: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// The limit that a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The head of a request did not arrive in time.
    Header,
    /// No request came; the connection can be closed gracefully.
    Idle,
    /// The client accepts no bytes.
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A part of a head is there, or the connection is new or about to close.
    Head,
    /// Between two requests.
    Idle,
    /// Requests are being answered.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    open_requests: usize,
    multiplexed: bool,
    blocked_since: Option<Instant>,
    /// Reads that brought bytes.
    reads: u64,
    /// More is to come of a request that was answered.
    unread: bool,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            phase: Phase::Head,
            since: Instant::now(),
            open_requests: 0,
            multiplexed: false,
            blocked_since: None,
            reads: 0,
            unread: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request, which is open until the answer's body is dropped.
    pub(crate) fn request(self: &Arc<Self>, version: http::Version) -> OpenRequest {
        let mut state = self.lock();
        state.open_requests += 1;
        state.multiplexed |= version == http::Version::HTTP_2;
        state.phase = Phase::Busy;
        drop(state);
        OpenRequest(Arc::clone(self))
    }

    /// Records that the connection should close, which must not take longer than a head.
    pub(crate) fn closing(&self) {
        let mut state = self.lock();
        state.phase = Phase::Head;
        state.since = Instant::now();
    }

    fn bytes_arrived(&self) {
        let mut state = self.lock();
        state.reads += 1;
        // On a multiplexed connection the bytes may be anything, such as an answer to a ping.
        if state.phase == Phase::Idle && !state.multiplexed {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    /// Counts reads while a request is answered.
    pub(crate) fn reads_of_request(&self) -> Option<u64> {
        let state = self.lock();
        (state.phase == Phase::Busy).then_some(state.reads)
    }

    /// Remembers that more is to come of a request that is answered.
    pub(crate) fn leave_unread(&self) {
        self.lock().unread = true;
    }

    /// Says whether more is to come of a request that was answered.
    pub(crate) fn has_unread(&self) -> bool {
        self.lock().unread
    }

    fn write_blocked(&self, blocked: bool) {
        let mut state = self.lock();
        if !blocked {
            state.blocked_since = None;
        } else if state.blocked_since.is_none() {
            state.blocked_since = Some(Instant::now());
        }
    }

    /// Returns the connection's deadline if nothing happens, and the limit that it belongs to.
    pub(crate) fn deadline(&self, patience: &Patience) -> Option<(Instant, Expiry)> {
        let state = self.lock();
        let waiting = match state.phase {
            Phase::Head => Some((state.since + patience.header, Expiry::Header)),
            Phase::Idle => Some((state.since + patience.idle, Expiry::Idle)),
            Phase::Busy => None,
        };
        let blocked = state
            .blocked_since
            .map(|since| (since + patience.write, Expiry::Write));
        waiting.into_iter().chain(blocked).min_by_key(|(at, _)| *at)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.open_requests -= 1;
        if state.open_requests == 0 {
            state.phase = Phase::Idle;
            state.since = Instant::now();
        }
    }
}

/// A response body that keeps its request open.
pub(crate) struct AnswerBody {
    inner: Body,
    _open: OpenRequest,
}

impl AnswerBody {
    pub(crate) const fn new(inner: Body, open: OpenRequest) -> Self {
        Self { inner, _open: open }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that reports its events to an [`Activity`].
pub(crate) struct WatchedIo<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S> WatchedIo<S> {
    pub(crate) const fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self { inner, activity }
    }

    fn written<T>(&self, result: Poll<T>) -> Poll<T> {
        self.activity.write_blocked(result.is_pending());
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_arrived();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::Version;
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
    };

    fn left(activity: &Activity) -> Option<(u64, Expiry)> {
        let (at, expiry) = activity.deadline(&PATIENCE)?;
        Some((at.duration_since(Instant::now()).as_secs(), expiry))
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_limit_for_heads_does_not_shorten_the_pause_between_requests() {
        let activity = Activity::new();
        assert_eq!(
            left(&activity),
            Some((10, Expiry::Header)),
            "a new connection"
        );
        let answer = activity.request(Version::HTTP_11);
        assert_eq!(left(&activity), None, "a stream may last");
        drop(answer);
        assert_eq!(left(&activity), Some((75, Expiry::Idle)));
        advance(Duration::from_secs(50)).await;
        activity.bytes_arrived();
        advance(Duration::from_secs(3)).await;
        activity.bytes_arrived();
        assert_eq!(
            left(&activity),
            Some((7, Expiry::Header)),
            "more bytes are no more time"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_on_an_idle_multiplexed_connection_are_no_head() {
        let activity = Activity::new();
        let (one, other) = (
            activity.request(Version::HTTP_2),
            activity.request(Version::HTTP_2),
        );
        drop(one);
        assert_eq!(
            left(&activity),
            None,
            "the other one is still being answered"
        );
        drop(other);
        activity.bytes_arrived();
        assert_eq!(left(&activity), Some((75, Expiry::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_blocked_write_runs_from_when_it_was_first_blocked() {
        let activity = Activity::new();
        let _answer = activity.request(Version::HTTP_11);
        activity.write_blocked(true);
        advance(Duration::from_secs(20)).await;
        activity.write_blocked(true);
        assert_eq!(left(&activity), Some((10, Expiry::Write)));
        activity.write_blocked(false);
        assert_eq!(left(&activity), None);
    }
}
