//! Every metric of the connection to the broker, which all roles have: name, kind, help, labels.

use baton_metrics::{Label, Metric};
use metrics::{counter, gauge};

use crate::foreign::Consumer;

const FOREIGN: &str = "baton_bus_foreign_messages_total";
const DISCONNECTS: &str = "baton_nats_disconnects_total";
const DISCONNECTED: &str = "baton_nats_connections_lost";
const SLOW: &str = "baton_nats_slow_subscriptions_total";
const GAPS: &str = "baton_event_gaps_total";

/// All of them.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        FOREIGN,
        "Messages dropped because they were not for the consumer that they reached",
        &[Label::of("consumer", Consumer::NAMES)],
    ),
    Metric::counter(DISCONNECTS, "Times that a connection to NATS was lost", &[]),
    Metric::gauge(
        DISCONNECTED,
        "Connections to NATS that are lost and being made again",
        &[],
    ),
    Metric::counter(
        SLOW,
        "Times that a subscription was full and lost messages, which are then fetched",
        &[],
    ),
    Metric::counter(
        GAPS,
        "Times that a follower of a run missed events and read them from the stream",
        &[],
    ),
];

pub(crate) fn foreign(consumer: Consumer) {
    counter!(FOREIGN, "consumer" => consumer.as_str()).increment(1);
}

pub(crate) fn disconnected() {
    counter!(DISCONNECTS).increment(1);
}

/// A connection was lost (`true`), or was made again.
pub(crate) fn connection_lost(lost: bool) {
    gauge!(DISCONNECTED).increment(if lost { 1.0 } else { -1.0 });
}

pub(crate) fn slow_subscription() {
    counter!(SLOW).increment(1);
}

pub(crate) fn gap() {
    counter!(GAPS).increment(1);
}
