//! The metrics of sending spans.

use baton_metrics::{Label, Metric};

const SPANS: &str = "baton_trace_spans_total";
const OUTCOMES: &[&str] = &["ended", "sent", "lost"];

/// All of them.
pub const METRICS: &[Metric] = &[Metric::counter(
    SPANS,
    "Spans that ended, those that the receiver took, and those that could not be sent to it",
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
