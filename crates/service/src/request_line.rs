//! The log line of a request, written when its answer has ended.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use baton_traces::SampledSpan;
use http_body::{Frame, SizeHint};
use tracing::Span;

tokio::task_local! {
    /// The span of the request that this task answers.
    pub(crate) static TRACE: RequestTrace;
}

/// The span of a request, for what is learnt while it is answered.
#[derive(Debug, Clone, Default)]
pub struct RequestTrace {
    sampled: Option<SampledSpan>,
    failure: Arc<OnceLock<&'static str>>,
}

impl RequestTrace {
    pub(crate) fn of(span: &baton_traces::Span) -> Self {
        let (sampled, failure) = (span.sampled(), Arc::default());
        Self { sampled, failure }
    }

    /// Returns the span of the request that this task answers. Outside of a handler it has no effect.
    pub fn current() -> Self {
        TRACE.try_with(Clone::clone).unwrap_or_default()
    }

    /// Marks the span as failed whatever the status says, as that of a stream that breaks off. The first code counts.
    pub fn fail(&self, code: &'static str) {
        let _first = self.failure.set(code);
    }

    /// Returns the span, if it is sampled.
    pub const fn sampled(&self) -> Option<SampledSpan> {
        self.sampled
    }
}

/// A request's log line; dropped, it is written.
#[derive(Debug)]
pub(crate) struct RequestLine {
    span: Span,
    trace: baton_traces::Span,
    noted: RequestTrace,
    start: Instant,
    /// The status and the time until the head, once there is one.
    head: Option<(u16, Duration)>,
    bytes: u64,
}

impl RequestLine {
    pub(crate) const fn begin(
        span: Span,
        trace: baton_traces::Span,
        noted: RequestTrace,
        start: Instant,
    ) -> Self {
        Self {
            span,
            trace,
            noted,
            start,
            head: None,
            bytes: 0,
        }
    }

    pub(crate) fn answered(&mut self, status: u16, after: Duration) {
        self.trace
            .set("http.response.status_code", || i64::from(status));
        if status >= 500 {
            self.trace.fail(&status.to_string());
        }
        self.head = Some((status, after));
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        if let Some(code) = self.noted.failure.get() {
            self.trace.fail(code);
        }
        let duration_ms = self.start.elapsed().as_secs_f64() * 1e3;
        let bytes = self.bytes;
        self.span.in_scope(|| {
            if let Some((status, head)) = self.head {
                let head_ms = head.as_secs_f64() * 1e3;
                tracing::info!(status, bytes, head_ms, duration_ms, "answered");
            } else {
                tracing::info!(duration_ms, "the client went away before the answer");
            }
        });
    }
}

/// An answer's body that counts its bytes.
pub(crate) struct ObservedBody {
    // Dropped first: what it holds says in the span how a stream ended.
    inner: Body,
    line: RequestLine,
}

impl ObservedBody {
    pub(crate) const fn new(inner: Body, line: RequestLine) -> Self {
        Self { inner, line }
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.line.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
