//! Every metric of the scheduler: name, kind, help, labels.

use baton_metrics::{Label, Metric};
use baton_nats::{Backlog, streams};
use baton_protocol::{Lane, RunStatus};
use baton_store::QueueStat;
use metrics::{counter, gauge};

const LEASES_EXPIRED: &str = "baton_leases_expired_total";
const TAKEN_EARLY: &str = "baton_runs_taken_early_total";
const SPARED: &str = "baton_runs_spared_total";
const STRANDED: &str = "baton_jobs_stranded";
const QUARANTINED: &str = "baton_jobs_quarantined_total";
const STREAM_MESSAGES: &str = "jetstream_stream_total_messages";
const WORKERS: &str = "baton_workers_seen";
const EXPIRED: &str = "baton_approvals_expired_runs_total";
const TASKS_DUE: &str = "baton_tasks_due_total";
const REPUBLISHED: &str = "baton_jobs_republished_total";
const ENDS_TOLD: &str = "baton_ends_told_total";
const TITLES: &str = "baton_thread_titles_total";
const RESTORED: &str = "baton_broker_assets_restored_total";
// Named as by the public NATS exporter, so that public dashboards fit.
const PENDING: &str = "jetstream_consumer_num_pending";
const ACK_PENDING: &str = "jetstream_consumer_num_ack_pending";
const REDELIVERED: &str = "jetstream_consumer_num_redelivered";
const RUNS: &str = "baton_queue_runs";
const OLDEST: &str = "baton_queue_oldest_seconds";

const LANES: &[&str] = &[Lane::Interactive.as_str(), Lane::Background.as_str()];
const WAITING: [RunStatus; 3] = [
    RunStatus::Queued,
    RunStatus::Running,
    RunStatus::AwaitingApproval,
];
const STATUSES: &[&str] = &[
    WAITING[0].as_str(),
    WAITING[1].as_str(),
    WAITING[2].as_str(),
];
const JOBS: Label = Label::of("stream_name", &[streams::JOBS]);
const CONSUMERS: Label = Label::of(
    "consumer_name",
    &[
        streams::consumer_name(Lane::Interactive),
        streams::consumer_name(Lane::Background),
    ],
);

/// All of them.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        LEASES_EXPIRED,
        "Runs whose worker was lost and that were queued again",
        &[],
    ),
    Metric::counter(
        TAKEN_EARLY,
        "Runs whose worker was noticed to be gone before their leases ran out, queued again",
        &[],
    ),
    Metric::counter(
        SPARED,
        "Runs left to a worker that was not seen on the bus, because it showed in the ledger that \
         it lives",
        &[],
    ),
    Metric::gauge(
        STRANDED,
        "Messages in JOBS that their consumer has gone past and will not deliver",
        &[],
    ),
    Metric::counter(
        QUARANTINED,
        "Jobs that were moved to DEAD: unreadable, of runs that were given up, or for no consumer",
        &[],
    ),
    Metric::gauge(
        STREAM_MESSAGES,
        "Messages in a stream",
        &[Label::bounded("stream_name", "`JOBS` and `DEAD`")],
    ),
    Metric::gauge(
        WORKERS,
        "Workers that answer this scheduler over the bus",
        &[],
    ),
    Metric::counter(
        EXPIRED,
        "Parked runs that went on because nobody had decided in time",
        &[],
    ),
    Metric::counter(
        TASKS_DUE,
        "Parked runs that were queued to ask a tool's server about a task",
        &[],
    ),
    Metric::counter(
        REPUBLISHED,
        "Queued runs whose job was gone and was published again",
        &[],
    ),
    Metric::counter(
        ENDS_TOLD,
        "Ended runs whose log lacked its last event, which was appended",
        &[],
    ),
    Metric::counter(
        TITLES,
        "Answers of models that were asked for the title of a thread, by whether it became the title",
        &[Label::of("given", &["yes", "no"])],
    ),
    Metric::counter(
        RESTORED,
        "Streams and consumers that were missing and made again",
        &[],
    ),
    Metric::gauge(
        PENDING,
        "Jobs that no worker has been given yet",
        &[JOBS, CONSUMERS],
    ),
    Metric::gauge(ACK_PENDING, "Jobs that workers hold", &[JOBS, CONSUMERS]),
    Metric::gauge(
        REDELIVERED,
        "Jobs that workers hold and that were delivered more than once",
        &[JOBS, CONSUMERS],
    ),
    Metric::gauge(
        RUNS,
        "Runs that wait or are worked on",
        &[Label::of("lane", LANES), Label::of("status", STATUSES)],
    ),
    Metric::gauge(
        OLDEST,
        "Age of the oldest run that waits or is worked on",
        &[Label::of("lane", LANES), Label::of("status", STATUSES)],
    ),
];

pub(crate) fn lease_expired() {
    counter!(LEASES_EXPIRED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "workers are few")]
pub(crate) fn workers_seen(count: usize) {
    gauge!(WORKERS).set(count as f64);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn stranded(count: u64) {
    gauge!(STRANDED).set(count as f64);
}

pub(crate) fn job_quarantined() {
    counter!(QUARANTINED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn dead_letters(count: u64) {
    gauge!(STREAM_MESSAGES, "stream_name" => streams::DEAD).set(count as f64);
}

pub(crate) fn taken_early() {
    counter!(TAKEN_EARLY).increment(1);
}

pub(crate) fn spared(count: usize) {
    counter!(SPARED).increment(count as u64);
}

pub(crate) fn approval_expired() {
    counter!(EXPIRED).increment(1);
}

pub(crate) fn task_due() {
    counter!(TASKS_DUE).increment(1);
}

pub(crate) fn job_republished() {
    counter!(REPUBLISHED).increment(1);
}

pub(crate) fn end_told() {
    counter!(ENDS_TOLD).increment(1);
}

pub(crate) fn thread_titled(given: bool) {
    counter!(TITLES, "given" => if given { "yes" } else { "no" }).increment(1);
}

pub(crate) fn asset_restored() {
    counter!(RESTORED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn backlog(lane: Lane, backlog: &Backlog) {
    let labels = [
        ("stream_name", streams::JOBS),
        ("consumer_name", streams::consumer_name(lane)),
    ];
    gauge!(PENDING, &labels).set(backlog.pending as f64);
    gauge!(ACK_PENDING, &labels).set(backlog.ack_pending as f64);
    gauge!(REDELIVERED, &labels).set(backlog.redelivered as f64);
    gauge!(STREAM_MESSAGES, "stream_name" => streams::JOBS).set(backlog.stream_messages as f64);
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn queue(stat: QueueStat) {
    let labels = [
        ("lane", stat.lane.as_str()),
        ("status", stat.status.as_str()),
    ];
    gauge!(RUNS, &labels).set(stat.count as f64);
    gauge!(OLDEST, &labels).set(stat.oldest.as_secs_f64());
}

/// Sets all gauges of the queue to 0, because the ledger does not report empty groups and they must
/// not keep their last values.
pub(crate) fn clear_queue() {
    for lane in Lane::ALL {
        for status in WAITING {
            let labels = [("lane", lane.as_str()), ("status", status.as_str())];
            gauge!(RUNS, &labels).set(0.0);
            gauge!(OLDEST, &labels).set(0.0);
        }
    }
}
