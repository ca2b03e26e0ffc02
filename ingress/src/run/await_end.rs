//! Waiting for the end of a run, for a limited time.

use std::time::Duration;

use baton_nats::EventFollower;
use baton_protocol::{EventId, RunId};

use crate::access::Caller;
use crate::run::followers::{EndsWith, Followers};
use crate::run::ledger::find_run;

/// Waits until the run has ended or is parked, `time` has passed, or this process stops, whichever
/// is first. An error only shortens the wait, because the caller reads the row in any case.
pub(crate) async fn wait_for_end(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    time: Duration,
) {
    let tenant = caller.tenant;
    let waiting = async {
        let follower = if let Some(follower) = follower {
            follower
        } else {
            let subscribed = followers.runs.subscribe(tenant, run).await.ok()?;
            // The run may have ended before the subscription existed.
            let record = find_run(&followers.runs.store, tenant, run).await.ok()??;
            if record.status.is_terminal() {
                return None;
            }
            subscribed.resume(EventId::ORIGIN).await.ok()?
        };
        let mut relay = followers.relay(caller, run, follower, EndsWith::Native);
        relay.wait_for_end().await.ok()
    };
    // A time-out is not an error.
    let _ = tokio::time::timeout(time, waiting).await;
}
