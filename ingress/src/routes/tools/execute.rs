//! `POST /v1/tools/{name}/execute` and `POST /v1/tools/execute`: calls without a model.
//!
//! The calls are a run: recorded, leased, fenced and repaired like any other. The request waits for its
//! end, as that of a whole chat does, but leaving does not cancel it: a call may have changed something.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::request::{ExecuteCall, ExecuteCalls};
use baton_admission::{OnClose, Submission, SubmitRequest};
use baton_nats::JobHeaders;
use baton_protocol::{CallFailure, Outcome, RunId, RunStatus};
use baton_service::RequestId;
use baton_store::{IdempotencyKey, RunRecord, Store};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};

use super::view::{ExecutionView, ExecutionsView, PendingView, ResultView};
use crate::access::body::WholeBody;
use crate::access::{Authorized, Caller, RunsWrite};
use crate::error::{ApiError, Problem, run_header};
use crate::metrics::Door;
use crate::run::await_end::wait_for_end;
use crate::run::followers::Followers;
use crate::run::submission::{RunRequest, Submitted, Submitter, idempotency_key, job_headers};

/// The longest time that a request waits; proxies are less patient than some tools are slow.
const WAIT: Duration = Duration::from_mins(1);

/// The errors of a request for calls.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only the description reads it")]
enum CallErrors {
    /// `tool_not_allowed`: the key may not use a tool; none was called
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// No such tool; none was called
    #[response(status = 404, content_type = "application/problem+json")]
    NoSuchTool(Problem),
    /// `approval_required`: a person must decide about a call; the others have ended, and `X-Run-Id` names the
    /// run that waits. `run_cancelled`: somebody cancelled it
    #[response(status = 409, content_type = "application/problem+json")]
    Undecided(Problem),
    /// The Idempotency-Key was used with another request
    #[response(status = 422, content_type = "application/problem+json")]
    KeyReused(Problem),
    /// Too many queued runs, runs of this key, or bytes of bodies; see `Retry-After`
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem),
    /// The system is full, or a part of it away; see `Retry-After`
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// Calls a server-side tool.
///
/// The call is a run without a model: `GET /v1/runs/{id}` shows it. An answer 200 has the tool's result or
/// its failure. If the call has not ended within a minute, the answer is 202, and the call goes on.
#[utoipa::path(
    post,
    path = "/v1/tools/{name}/execute",
    tag = "Tools",
    request_body = ExecuteCall,
    params(
        ("name" = String, Path, description = "The tool", pattern = "^[a-zA-Z0-9_-]{1,64}$"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same call. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "The call has ended", body = ExecutionView),
        (status = 202, description = "The call goes on; `Location` names its run", body = PendingView),
        (status = 400, description = "`invalid_arguments`: the arguments do not fit the tool, each mistake with its place", body = Problem, content_type = "application/problem+json"),
        CallErrors,
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn execute_tool(
    State(submitter): State<Arc<Submitter>>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: WholeBody,
) -> Result<Response, ApiError> {
    let request = SubmitRequest::parse_call(&name, &body.bytes)?;
    let route = format!("/v1/tools/{name}/execute");
    let idempotency = idempotency_key(&headers, &route, &body.bytes)?;
    let headers = job_headers(&request_id, &headers);
    let calls = run_of_calls(authorized.caller, request, idempotency, headers, body);
    let (run, mut results) = match execute(calls, &submitter, &followers).await? {
        Executed::Ended(run, results) => (run, results),
        Executed::GoesOn(run) => return Ok(pending(run)),
    };
    let missing = || ApiError::internal(&MissingCall).of_run(run);
    let result = results.pop().ok_or_else(missing)?;
    if result.failure == Some(CallFailure::InvalidArguments) {
        let message = result.result.unwrap_or_default();
        let refused = ApiError::new(StatusCode::BAD_REQUEST, "invalid_arguments", message);
        return Err(refused.param("arguments").of_run(run));
    }
    let view = ExecutionView {
        run_id: run,
        result,
    };
    Ok((run_header(run), Json(view)).into_response())
}

/// Calls several server-side tools at the same time.
///
/// The calls are one run without a model. A call that fails, hangs or crashes costs only its own entry.
#[utoipa::path(
    post,
    path = "/v1/tools/execute",
    tag = "Tools",
    request_body = ExecuteCalls,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same calls. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "All calls have ended; the results are in their order", body = ExecutionsView),
        (status = 202, description = "The calls go on; `Location` names their run", body = PendingView),
        (status = 400, description = "The body is wrong", body = Problem, content_type = "application/problem+json"),
        CallErrors,
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn execute_tools(
    State(submitter): State<Arc<Submitter>>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: WholeBody,
) -> Result<Response, ApiError> {
    let request = SubmitRequest::parse_calls(&body.bytes)?;
    let idempotency = idempotency_key(&headers, "/v1/tools/execute", &body.bytes)?;
    let headers = job_headers(&request_id, &headers);
    let calls = run_of_calls(authorized.caller, request, idempotency, headers, body);
    Ok(match execute(calls, &submitter, &followers).await? {
        Executed::Ended(run_id, data) => {
            let view = ExecutionsView { run_id, data };
            (run_header(run_id), Json(view)).into_response()
        }
        Executed::GoesOn(run) => pending(run),
    })
}

/// The state of a run of calls when its request is answered.
enum Executed {
    Ended(RunId, Vec<ResultView>),
    GoesOn(RunId),
}

/// A run of calls that completed without one.
#[derive(Debug, thiserror::Error)]
#[error("a run of given calls completed without a call")]
struct MissingCall;

/// Returns the run of calls that a request names. It goes on if its client leaves.
fn run_of_calls(
    caller: Arc<Caller>,
    request: SubmitRequest,
    idempotency: Option<IdempotencyKey>,
    headers: JobHeaders,
    body: WholeBody,
) -> RunRequest {
    RunRequest {
        caller,
        submission: Submission {
            run: None,
            request,
            idempotency,
            on_close: OnClose::LeaveRunning,
            headers,
        },
        body: Some(body.held),
        follow: true,
        door: Door::Tools,
    }
}

/// Submits calls as a run, and waits for its end.
async fn execute(
    calls: RunRequest,
    submitter: &Arc<Submitter>,
    followers: &Followers,
) -> Result<Executed, ApiError> {
    let caller = Arc::clone(&calls.caller);
    let keyed = calls.submission.idempotency.is_some();
    let Submitted {
        accepted,
        follower,
        attachment: _attachment,
        body: _,
    } = submitter.submit(calls).await?;
    let run = accepted.run();
    drop(accepted);
    wait_for_end(followers, &caller, run, follower, WAIT).await;
    match read(&followers.runs.store, &caller, run).await {
        Ok((record, results)) => executed(&record, results),
        Err(error) => {
            tracing::warn!(run.id = %run, code = %error.code, why = error.message,
                           "an accepted run cannot be read again now");
            let why = "the result cannot be read now";
            Err(ApiError::goes_on(run, "ledger_unavailable", why, keyed))
        }
    }
}

/// Reads a run of calls in one transaction.
async fn read(
    store: &Store,
    caller: &Caller,
    run: RunId,
) -> Result<(RunRecord, Vec<ResultView>), ApiError> {
    let mut tx = store.tenant(caller.tenant).await?;
    let record = tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let steps = tx.run_steps(run).await?;
    let results = steps.into_iter().filter_map(ResultView::of).collect();
    Ok((record, results))
}

fn executed(record: &RunRecord, results: Vec<ResultView>) -> Result<Executed, ApiError> {
    let run = record.id;
    let conflict = |code: &'static str, message: String| {
        let error = ApiError::new(StatusCode::CONFLICT, code, message);
        Err(error.of_run(run).do_not_retry())
    };
    match &record.outcome {
        Some(Outcome::Completed(_)) => Ok(Executed::Ended(run, results)),
        Some(Outcome::Failed(error)) => {
            let worked = !results.is_empty();
            Err(ApiError::run_failed(run, error, worked))
        }
        Some(Outcome::Cancelled(reason)) => conflict(
            "run_cancelled",
            format!("run {run} was cancelled: {reason}"),
        ),
        None if record.status == RunStatus::AwaitingApproval => conflict(
            "approval_required",
            format!("run {run} waits for a person: GET /v1/runs/{run}/approvals has the question"),
        ),
        None => Ok(Executed::GoesOn(run)),
    }
}

fn pending(run: RunId) -> Response {
    let location = [(LOCATION, format!("/v1/runs/{run}"))];
    let view = PendingView { run_id: run };
    (StatusCode::ACCEPTED, run_header(run), location, Json(view)).into_response()
}
