//! The definitions of the streams and consumers. `streams.json`, next to the sources, holds them as
//! sent to a server with the default options; a test keeps the two equal.

use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Republish, RetentionPolicy, StorageType,
};
use baton_protocol::Lane;

use crate::subjects;

pub use crate::names::{DEAD, EVENTS, JOBS, LIMITS, consumer_name};

/// The most delivered and unsettled jobs of one lane, over all workers.
pub const MAX_ACK_PENDING: i64 = 100_000;
/// The most pulls that wait at one lane's consumer, over all workers.
pub const MAX_WAITING: i64 = 4_096;

/// The most bytes of one job with its headers: it names a run and little else.
pub const MAX_JOB: i32 = 4 << 10;
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// Longer than the window of any limit.
const LIMITS_RETENTION: Duration = Duration::from_hours(25);
const LIMITS_MAX_BYTES: i64 = 128 << 20;
const DEAD_RETENTION: Duration = Duration::from_hours(30 * 24);

/// An operator's settings for the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// Copies of each stream: 1, 3 or 5. Default: 1.
    pub replicas: usize,
    /// The time for which events can be replayed from the stream. Default: 24 h.
    pub event_retention: Duration,
    /// The most bytes that JOBS holds; further jobs are refused. Must exceed the jobs that the
    /// ledger's queue limits admit. Default: 1 GiB.
    pub jobs_max_bytes: i64,
    /// The most jobs of one tenant that one lane may hold, unsettled ones included; further ones are
    /// refused, and those of other tenants are not. Default: 20,000.
    pub jobs_per_tenant: u32,
    /// The most bytes that EVENTS holds; the oldest give way. Default: 4 GiB.
    pub events_max_bytes: i64,
    /// The most messages of a run; its oldest give way beyond it, so a run must stop below it.
    /// Default: 20,000.
    pub events_per_run: u32,
    /// The most bytes that DEAD holds; the oldest give way. Default: 256 MiB.
    pub dead_max_bytes: i64,
    /// The longest time that a delivered job may go without a sign of life before another worker
    /// gets it: the lease. Default: 20 s.
    pub ack_wait: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            replicas: 1,
            event_retention: Duration::from_hours(24),
            jobs_max_bytes: 1 << 30,
            jobs_per_tenant: 20_000,
            events_max_bytes: 4 << 30,
            events_per_run: 20_000,
            dead_max_bytes: 256 << 20,
            ack_wait: Duration::from_secs(20),
        }
    }
}

/// Returns all streams, in the order in which they are created.
pub fn streams(options: &StreamOptions) -> [Config; 4] {
    [
        jobs(options),
        events(options),
        dead(options),
        limits(options),
    ]
}

/// Returns the consumers of JOBS.
pub fn consumers(options: &StreamOptions) -> [consumer::pull::Config; 2] {
    Lane::ALL.map(|lane| lane_consumer(lane, options))
}

fn base(name: &str, subject: &str, description: &str, options: &StreamOptions) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        description: Some(description.to_owned()),
        storage: StorageType::File,
        num_replicas: options.replicas,
        // Set explicitly, because a server fills them in and the result is compared with this.
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn jobs(options: &StreamOptions) -> Config {
    Config {
        retention: RetentionPolicy::WorkQueue,
        // A full queue refuses. No max_age: a job must not vanish because it waited.
        discard: DiscardPolicy::New,
        max_bytes: options.jobs_max_bytes,
        // A tenant's share: a number of messages, all of them small.
        max_messages_per_subject: options.jobs_per_tenant.into(),
        discard_new_per_subject: true,
        max_message_size: MAX_JOB,
        ..base(
            JOBS,
            subjects::ALL_JOBS,
            "Jobs that no worker has settled",
            options,
        )
    }
}

fn events(options: &StreamOptions) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        // The oldest give way: refusing would refuse the terminal events.
        discard: DiscardPolicy::Old,
        max_bytes: options.events_max_bytes,
        max_age: options.event_retention,
        max_messages_per_subject: options.events_per_run.into(),
        duplicate_window: DUPLICATE_WINDOW.min(options.event_retention),
        allow_direct: true,
        // Followers listen to stored events. On the original subject they would also hear events
        // that the stream refused from a replaced worker.
        republish: Some(Republish {
            source: subjects::REPUBLISHED.to_owned(),
            destination: subjects::ALL_LIVE.to_owned(),
            headers_only: false,
        }),
        ..base(
            EVENTS,
            subjects::ALL_EVENTS,
            "What runs show while they happen",
            options,
        )
    }
}

fn dead(options: &StreamOptions) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_bytes: options.dead_max_bytes,
        max_age: DEAD_RETENTION,
        ..base(
            DEAD,
            subjects::ALL_DEAD,
            "Copies of messages that were no jobs",
            options,
        )
    }
}

fn limits(options: &StreamOptions) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        // A full stream refuses, and ingresses then count for themselves. If old logs gave way,
        // their subjects could start over.
        discard: DiscardPolicy::New,
        max_bytes: LIMITS_MAX_BYTES,
        max_messages_per_subject: 1,
        // Each log has its own time to live, because windows differ.
        allow_message_ttl: true,
        max_age: LIMITS_RETENTION,
        ..base(
            LIMITS,
            subjects::ALL_LIMITS,
            "What was admitted lately, for each caller and address",
            options,
        )
    }
}

fn lane_consumer(lane: Lane, options: &StreamOptions) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(consumer_name(lane).to_owned()),
        name: Some(consumer_name(lane).to_owned()),
        description: Some(format!("Workers with a free slot for the {lane} lane")),
        filter_subject: subjects::lane_filter(lane),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        replay_policy: ReplayPolicy::Instant,
        ack_wait: options.ack_wait,
        // The ledger counts failures. A limit here would strand a job: stored, never delivered
        // again, and counted against the stream.
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        ..consumer::pull::Config::default()
    }
}
