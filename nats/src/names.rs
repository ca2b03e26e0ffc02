//! What the streams and the durable consumers are called.

use baton_protocol::Lane;

/// The stream of jobs that no worker has settled yet.
pub const JOBS: &str = "JOBS";
/// The stream of events.
pub const EVENTS: &str = "EVENTS";
/// The stream of messages that were no jobs.
pub const DEAD: &str = "DEAD";
/// The stream of what was admitted lately.
pub const LIMITS: &str = "LIMITS";

/// The durable consumer of a lane.
pub const fn consumer_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Interactive => "worker-interactive",
        Lane::Background => "worker-background",
    }
}
