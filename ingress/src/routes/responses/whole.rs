//! A foreground response in one piece.

use std::time::Instant;

use axum::response::{IntoResponse as _, Response};
use baton_nats::EventFollower;
use baton_protocol::{EventId, Outcome, RunId};
use baton_responses::response_id;
use baton_service::RequestTrace;
use http::StatusCode;
use http::header::LOCATION;

use super::interrupted;
use super::record::ResponseRecord;
use crate::access::Caller;
use crate::error::ApiError;
use crate::metrics::{self, Wire};
use crate::routes::prefer::Prefer;
use crate::run::attachments::Attachment;
use crate::run::await_end::wait_for_end;
use crate::run::event_source::{EventsAfter, Source, find_events};
use crate::run::followers::{EndsWith, Followers};
use crate::run::relay::Interruption;

/// Waits for the end of the run and returns the response.
pub(super) async fn answer_whole(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    attachment: Attachment,
    begun: Instant,
) -> Result<Response, ApiError> {
    let record = ended_record(followers, caller, run, follower, attachment).await?;
    let waited = followers.runs.clock.monotonic() - begun;
    metrics::first_event(Wire::Responses, &RequestTrace::current(), waited);
    // Its events are lost, and the ledger has no end.
    ended(&record)?.ok_or_else(|| interrupted(run, Interruption::Lost))
}

/// Waits for the end of the run and returns its record. While this is awaited the client is there:
/// hyper drops it when the connection closes, and the attachment with it.
pub(super) async fn ended_record(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    mut attachment: Attachment,
) -> Result<ResponseRecord, ApiError> {
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
                if reason == Interruption::Parked {
                    let record = ResponseRecord::load(&runs.store, tenant, run).await?;
                    if record.is_asking() {
                        return Ok(record);
                    }
                }
                return Err(interrupted(run, reason));
            }
        }
    } else {
        attachment.detach();
    }
    ResponseRecord::load(&runs.store, tenant, run).await
}

/// Waits for the end of the run for as long as the client prefers, then answers 202: the response
/// goes on, whatever the client does.
pub(super) async fn answer_within(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    follower: Option<EventFollower>,
    prefer: Prefer,
) -> Result<Response, ApiError> {
    if let Some(time) = prefer.wait {
        wait_for_end(followers, caller, run, follower, time).await;
    }
    let record = ResponseRecord::load(&followers.runs.store, caller.tenant, run).await?;
    let background = record.head.settings.background;
    let mut answer = match ended(&record) {
        Ok(Some(answer)) => answer,
        // A background response is an object whatever became of it.
        Err(_) if background => record.answer()?,
        Err(error) => return Err(error),
        Ok(None) => {
            let location = [(LOCATION, format!("/v1/responses/{}", response_id(run)))];
            (StatusCode::ACCEPTED, location, record.answer()?).into_response()
        }
    };
    prefer.name_in(&mut answer);
    Ok(answer)
}

/// Returns the answer of a foreground response that has ended; `None` if it has not.
fn ended(record: &ResponseRecord) -> Result<Option<Response>, ApiError> {
    match &record.run.outcome {
        Some(Outcome::Failed(error)) => Err(ApiError::run_failed(
            record.run.id,
            error,
            record.has_worked(),
        )),
        Some(Outcome::Completed(_) | Outcome::Cancelled(_)) => record.answer().map(Some),
        None if record.is_asking() => record.answer().map(Some),
        None => Ok(None),
    }
}
