//! A request body that must arrive in time, and of which nothing may stay unread on a connection
//! that goes on.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use futures_util::future::poll_fn;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

/// The bytes of a body that are read and dropped before its request's answer, so that its connection can go on.
const REST: u64 = 256 << 10;
/// The time for that.
const REST_TIME: Duration = Duration::from_secs(1);

/// The client did not send the request's body within the limit.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not arrive in time")]
pub struct BodyTimeout;

/// Returns whether an error, such as an extractor's rejection, is or was caused by a
/// [`BodyTimeout`].
pub fn is_body_timeout(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<BodyTimeout>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A body of which a handler may read as much as it likes. The timer is made when it is first waited
/// for, because most bodies come with the head.
pub(super) struct RequestBody<B: HttpBody> {
    /// Until it has ended, or is dropped.
    inner: Option<B>,
    asked: bool,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    unread: Unread<B>,
}

/// The slot for a body that a handler has dropped before its end.
pub(super) struct Unread<B>(Arc<Mutex<Option<(B, bool)>>>);

impl<B> Clone for Unread<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> RequestBody<B> {
    /// Wraps a body. What a handler leaves of it is found in the slot.
    pub(super) fn new(inner: B, limit: Duration) -> (Self, Unread<B>) {
        let unread = Unread(Arc::default());
        let body = Self {
            inner: Some(inner),
            asked: false,
            limit,
            timer: None,
            unread: unread.clone(),
        };
        (body, unread)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> Unread<B> {
    /// Reads and drops a small rest. Says whether the body has come to its end.
    ///
    /// With `waits`, the client sends nothing before it is asked to go on, and asking is what the
    /// first read does.
    pub(super) async fn read_rest(&self, waits: bool) -> bool {
        let dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut body, asked)) = dropped else {
            return true;
        };
        if (waits && !asked) || body.size_hint().lower() > REST {
            return false;
        }
        let reading = async {
            let mut left = REST;
            loop {
                match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    None => return true,
                    Some(Err(_)) => return false,
                    Some(Ok(frame)) => {
                        let count = frame.data_ref().map_or(0, Bytes::len) as u64;
                        let Some(rest) = left.checked_sub(count) else {
                            return false;
                        };
                        left = rest;
                    }
                }
            }
        };
        timeout(REST_TIME, reading).await.unwrap_or(false)
    }
}

impl<B: HttpBody> Drop for RequestBody<B> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take().filter(|inner| !inner.is_end_stream()) {
            let mut unread = self.unread.0.lock().unwrap_or_else(PoisonError::into_inner);
            *unread = Some((inner, self.asked));
        }
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        this.asked = true;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            if frame.is_none() {
                this.inner = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(BodyTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
