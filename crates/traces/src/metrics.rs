//! The metrics of sending spans.

use baton_metrics::{Label, Metric};

const SPANS: &str = "baton_trace_spans_total";
const OUTCOMES: &[&str] = &["ended", "sent", "lost", "kept", "dropped", "crowded_out"];

/// All of them.
pub const METRICS: &[Metric] = &[Metric::counter(
    SPANS,
    "Spans that ended and are to be sent, those that the receiver took, and those that it did not; of traces \
     that are not sampled: spans kept because of an error, dropped without one, and those for which there was no room",
    &[Label::of("outcome", OUTCOMES)],
)];

pub(crate) fn ended() {
    metrics::counter!(SPANS, "outcome" => "ended").increment(1);
}

pub(crate) fn exported(count: u64) {
    metrics::counter!(SPANS, "outcome" => "sent").increment(count);
}

pub(crate) fn lost(count: u64) {
    metrics::counter!(SPANS, "outcome" => "lost").increment(count);
}

pub(crate) fn kept(count: usize) {
    of_unsampled("kept", count);
}

pub(crate) fn dropped(count: usize) {
    of_unsampled("dropped", count);
}

pub(crate) fn crowded_out(count: usize) {
    of_unsampled("crowded_out", count);
}

fn of_unsampled(outcome: &'static str, count: usize) {
    metrics::counter!(SPANS, "outcome" => outcome)
        .increment(u64::try_from(count).unwrap_or(u64::MAX));
}
