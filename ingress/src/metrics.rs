//! Every metric of the ingress: name, kind, help, labels. The HTTP metrics are in
//! `baton_service::metrics`.

mod labels;

use std::time::Duration;

use baton_admission::{PublishOutcome, SubmitError};
use baton_metrics::{Label, Metric};
use baton_protocol::Decision;
use baton_service::RequestTrace;
use baton_store::{Budget, Refusal};
use metrics::{counter, gauge, histogram};
use tracing::Span;

pub(crate) use labels::{
    AuthRefusal, BodyLimit, Connect, Door, Dropped, InputEnd, RateRefusal, StreamEnd,
    SubmissionEnd, TitleEnd, Wire,
};

const STREAMS: &str = "baton_ingress_streams";
const STREAM_ENDS: &str = "baton_ingress_stream_ends_total";
const ACCEPTED: &str = "baton_ingress_runs_accepted_total";
const SUBMISSIONS: &str = "baton_ingress_submissions_total";
const PUBLISHED: &str = "baton_ingress_jobs_published_total";
const FIRST_EVENT: &str = "baton_ingress_first_event_seconds";
const DISCONNECT_CANCELS: &str = "baton_ingress_disconnect_cancels_total";
const CANCEL_LATENCY: &str = "baton_cancel_latency_seconds";
const INPUTS: &str = "baton_ingress_run_inputs_total";
const TITLES: &str = "baton_ingress_thread_titles_total";
const DECISIONS: &str = "baton_ingress_approvals_decided_total";
const AUTH_REFUSALS: &str = "baton_ingress_auth_refusals_total";
const REFRESH_REUSED: &str = "baton_ingress_refresh_tokens_reused_total";
const BUS_CONNECTS: &str = "baton_ingress_bus_connects_total";
const PROGRAMS_HEARD: &str = "baton_ingress_programs_connected";
const PROGRAMS_DROPPED: &str = "baton_ingress_programs_dropped_total";
const REVOCATION: &str = "baton_ingress_revocation_seconds";
const RATE_REFUSALS: &str = "baton_ingress_rate_limited_total";
const RATE_ALONE: &str = "baton_ingress_rate_limits_local";
const RATE_ALONE_DECISIONS: &str = "baton_ingress_rate_limit_local_decisions_total";
const BODY_BYTES: &str = "baton_ingress_body_bytes";
const BODY_REFUSALS: &str = "baton_ingress_body_refusals_total";
const LIMIT_REFUSALS: &str = "baton_ingress_limit_refusals_total";
const FILE_AGENTS: &str = "baton_ingress_file_agents";

/// All metrics of the ingress.
pub const METRICS: &[Metric] = &[
    Metric::gauge(
        STREAMS,
        "Open event streams",
        &[Label::of("wire", Wire::NAMES)],
    ),
    Metric::counter(
        STREAM_ENDS,
        "Event streams that ended, by how",
        &[
            Label::of("wire", Wire::NAMES),
            Label::of("end", StreamEnd::NAMES),
        ],
    ),
    Metric::counter(
        ACCEPTED,
        "Runs accepted; a replay is a repeated Idempotency-Key, or run id over the bus",
        &[
            Label::of("route", Door::NAMES),
            Label::of("kind", &["new", "replay"]),
        ],
    ),
    Metric::counter(
        SUBMISSIONS,
        "Messages that programs submitted over the bus, by what became of them",
        &[Label::of("end", SubmissionEnd::NAMES)],
    ),
    Metric::counter(
        PUBLISHED,
        "Jobs published for accepted runs, by what the broker said",
        &[Label::of("outcome", PUBLISH_OUTCOMES)],
    ),
    Metric::histogram(
        FIRST_EVENT,
        "Time from acceptance to the first event that the client of a chat or a response is shown",
        &[Label::of("route", &["chat", "responses"])],
    ),
    Metric::counter(
        DISCONNECT_CANCELS,
        "Runs cancelled because their client went away",
        &[Label::of("when", &["at_once", "after_grace"])],
    ),
    Metric::histogram(
        CANCEL_LATENCY,
        "From a run's cancel being asked for to the end of all work on it",
        &[],
    ),
    Metric::counter(
        DECISIONS,
        "Questions of parked runs that somebody decided, by decision",
        &[Label::of("decision", &Decision::NAMES)],
    ),
    Metric::counter(
        INPUTS,
        "Messages to working runs, by what became of them",
        &[Label::of("end", InputEnd::NAMES)],
    ),
    Metric::counter(
        TITLES,
        "Wishes for a title that a run which joined its thread found, by what became of them",
        &[Label::of("end", TitleEnd::NAMES)],
    ),
    Metric::counter(
        AUTH_REFUSALS,
        "Requests refused for their credential, by reason",
        &[Label::of("reason", AuthRefusal::NAMES)],
    ),
    Metric::counter(
        REFRESH_REUSED,
        "Refresh tokens that were presented after their time, each of which ended a session",
        &[],
    ),
    Metric::counter(
        BUS_CONNECTS,
        "Connections to the broker that programs asked for, by what came of it",
        &[Label::of("outcome", Connect::NAMES)],
    ),
    Metric::gauge(
        PROGRAMS_HEARD,
        "1 while the connection is there on which programs are heard over NATS",
        &[],
    ),
    Metric::counter(
        PROGRAMS_DROPPED,
        "Messages of programs that were dropped before anybody read them, by why",
        &[Label::of("why", Dropped::NAMES)],
    ),
    Metric::histogram(
        REVOCATION,
        "Time from a credential's end to the end of what was opened with it",
        &[Label::of("what", &["stream", "connection"])],
    ),
    Metric::counter(
        RATE_REFUSALS,
        "Requests refused for their number, by whose limit it was",
        &[Label::of("whose", RateRefusal::NAMES)],
    ),
    Metric::gauge(
        RATE_ALONE,
        "1 while rate limits are kept by this ingress alone, because the broker does not answer",
        &[],
    ),
    Metric::counter(
        RATE_ALONE_DECISIONS,
        "Decisions about rate limits that were made by this ingress alone",
        &[],
    ),
    Metric::gauge(
        BODY_BYTES,
        "Bytes of request bodies that are held, until their runs are committed",
        &[],
    ),
    Metric::counter(
        BODY_REFUSALS,
        "Request bodies refused because too many bytes were held, by whose share was full",
        &[Label::of("limit", BodyLimit::NAMES)],
    ),
    Metric::counter(
        LIMIT_REFUSALS,
        "Runs refused because of what their key may use up, by the limit",
        &[Label::of(
            "limit",
            &["runs", "tokens", "cost", "reserved", "price"],
        )],
    ),
    Metric::gauge(
        FILE_AGENTS,
        "Agents of the server's files that are in force, and those that are not for some tenant, or for any",
        &[Label::of("state", &["in_force", "refused"])],
    ),
];

const PUBLISH_OUTCOMES: &[&str] = &[
    PublishOutcome::Stored.as_str(),
    PublishOutcome::Unknown.as_str(),
    PublishOutcome::Failed.as_str(),
    PublishOutcome::NotNeeded.as_str(),
];

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

pub(crate) fn first_event(wire: Wire, trace: &RequestTrace, waited: Duration) {
    histogram!(FIRST_EVENT, "route" => wire.as_str()).record(waited);
    if let Some(sampled) = trace.sampled() {
        sampled.exemplifies(FIRST_EVENT, &[("route", wire.as_str())], waited);
    }
}

/// Records the cancel latency of a run that no worker held, so that the request itself ended it.
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

pub(crate) fn input(end: InputEnd) {
    counter!(INPUTS, "end" => end.as_str()).increment(1);
}

pub(crate) fn title(end: TitleEnd) {
    counter!(TITLES, "end" => end.as_str()).increment(1);
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

pub(crate) fn body_bytes(held: u64) {
    #[expect(clippy::cast_precision_loss, reason = "no memory holds 2^53 bytes")]
    gauge!(BODY_BYTES).set(held as f64);
}

pub(crate) fn body_refused(limit: BodyLimit) {
    counter!(BODY_REFUSALS, "limit" => limit.as_str()).increment(1);
}

/// Counts a refusal that was caused by a limit of the run's key.
pub(crate) fn submission_refused(error: &SubmitError) {
    let limit = match error {
        SubmitError::Refused(refusal) => match refusal {
            Refusal::TooManyRuns { .. } => "runs",
            Refusal::BudgetExceeded { budget, .. } => match budget {
                Budget::Tokens => "tokens",
                Budget::Cost => "cost",
            },
            Refusal::BudgetReserved => "reserved",
            Refusal::KeyReused
            | Refusal::IdTaken
            | Refusal::ThreadNotFound
            | Refusal::ThreadBusy
            | Refusal::TitleNotWanted
            | Refusal::AlreadyAnswered
            | Refusal::AnsweredLate
            | Refusal::InputsFull
            | Refusal::TenantQueueFull { .. }
            | Refusal::SystemQueueFull { .. } => return,
        },
        SubmitError::PriceUnknown(_) => "price",
        _ => return,
    };
    counter!(LIMIT_REFUSALS, "limit" => limit).increment(1);
}

/// Records the agents of the files that this ingress has loaded.
pub(crate) fn file_agents(in_force: u32, refused: u32) {
    gauge!(FILE_AGENTS, "state" => "in_force").set(f64::from(in_force));
    gauge!(FILE_AGENTS, "state" => "refused").set(f64::from(refused));
}

/// Records whether this ingress keeps the rate limits alone from now on.
pub(crate) fn rate_limits_alone(alone: bool) {
    gauge!(RATE_ALONE).set(if alone { 1.0 } else { 0.0 });
}

pub(crate) fn rate_decision_alone() {
    counter!(RATE_ALONE_DECISIONS).increment(1);
}

pub(crate) fn auth_refusal(reason: AuthRefusal) {
    counter!(AUTH_REFUSALS, "reason" => reason.as_str()).increment(1);
}

/// Counts a stream from its opening to its drop. If no end was set before the drop, the client has
/// closed it.
pub(crate) struct StreamGauge {
    wire: Wire,
    end: StreamEnd,
    /// The span of the request.
    span: Span,
    trace: RequestTrace,
}

impl StreamGauge {
    pub(crate) fn open(wire: Wire) -> Self {
        gauge!(STREAMS, "wire" => wire.as_str()).increment(1.0);
        Self {
            wire,
            end: StreamEnd::ClientClosed,
            span: Span::current(),
            trace: RequestTrace::current(),
        }
    }

    /// Returns the span of the request.
    pub(crate) const fn trace(&self) -> &RequestTrace {
        &self.trace
    }

    pub(crate) fn ends(&mut self, end: StreamEnd) {
        self.end = end;
    }
}

impl Drop for StreamGauge {
    fn drop(&mut self) {
        let wire = self.wire.as_str();
        self.span.record("stream.end", self.end.as_str());
        if self.end == StreamEnd::Error {
            self.trace.fail("stream_failed");
        }
        gauge!(STREAMS, "wire" => wire).decrement(1.0);
        counter!(STREAM_ENDS, "wire" => wire, "end" => self.end.as_str()).increment(1);
    }
}
