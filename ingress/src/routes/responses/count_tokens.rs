//! `POST /v1/responses/input_tokens`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::{OnClose, Submission, SubmitRequest, check_shape};
use baton_openai::ErrorBody;
use baton_protocol::{OnLimit, Outcome, Usage};
use baton_responses::{CreateResponse, InputTokens};
use baton_service::RequestId;
use http::{HeaderMap, StatusCode};

use super::description::{CountRequest, TokenCount};
use super::earlier::{conversation, messages_of_thread};
use super::interrupted;
use super::record::ResponseRecord;
use super::run_request::into_submission;
use super::whole::ended_record;
use crate::access::body::{Bodies, WholeBody};
use crate::access::{Authorized, RunsWrite};
use crate::error::{ApiError, run_header};
use crate::metrics::Door;
use crate::routes::openapi::AnswerErrors;
use crate::run::followers::Followers;
use crate::run::relay::Interruption;
use crate::run::submission::{RunRequest, Submitted, Submitter, idempotency_key, job_headers};

/// Counts the tokens of an input, with the instructions, earlier items and tools that go with it.
///
/// The upstream counts them: the request is a run with an answer of one token, which is charged and is
/// removed a minute after its end. So the count is that of the model itself, whichever model it is.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    tag = "OpenAI",
    request_body = CountRequest,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same count. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "The count. `X-Run-Id` names the run.", body = TokenCount),
        AnswerErrors,
        (status = 404, description = "No such agent, model, conversation or earlier response", body = ErrorBody),
        (status = 409, description = "`response_in_progress`: the earlier response has not ended", body = ErrorBody),
        (status = 502, description = "`usage_not_reported`: the upstream counts no tokens", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn count_input_tokens(
    State(followers): State<Arc<Followers>>,
    State(submitter): State<Arc<Submitter>>,
    State(bodies): State<Bodies>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    let store = &followers.runs.store;
    check_shape(&body)?;
    let mut request = CreateResponse::parse_count(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/responses/input_tokens", &body)?;
    drop(body);
    let caller = authorized.caller;
    let tenant = caller.tenant;
    // The run is no part of the conversation, which stays as it is.
    let earlier = match (request.previous, request.conversation.take()) {
        (Some(previous), _) => conversation(store, tenant, previous).await?,
        (None, Some(thread)) => messages_of_thread(store, tenant, thread).await?,
        (None, None) => Vec::new(),
    };
    request.settings.conversation = None;
    let wanted = RunRequest {
        caller: Arc::clone(&caller),
        submission: Submission {
            run: None,
            request: SubmitRequest {
                // Nothing is called, and a limit ends the run without another turn.
                max_turns: Some(1),
                on_limit: Some(OnLimit::Stop),
                // A turn that broke off is not repeated once it has shown something: two turns would
                // count twice.
                shown_for_good: true,
                ..into_submission(request, earlier, bodies.limit)?
            },
            idempotency,
            on_close: OnClose::Cancel,
            headers: job_headers(&request_id, &headers),
        },
        body: Some(held),
        follow: true,
        door: Door::Responses,
    };
    let Submitted {
        accepted,
        follower,
        attachment,
        body,
    } = submitter.submit(wanted).await?;
    let run = accepted.run();
    // The request was dropped with what accepting the run has yielded.
    drop((accepted, body));
    let counted = async {
        let record = ended_record(&followers, &caller, run, follower, attachment).await?;
        let count = count_of(&record)?;
        Ok((run_header(run), Json(InputTokens::new(count))).into_response())
    };
    counted.await.map_err(|error: ApiError| error.of_run(run))
}

/// Returns the upstream's count of what it read.
fn count_of(record: &ResponseRecord) -> Result<u64, ApiError> {
    match &record.run.outcome {
        Some(Outcome::Failed(error)) => {
            let has_worked = record.has_worked();
            return Err(ApiError::run_failed(record.run.id, error, has_worked));
        }
        Some(Outcome::Completed(_)) => {}
        Some(Outcome::Cancelled(reason)) => {
            let message = format!("the run that counts was cancelled: {reason}");
            let error = ApiError::new(StatusCode::CONFLICT, "run_cancelled", message);
            return Err(error.do_not_retry());
        }
        None => return Err(interrupted(record.run.id, Interruption::Lost)),
    }
    if !record.has_worked() {
        let message = "a limit of this key or agent leaves no model turn, and counting takes one";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "limit_reached", message);
        return Err(error.do_not_retry());
    }
    match record.run.usage {
        Usage {
            prompt_tokens: count @ 1..,
            estimated: false,
            ..
        } => Ok(count),
        _ => {
            let message = "the upstream of this model reports no usage, so nothing here can count \
                           its tokens";
            let error = ApiError::new(StatusCode::BAD_GATEWAY, "usage_not_reported", message);
            Err(error.do_not_retry())
        }
    }
}
