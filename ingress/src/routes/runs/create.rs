//! `POST /v1/runs`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::request::NativeRequest;
use baton_admission::{Accepted, OnClose, Submission, SubmitRequest};
use baton_protocol::{EventId, RunId};
use baton_service::RequestId;
use http::header::{ACCEPT, LOCATION};
use http::{HeaderMap, HeaderName, StatusCode};

use super::events::{self, open_from};
use super::read::load;
use super::view::RunView;
use super::wait::Wait;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::{ApiError, Problem, run_header};
use crate::metrics::Door;
use crate::routes::prefer::Prefer;
use crate::routes::run_stream::Client;
use crate::routes::sse::ServerSentEvent;
use crate::run::await_end::wait_for_end;
use crate::run::event_source::Source;
use crate::run::followers::Followers;
use crate::run::submission::{RunRequest, Submitted, Submitter, idempotency_key, job_headers};

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Submits a run.
///
/// Answers at once with 202, or with `Accept: text/event-stream` with the run's events; with
/// `?wait=30s`, with 200 if the run ends within that time. The run continues whatever the client
/// does. An accepted run is never answered with an error: if its events or its end are unavailable
/// at the moment, the answer is 202. Only `acceptance_unknown` leaves open whether there is a run.
/// Unknown fields are refused; `params` is passed on to the upstream.
#[utoipa::path(
    post,
    path = "/v1/runs",
    tag = "Runs",
    request_body = NativeRequest,
    params(
        ("wait" = Option<String>, Query, description = "Wait for the run's end for so long, for instance `30s`; a minute at most", example = "30s", pattern = "^[0-9]{1,9}(ms|s|m)?$"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: as the parameter `wait`, in seconds. `Preference-Applied` names what the answer follows.", max_length = 1_024),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same run. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 202, description = "Accepted; `Location` names the run", body = RunView),
        (status = 200, description = "The run has ended; or its events, as `text/event-stream`", content((RunView = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = 403, description = "The key may not do this, or not use this model", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such agent", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used with another request", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many queued runs, runs of this key, open streams, or bytes of bodies; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The system is full, or a part of it away; see `Retry-After`. `acceptance_unknown`: the ledger's answer was lost; `X-Run-Id` names the run that there is if it was accepted", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_run(
    State(followers): State<Arc<Followers>>,
    State(submitter): State<Arc<Submitter>>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    wait: Wait,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    // The query's time is the more specific one.
    let prefer = Prefer::read(&headers);
    let (wait, prefer) = match wait.0 {
        Some(_) => (
            wait,
            Prefer {
                wait: None,
                ..prefer
            },
        ),
        None => (Wait(prefer.wait), prefer),
    };
    let request = SubmitRequest::parse_native(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/runs", &body)?;
    drop(body);
    let caller = authorized.caller;
    let tenant = caller.tenant;
    // Before the run is accepted, so that a refusal leaves none behind.
    let place = if wants_events(&headers) {
        Some(followers.streams.take(&caller)?)
    } else {
        None
    };
    let streams = place.is_some();
    let wanted = RunRequest {
        caller: Arc::clone(&caller),
        submission: Submission {
            run: None,
            request,
            idempotency,
            on_close: OnClose::LeaveRunning,
            headers: job_headers(&request_id, &headers),
        },
        body: Some(held),
        follow: place.is_some() || wait.0.is_some(),
        door: Door::Runs,
    };
    let Submitted {
        accepted,
        follower,
        attachment,
        // Until the answer is written, because it repeats the input.
        body: _body,
    } = submitter.submit(wanted).await?;
    let run = accepted.run();
    let replayed = !matches!(accepted, Accepted::Created(_));
    let mut answer = match (place, follower) {
        (Some(place), Some(follower)) => {
            let client = Client { attachment, place };
            events::response(&followers, &caller, run, (Vec::new(), follower), client)
        }
        (Some(place), None) => {
            let opened = open_from(
                &followers,
                &caller,
                run,
                EventId::ORIGIN,
                Source::Stream,
                place,
            );
            match opened.await {
                Ok(events) => events,
                // The run is accepted, whether its events can be sent or not.
                Err(error) => {
                    tracing::warn!(run.id = %run, code = %error.code, why = error.message,
                                   "the events of an accepted run cannot be sent now");
                    answer_accepted(accepted)
                }
            }
        }
        (None, follower) => {
            if let Some(time) = wait.0 {
                wait_for_end(&followers, &caller, run, follower, time).await;
            }
            if replayed || wait.0.is_some() {
                match load(&followers.runs.store, tenant, run).await {
                    Ok(view) => answer_view(run, view, wait),
                    Err(error) => {
                        tracing::warn!(run.id = %run, code = %error.code, why = error.message,
                                       "an accepted run cannot be read again now");
                        answer_accepted(accepted)
                    }
                }
            } else {
                answer_accepted(accepted)
            }
        }
    };
    if !streams {
        prefer.name_in(&mut answer);
    }
    if replayed {
        answer
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, http::HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Returns the answer that needs only the result of accepting the run.
pub(super) fn answer_accepted(accepted: Accepted) -> Response {
    answer_view(accepted.run(), RunView::accepted(accepted), Wait(None))
}

fn answer_view(run: RunId, view: RunView, wait: Wait) -> Response {
    let done = wait.0.is_some() && view.is_terminal();
    let status = if done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let location = [(LOCATION, format!("/v1/runs/{run}"))];
    (status, run_header(run), location, Json(view)).into_response()
}

/// Returns whether the client prefers events.
fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .filter_map(|range| range.split(';').next())
        .find(|media| !media.trim().is_empty())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn events_are_sent_to_those_who_ask_for_them_first() {
        let asks = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            wants_events(&headers)
        };
        assert!(asks("text/event-stream"));
        assert!(asks("Text/Event-Stream; q=1, application/json;q=0.5"));
        assert!(!asks("application/json, text/event-stream"));
        assert!(!asks("*/*"));
        assert!(!wants_events(&HeaderMap::new()));
    }
}
