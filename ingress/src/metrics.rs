//! Every metric of the ingress: names, help, labels. HTTP's own are in `baton_service::metrics`.

mod labels;

use std::time::Duration;

use baton_admission::{PublishOutcome, SubmitError};
use baton_protocol::Decision;
use baton_store::Budget;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

pub(crate) use labels::{
    AuthRefusal, Connect, Door, Dropped, RateRefusal, StreamEnd, SubmissionEnd, Wire,
};

/// Open streams; label `wire`: `chat`, `native`.
pub const STREAMS: &str = "baton_ingress_streams";
/// Streams that ended; labels `wire`, `end`.
pub const STREAM_ENDS: &str = "baton_ingress_stream_ends_total";
/// Runs accepted; labels `route`: `chat`, `runs`, `bus`; `kind`: `new`, `replay`.
pub const ACCEPTED: &str = "baton_ingress_runs_accepted_total";
/// Messages that programs submitted over the bus; label `end`: `accepted`, `refused`, `quarantined`,
/// `dropped`, `busy`.
pub const SUBMISSIONS: &str = "baton_ingress_submissions_total";
/// Jobs published behind an accepted run; label `outcome`.
pub const PUBLISHED: &str = "baton_ingress_jobs_published_total";
/// Seconds from a request's acceptance to the first event that its client is shown; label `route`.
pub const FIRST_EVENT: &str = "baton_ingress_first_event_seconds";
/// Runs cancelled because their client went away; label `when`: `at_once`, `after_grace`.
pub const DISCONNECT_CANCELS: &str = "baton_ingress_disconnect_cancels_total";
/// From asking for a cancel to the end of all work on the run; workers measure theirs by the same
/// name.
pub const CANCEL_LATENCY: &str = "baton_cancel_latency_seconds";
/// Parked calls that somebody decided; label `decision`.
pub const DECISIONS: &str = "baton_ingress_approvals_decided_total";
/// Requests refused for their credential; label `reason`.
pub const AUTH_REFUSALS: &str = "baton_ingress_auth_refusals_total";

/// Refresh tokens that were presented after their time, each of which ended a session.
pub const REFRESH_REUSED: &str = "baton_ingress_refresh_tokens_reused_total";
/// Who wanted to connect to the broker; label `outcome`.
pub const BUS_CONNECTS: &str = "baton_ingress_bus_connects_total";
/// 1 while the connection is there on which programs are heard; else 0.
pub const PROGRAMS_HEARD: &str = "baton_ingress_programs_connected";
/// Programs' messages that were dropped before anybody read them; label `why`.
pub const PROGRAMS_DROPPED: &str = "baton_ingress_programs_dropped_total";
/// Seconds from a credential's end to the end of what was opened with it; label `what`: `stream`,
/// `connection` (to the broker).
pub const REVOCATION: &str = "baton_ingress_revocation_seconds";

/// Requests refused for their number; label `whose`: `address`, `caller`.
pub const RATE_REFUSALS: &str = "baton_ingress_rate_limited_total";
/// 1 while this ingress keeps rate limits by itself, because the broker does not answer; else 0.
pub const RATE_ALONE: &str = "baton_ingress_rate_limits_local";
/// Decisions about rate limits that were made by this ingress alone.
pub const RATE_ALONE_DECISIONS: &str = "baton_ingress_rate_limit_local_decisions_total";

/// Runs refused because of what their key may use up; label `limit`: `runs`, `tokens`,
/// `cost`, `reserved`, `price`.
pub const LIMIT_REFUSALS: &str = "baton_ingress_limit_refusals_total";

/// Attaches units and help, and creates every series with 0.
pub fn describe() {
    describe_gauge!(STREAMS, "Open event streams, by the wire they speak");
    describe_counter!(STREAM_ENDS, "Event streams that ended, by how");
    describe_counter!(
        ACCEPTED,
        "Runs accepted; a replay is a repeated Idempotency-Key, or run id over the bus"
    );
    describe_counter!(
        SUBMISSIONS,
        "Messages that programs submitted over the bus, by what became of them"
    );
    for end in SubmissionEnd::ALL {
        counter!(SUBMISSIONS, "end" => end.as_str()).increment(0);
    }
    describe_counter!(
        PUBLISHED,
        "Jobs published for accepted runs, by what the broker said"
    );
    describe_histogram!(
        CANCEL_LATENCY,
        Unit::Seconds,
        "From a run's cancel being asked for to the end of all work on it"
    );
    describe_histogram!(
        FIRST_EVENT,
        Unit::Seconds,
        "Time from acceptance to the first event that the client is shown"
    );
    describe_counter!(
        DISCONNECT_CANCELS,
        "Runs cancelled because their client went away"
    );
    describe_counter!(
        AUTH_REFUSALS,
        "Requests refused for their credential, by reason"
    );
    describe_counter!(
        RATE_REFUSALS,
        "Requests refused for their number, by whose limit it was"
    );
    for whose in RateRefusal::ALL {
        counter!(RATE_REFUSALS, "whose" => whose.as_str()).increment(0);
    }
    describe_gauge!(
        RATE_ALONE,
        "1 while rate limits are kept by this ingress alone, because the broker does not answer"
    );
    gauge!(RATE_ALONE).set(0.0);
    describe_counter!(
        RATE_ALONE_DECISIONS,
        "Decisions about rate limits that were made by this ingress alone"
    );
    counter!(RATE_ALONE_DECISIONS).increment(0);
    describe_counter!(
        LIMIT_REFUSALS,
        "Runs refused because of what their key may use up, by the limit"
    );
    for limit in ["runs", "tokens", "cost", "reserved", "price"] {
        counter!(LIMIT_REFUSALS, "limit" => limit).increment(0);
    }
    describe_counter!(DECISIONS, "Parked calls that somebody decided, by decision");
    for name in Decision::NAMES {
        counter!(DECISIONS, "decision" => name).increment(0);
    }
    describe_counter!(
        REFRESH_REUSED,
        "Refresh tokens that were presented after their time, each of which ended a session"
    );
    counter!(REFRESH_REUSED).increment(0);
    describe_histogram!(
        REVOCATION,
        Unit::Seconds,
        "Time from a credential's end to the end of what was opened with it"
    );
    describe_counter!(
        BUS_CONNECTS,
        "Connections to the broker that programs asked for, by what came of it"
    );
    for outcome in Connect::ALL {
        counter!(BUS_CONNECTS, "outcome" => outcome.as_str()).increment(0);
    }
    describe_gauge!(
        PROGRAMS_HEARD,
        "1 while the connection is there on which programs are heard over NATS"
    );
    gauge!(PROGRAMS_HEARD).set(0.0);
    describe_counter!(
        PROGRAMS_DROPPED,
        "Messages of programs that were dropped before anybody read them, by why"
    );
    for why in Dropped::ALL {
        counter!(PROGRAMS_DROPPED, "why" => why.as_str()).increment(0);
    }
    for wire in Wire::ALL {
        gauge!(STREAMS, "wire" => wire.as_str()).increment(0.0);
        for end in StreamEnd::ALL {
            counter!(STREAM_ENDS, "wire" => wire.as_str(), "end" => end.as_str()).increment(0);
        }
    }
    for door in Door::ALL {
        for kind in ["new", "replay"] {
            counter!(ACCEPTED, "route" => door.as_str(), "kind" => kind).increment(0);
        }
    }
    for outcome in PublishOutcome::ALL {
        counter!(PUBLISHED, "outcome" => outcome.as_str()).increment(0);
    }
    for when in ["at_once", "after_grace"] {
        counter!(DISCONNECT_CANCELS, "when" => when).increment(0);
    }
    for reason in AuthRefusal::ALL {
        counter!(AUTH_REFUSALS, "reason" => reason.as_str()).increment(0);
    }
}

pub(crate) fn accepted(door: Door, replay: bool) {
    let kind = if replay { "replay" } else { "new" };
    counter!(ACCEPTED, "route" => door.as_str(), "kind" => kind).increment(1);
}

pub(crate) fn submission(end: SubmissionEnd) {
    counter!(SUBMISSIONS, "end" => end.as_str()).increment(1);
}

pub(crate) fn published(outcome: PublishOutcome) {
    counter!(PUBLISHED, "outcome" => outcome.as_str()).increment(1);
}

pub(crate) fn first_event(wire: Wire, seconds: f64) {
    histogram!(FIRST_EVENT, "route" => wire.as_str()).record(seconds);
}

/// Of a run that nobody held, ended by the request itself.
pub(crate) fn run_cancelled(latency: Duration) {
    histogram!(CANCEL_LATENCY).record(latency);
}

pub(crate) fn disconnect_cancel(after_grace: bool) {
    let when = if after_grace {
        "after_grace"
    } else {
        "at_once"
    };
    counter!(DISCONNECT_CANCELS, "when" => when).increment(1);
}

pub(crate) fn approval_decided(decision: &Decision) {
    counter!(DECISIONS, "decision" => decision.as_str()).increment(1);
}

pub(crate) fn streams_revoked(seconds: f64) {
    histogram!(REVOCATION, "what" => "stream").record(seconds);
}

pub(crate) fn connections_closed(seconds: f64) {
    histogram!(REVOCATION, "what" => "connection").record(seconds);
}

pub(crate) fn bus_connect(outcome: Connect) {
    counter!(BUS_CONNECTS, "outcome" => outcome.as_str()).increment(1);
}

pub(crate) fn programs_heard(connected: bool) {
    gauge!(PROGRAMS_HEARD).set(if connected { 1.0 } else { 0.0 });
}

pub(crate) fn program_message_dropped(why: Dropped) {
    counter!(PROGRAMS_DROPPED, "why" => why.as_str()).increment(1);
}

pub(crate) fn refresh_reused() {
    counter!(REFRESH_REUSED).increment(1);
}

pub(crate) fn rate_refusal(whose: RateRefusal) {
    counter!(RATE_REFUSALS, "whose" => whose.as_str()).increment(1);
}

/// Counts a refusal that a limit of the run's key is the reason of.
pub(crate) fn submission_refused(error: &SubmitError) {
    let limit = match error {
        SubmitError::ConcurrencyLimit { .. } => "runs",
        SubmitError::BudgetExceeded {
            budget: Budget::Tokens,
            ..
        } => "tokens",
        SubmitError::BudgetExceeded {
            budget: Budget::Cost,
            ..
        } => "cost",
        SubmitError::BudgetReserved => "reserved",
        SubmitError::PriceUnknown(_) => "price",
        _ => return,
    };
    counter!(LIMIT_REFUSALS, "limit" => limit).increment(1);
}

/// Whether rate limits are kept by this ingress alone from now on.
pub(crate) fn rate_limits_alone(alone: bool) {
    gauge!(RATE_ALONE).set(if alone { 1.0 } else { 0.0 });
}

pub(crate) fn rate_decision_alone() {
    counter!(RATE_ALONE_DECISIONS).increment(1);
}

pub(crate) fn auth_refusal(reason: AuthRefusal) {
    counter!(AUTH_REFUSALS, "reason" => reason.as_str()).increment(1);
}

/// Counts a stream for as long as it lives; what is not said before it is dropped is the client's
/// doing.
pub(crate) struct StreamGauge {
    wire: Wire,
    end: StreamEnd,
}

impl StreamGauge {
    pub(crate) fn open(wire: Wire) -> Self {
        gauge!(STREAMS, "wire" => wire.as_str()).increment(1.0);
        Self {
            wire,
            end: StreamEnd::ClientClosed,
        }
    }

    pub(crate) fn ends(&mut self, end: StreamEnd) {
        self.end = end;
    }
}

impl Drop for StreamGauge {
    fn drop(&mut self) {
        let wire = self.wire.as_str();
        gauge!(STREAMS, "wire" => wire).decrement(1.0);
        counter!(STREAM_ENDS, "wire" => wire, "end" => self.end.as_str()).increment(1);
    }
}
