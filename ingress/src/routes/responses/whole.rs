//! A foreground response in one piece.

use std::time::Instant;

use axum::response::Response;
use baton_nats::EventFollower;
use baton_protocol::{EventId, Outcome, RunId};

use super::interrupted;
use super::record::ResponseRecord;
use crate::access::Caller;
use crate::error::ApiError;
use crate::metrics::{self, Wire};
use crate::run::attachments::Attachment;
use crate::run::event_source::{EventsAfter, Source, find_events};
use crate::run::followers::{EndsWith, Followers};
use crate::run::relay::Interruption;

/// Waits for the end of the run and returns the response. While this is awaited the client is there:
/// hyper drops it when the connection closes, and the attachment with it.
pub(super) async fn answer_whole(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    mut attachment: Attachment,
    begun: Instant,
) -> Result<Response, ApiError> {
    let (tenant, runs) = (caller.tenant, &*followers.runs);
    let follower = match follower {
        Some(follower) => Some(follower),
        None => match find_events(runs, tenant, run, EventId::ORIGIN, Source::Stream).await {
            Ok(EventsAfter::Log(follower) | EventsAfter::Parked(_, follower)) => Some(*follower),
            Ok(EventsAfter::Nothing | EventsAfter::Ledger(_)) => None,
            Err(error) => {
                attachment.detach();
                return Err(error);
            }
        },
    };
    if let Some(follower) = follower {
        let mut relay = followers.relay(caller, run, follower, EndsWith::All);
        match relay.wait_for_end().await {
            // Without `detach`: the client counts as gone, and the run with it.
            Err(Interruption::Revoked) => return Err(ApiError::credential_ended()),
            Ok(()) | Err(Interruption::Lost) => attachment.detach(),
            Err(reason) => {
                attachment.detach();
                return Err(interrupted(run, reason));
            }
        }
    } else {
        attachment.detach();
    }
    let record = ResponseRecord::load(&runs.store, tenant, run).await?;
    let waited = runs.clock.monotonic() - begun;
    metrics::first_event(Wire::Responses, waited.as_secs_f64());
    match &record.run.outcome {
        Some(Outcome::Failed(error)) => Err(ApiError::run_failed(run, error, record.has_worked())),
        Some(Outcome::Completed(_) | Outcome::Cancelled(_)) => record.answer(),
        // Its events are lost, and the ledger has no end.
        None => Err(interrupted(run, Interruption::Lost)),
    }
}
