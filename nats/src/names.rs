//! The names of the streams and of the durable consumers.

use baton_protocol::Lane;

/// The stream of jobs that no worker has settled yet.
pub const JOBS: &str = "JOBS";
/// The stream of events.
pub const EVENTS: &str = "EVENTS";
/// The stream of quarantined messages.
pub const DEAD: &str = "DEAD";
/// The stream of recent admissions.
pub const LIMITS: &str = "LIMITS";

/// Returns the name of a lane's durable consumer.
pub const fn consumer_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Interactive => "worker-interactive",
        Lane::Background => "worker-background",
    }
}
