//! `GET /v1/responses/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use baton_admission::OnClose;
use baton_openai::ErrorBody;
use baton_responses::SequenceNumber;
use baton_store::Store;
use serde::Deserialize;

use super::description::ResponseBody;
use super::include::Include;
use super::path::ResponsePath;
use super::record::ResponseRecord;
use super::streamed::ResponseFrames;
use crate::access::{Authorized, RunsRead};
use crate::error::ApiError;
use crate::routes::query::{QueryParams, bad_parameter};
use crate::routes::run_stream::Client;
use crate::routes::sse::ServerSentEvent;
use crate::run::followers::Followers;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    stream: Option<bool>,
    starting_after: Option<String>,
    include_obfuscation: Option<bool>,
    #[serde(default, alias = "include[]")]
    include: Include,
}

/// A response, or with `stream=true` its events from any of them on, on any server.
///
/// A stream can be read of every response, during the run and afterwards. `starting_after` is the
/// `sequence_number` of the last event that the client has seen. When the events are no longer stored,
/// they are rebuilt from the run's record: the same items and texts in fewer deltas. A cursor within
/// the deltas of one rebuilt text is refused with 410.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "OpenAI",
    params(
        ("id" = String, Path, description = "The response", pattern = "^resp_[0-9a-f-]{36}$"),
        ("stream" = Option<bool>, Query, description = "Whether the answer is the response's events"),
        ("starting_after" = Option<u64>, Query, description = "The `sequence_number` to go on after"),
        ("include_obfuscation" = Option<bool>, Query, description = "Only `false`: events are not padded"),
    ),
    responses(
        (status = 200, description = "The response; with `stream`, its events as `text/event-stream`", content((ResponseBody = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = 400, description = "A parameter cannot be read, or has a value that is not served", body = ErrorBody),
        (status = 404, description = "No such response", body = ErrorBody),
        (status = 410, description = "`events_expired`: the events after the cursor are no longer stored, and it lies within a rebuilt text, or the run goes on", body = ErrorBody),
        (status = 429, description = "The caller has too many streams open; see `Retry-After`", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_response(
    State(store): State<Store>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsRead>,
    ResponsePath(run): ResponsePath,
    QueryParams(params): QueryParams<Params>,
) -> Result<Response, ApiError> {
    params.include.refuse()?;
    if params.include_obfuscation == Some(true) {
        let message = "`include_obfuscation` must be false: events are not padded";
        return Err(bad_parameter("include_obfuscation", message));
    }
    let streamed = params.stream == Some(true);
    let after = match params.starting_after {
        None => None,
        Some(_) if !streamed => {
            let message = "`starting_after` goes with `stream=true`";
            return Err(bad_parameter("starting_after", message));
        }
        Some(given) => Some(given.parse::<SequenceNumber>().map_err(|error| {
            bad_parameter("starting_after", format!("`starting_after`: {error}"))
        })?),
    };
    let caller = authorized.caller;
    let place = streamed
        .then(|| followers.streams.take(&caller))
        .transpose()?;
    let record = ResponseRecord::load_kept(&store, caller.tenant, run).await?;
    let Some(place) = place else {
        return record.answer();
    };
    if let Some(after) = after
        && let Some(ended) = record.run.ended()
        && after.event > ended.last_event_id
    {
        let message = "`starting_after` lies beyond the last event of this response";
        return Err(bad_parameter("starting_after", message));
    }
    let client = Client {
        attachment: followers
            .attachments
            .attach(caller.tenant, run, OnClose::LeaveRunning),
        place,
    };
    let mut frames = ResponseFrames::new(record.head.clone(), after, true);
    match frames
        .find_midway(&followers.runs, caller.tenant, &record)
        .await
    {
        Some(follower) => Ok(frames.follow(&followers, &caller, follower, client, None)),
        None => frames.open(&followers, &caller, client).await,
    }
}
