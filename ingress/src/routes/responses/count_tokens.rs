//! `POST /v1/responses/input_tokens`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::check_shape;
use baton_openai::ErrorBody;
use baton_protocol::Usage;
use baton_responses::{CreateResponse, InputTokens};
use baton_service::RequestId;
use http::{HeaderMap, StatusCode};

use super::ResponseParts;
use super::derived_run::{DerivedRun, completed};
use super::description::{CountRequest, TokenCount};
use super::record::ResponseRecord;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::{ApiError, run_header};
use crate::routes::openapi::AnswerErrors;
use crate::run::submission::{idempotency_key, job_headers};

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
    State(parts): State<ResponseParts>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    let ResponseParts {
        followers,
        submitter,
        bodies,
        mcp_servers,
    } = parts;
    check_shape(&body)?;
    let mut request = CreateResponse::parse_count(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/responses/input_tokens", &body)?;
    drop(body);
    let (grant, bus) = (&authorized.caller.grant, &followers.runs.bus);
    mcp_servers.offer(&mut request, grant, bus).await?;
    let derived = DerivedRun {
        followers: &followers,
        submitter: &submitter,
        limit: bodies.limit,
        caller: authorized.caller,
    };
    let headers = job_headers(&request_id, &headers);
    let record = derived
        .ended(request, &[], idempotency, headers, held)
        .await?;
    let run = record.run.id;
    let count = count_of(&record).map_err(|error| error.of_run(run))?;
    Ok((run_header(run), Json(InputTokens::new(count))).into_response())
}

/// Returns the upstream's count of what it read.
fn count_of(record: &ResponseRecord) -> Result<u64, ApiError> {
    completed(record)?;
    let Usage {
        prompt_tokens,
        estimated,
        ..
    } = record.run.usage;
    if prompt_tokens > 0 && !estimated {
        return Ok(prompt_tokens);
    }
    let message =
        "the upstream of this model reports no usage, so nothing here can count its tokens";
    let error = ApiError::new(StatusCode::BAD_GATEWAY, "usage_not_reported", message);
    Err(error.do_not_retry())
}
