use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanProcessor};

use super::*;
use crate::counted::Counted;

/// Collects the spans that would be sent.
#[derive(Debug, Clone, Default)]
struct Sent(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Sent {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Process {
    sent: Sent,
    unsampled: Arc<Unsampled>,
    provider: SdkTracerProvider,
}

impl Process {
    /// Samples no trace of its own.
    fn within(bounds: Bounds) -> Self {
        let (sent, unsampled) = (Sent::default(), Arc::new(Unsampled::within(bounds)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Counted {
                sending: sent.clone(),
                unsampled: Arc::clone(&unsampled),
            })
            .with_sampler(KeepsErrors {
                sampler: Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))),
                unsampled: Arc::clone(&unsampled),
            })
            .build();
        Self {
            sent,
            unsampled,
            provider,
        }
    }

    fn begin(&self, name: &'static str, kind: SpanKind, parent: Option<&Span>) -> Span {
        let tracer = self.provider.tracer("test");
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent.span_context().clone())
        });
        tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &context)
    }

    fn sent(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.sent.0.lock().unwrap())
    }

    fn names(&self) -> Vec<String> {
        let sent = self.sent();
        sent.into_iter()
            .map(|span| span.name.into_owned())
            .collect()
    }

    fn assert_nothing_is_held(&self) {
        let held = self.unsampled.locked();
        assert!(held.traces.is_empty() && held.oldest.is_empty(), "{held:?}");
        assert_eq!(held.bytes, 0);
    }
}

#[test]
fn the_spans_of_a_failed_trace_are_sent_as_sampled_ones() {
    let process = Process::within(Bounds::DEFAULT);
    let mut attempt = process.begin("attempt", SpanKind::Consumer, None);
    assert!(!attempt.span_context().is_sampled(), "for other processes");
    drop(process.begin("chat", SpanKind::Client, Some(&attempt)));
    drop(process.begin("commit", SpanKind::Internal, Some(&attempt)));
    assert!(process.sent().is_empty());
    attempt.set_status(Status::error(""));
    let trace = attempt.span_context().trace_id();
    drop(attempt);
    let sent = process.sent();
    let names: Vec<_> = sent.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["chat", "commit", "attempt"]);
    for span in sent {
        assert!(span.span_context.is_sampled());
        assert_eq!(span.span_context.trace_id(), trace);
    }
    process.assert_nothing_is_held();
}

#[test]
fn a_trace_that_ends_well_is_dropped_although_a_part_of_it_failed() {
    let process = Process::within(Bounds::DEFAULT);
    let attempt = process.begin("attempt", SpanKind::Consumer, None);
    let mut tool = process.begin("tool", SpanKind::Internal, Some(&attempt));
    tool.set_status(Status::error(""));
    drop(tool);
    drop(attempt);
    assert!(process.sent().is_empty());
    process.assert_nothing_is_held();
}

#[test]
fn a_failed_entry_waits_for_the_spans_that_are_still_at_work() {
    let process = Process::within(Bounds::DEFAULT);
    let mut request = process.begin("request", SpanKind::Server, None);
    let attempt = process.begin("attempt", SpanKind::Consumer, Some(&request));
    request.set_status(Status::error(""));
    drop(request);
    assert!(process.sent().is_empty());
    drop(attempt);
    assert_eq!(process.names(), ["request", "attempt"]);
}

#[test]
fn one_trace_too_many_is_not_recorded_and_the_others_go_on() {
    let process = Process::within(Bounds {
        traces: 1,
        ..Bounds::DEFAULT
    });
    let mut first = process.begin("first", SpanKind::Server, None);
    let second = process.begin("second", SpanKind::Server, None);
    assert!(!second.is_recording());
    drop(second);
    first.set_status(Status::error(""));
    drop(first);
    assert_eq!(process.names(), ["first"]);
    assert!(
        process
            .begin("third", SpanKind::Server, None)
            .is_recording()
    );
}

#[test]
fn the_oldest_spans_of_a_long_trace_make_room() {
    let process = Process::within(Bounds {
        spans_of_trace: 3,
        ..Bounds::DEFAULT
    });
    let mut attempt = process.begin("attempt", SpanKind::Consumer, None);
    for name in ["one", "two", "three", "four"] {
        drop(process.begin(name, SpanKind::Internal, Some(&attempt)));
    }
    attempt.set_status(Status::error(""));
    drop(attempt);
    assert_eq!(process.names(), ["three", "four", "attempt"]);
    process.assert_nothing_is_held();
}

#[test]
fn the_oldest_trace_loses_its_spans_if_there_are_too_many_bytes() {
    let process = Process::within(Bounds {
        bytes: 16 << 10,
        ..Bounds::DEFAULT
    });
    let mut attempts = ["old", "new"].map(|_| process.begin("attempt", SpanKind::Consumer, None));
    for attempt in &attempts {
        let mut turn = process.begin("turn", SpanKind::Client, Some(attempt));
        turn.set_attribute(KeyValue::new("text", "x".repeat(10 << 10)));
    }
    assert!(process.unsampled.locked().bytes <= 16 << 10);
    for attempt in &mut attempts {
        attempt.set_status(Status::error(""));
    }
    let [old, new] = attempts;
    drop(old);
    assert_eq!(process.names(), ["attempt"]);
    drop(new);
    assert_eq!(process.names(), ["turn", "attempt"]);
    process.assert_nothing_is_held();
}

#[test]
fn spans_are_not_held_for_longer_than_an_hour() {
    let process = Process::within(Bounds::DEFAULT);
    let earlier = process.begin("earlier", SpanKind::Consumer, None);
    let mut attempt = process.begin("attempt", SpanKind::Consumer, None);
    let begun = SystemTime::UNIX_EPOCH;
    let mut turn = process.begin("turn", SpanKind::Client, Some(&attempt));
    turn.end_with_timestamp(begun);
    // An earlier trace with a young span does not hide the old one.
    let mut other = process.begin("other", SpanKind::Client, Some(&earlier));
    other.end_with_timestamp(begun + Duration::from_secs(3590));
    let mut other = process.begin("other", SpanKind::Client, None);
    other.end_with_timestamp(begun + Duration::from_secs(3690));
    attempt.set_status(Status::error(""));
    attempt.end_with_timestamp(begun + Duration::from_secs(3691));
    assert_eq!(process.names(), ["attempt"]);
    drop(earlier);
    process.assert_nothing_is_held();
}
