//! A span of a trace.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};

pub use opentelemetry::trace::SpanKind;

use crate::TRACES;
use crate::exemplars::SampledSpan;

/// A span at work; dropped, it ends. It is empty where spans are not sent.
#[derive(Debug, Default)]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

impl Span {
    /// Begins a span now. `parent` is a W3C `traceparent`; without one, the span is the root of a new trace.
    /// An empty span has no name, so it is made only where spans are sent.
    pub fn begin<N: Into<Cow<'static, str>>>(
        name: impl FnOnce() -> N,
        kind: SpanKind,
        parent: Option<&str>,
    ) -> Self {
        Self::begin_at(name, kind, parent, None)
    }

    /// As [`Span::begin`], at an earlier time.
    pub fn begin_at<N: Into<Cow<'static, str>>>(
        name: impl FnOnce() -> N,
        kind: SpanKind,
        parent: Option<&str>,
        at: Option<SystemTime>,
    ) -> Self {
        let Some(traces) = TRACES.get() else {
            return Self(None);
        };
        let mut builder = traces.tracer.span_builder(name()).with_kind(kind);
        builder.start_time = at;
        let context = match parent.and_then(remote_context) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let span = traces.tracer.build_with_context(builder, &context);
        Self(Some(Box::new(span)))
    }

    /// Returns the span's `traceparent`; `None` if it is empty.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        Some(format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        ))
    }

    /// Returns the span as an example of what is measured, if it is sampled.
    pub fn sampled(&self) -> Option<SampledSpan> {
        let context = self.0.as_ref()?.span_context();
        context.is_sampled().then(|| SampledSpan {
            trace: context.trace_id(),
            span: context.span_id(),
        })
    }

    /// Returns whether attributes are recorded.
    pub fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|span| span.is_recording())
    }

    /// Adds an attribute. It costs nothing if the span is empty or not sampled, so the value is made only then.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = &mut self.0
            && span.is_recording()
        {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Marks the span as failed, with a code and without words that could be content.
    pub fn fail(&mut self, code: &str) {
        self.set("error.type", || code.to_owned());
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(""));
        }
    }
}

/// Makes the value of an attribute that is a list.
pub fn strings<const N: usize>(list: [&'static str; N]) -> Value {
    Value::Array(Array::String(list.map(StringValue::from).to_vec()))
}

/// Reads a `traceparent` of version 00; `None` for any other text.
fn remote_context(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = u8::from_str_radix(fields.next()?, 16).ok()?;
    let context = SpanContext::new(
        trace,
        span,
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_empty_where_spans_are_not_sent() {
        let mut span = Span::begin(|| "work", SpanKind::Internal, None);
        span.set("a", || -> i64 { panic!("the value is not made") });
        assert_eq!(span.traceparent(), None);
    }

    #[test]
    fn a_traceparent_is_read_or_is_none() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = remote_context(good).map(|context| context.is_sampled());
        assert_eq!(read, Some(true));
        for bad in ["", "00", "00-0-0-01", &good.replace("4bf9", "xxxx")] {
            assert!(remote_context(bad).is_none(), "{bad}");
        }
    }
}
