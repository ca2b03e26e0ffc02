//! `POST /v1/responses`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use baton_admission::{Accepted, OnClose, Submission, SubmitRequest, check_shape};
use baton_openai::ErrorBody;
use baton_protocol::TenantId;
use baton_responses::{CreateResponse, Snapshot, Status};
use baton_service::RequestId;
use baton_store::Store;
use http::{HeaderMap, StatusCode};

use super::ResponseParts;
use super::approvals::answered;
use super::description::{ResponseBody, ResponseRequest};
use super::earlier::{Earlier, conversation};
use super::record::{ResponseRecord, answer, head, recorded_head};
use super::run_request::{in_words_of_the_wire, into_submission, open_input};
use super::streamed::ResponseFrames;
use super::whole::{answer_whole, answer_within};
use crate::access::body::WholeBody;
use crate::access::{Authorized, Origin, RunsWrite};
use crate::error::ApiError;
use crate::metrics::{self, Door};
use crate::routes::openapi::AnswerErrors;
use crate::routes::prefer::Prefer;
use crate::routes::run_stream::Client;
use crate::routes::sse::ServerSentEvent;
use crate::run::submission::{RunRequest, Submitted, idempotency_key, job_headers};

/// Makes a response: whole, as server-sent events, or in the background.
///
/// The response's id is that of its run, with `resp_` before it. A background response goes on without
/// its client, and is answered at once, `queued`. Closing the connection of another one cancels it,
/// unless the request has an `Idempotency-Key`: then half a minute later, if nobody has come back.
/// `docs/responses.md` lists the fields that are honoured, passed on to the upstream or refused.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "OpenAI",
    request_body = ResponseRequest,
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async, wait=10`: waits ten seconds for the end, then answers 202, and the response goes on. Not of a stream, and not with `\"store\": false`.", max_length = 1_024),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same run and answer. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "The response; with `stream`, its events as `text/event-stream`. `X-Run-Id` names the run.", content((ResponseBody = "application/json"), (ServerSentEvent = "text/event-stream"))),
        (status = 202, description = "With `Prefer: respond-async`: the response goes on; `Location` names it", body = ResponseBody),
        AnswerErrors,
        (status = 404, description = "No such agent, model, conversation or earlier response", body = ErrorBody),
        (status = 409, description = "`response_in_progress`: the earlier response has not ended; `thread_busy`: a run of the conversation has not ended; `approval_required`: the run waits for a decision about a tool call or a limit, and the run goes on afterwards", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_response(
    State(parts): State<ResponseParts>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
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
    let store = &followers.runs.store;
    let begun = followers.runs.clock.monotonic();
    check_shape(&body)?;
    let mut request = CreateResponse::parse(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/responses", &body)?;
    drop(body);
    let (stream, background) = (request.stream, request.settings.background);
    let prefer = Prefer::read(&headers);
    // A response that is not kept cannot be read later.
    let later = prefer.respond_async && !stream && request.settings.store;
    let on_close = match (background || later, idempotency.is_some()) {
        (true, _) => OnClose::LeaveRunning,
        (false, true) => OnClose::CancelUnlessBack,
        (false, false) => OnClose::Cancel,
    };
    let caller = authorized.caller;
    let tenant = caller.tenant;
    // Before anything is accepted.
    let place = if stream {
        Some(followers.streams.take(&caller)?)
    } else {
        None
    };
    open_input(&mut request, store, tenant).await?;
    let bus = &followers.runs.bus;
    mcp_servers.offer(&mut request, &caller.grant, bus).await?;
    let now = followers.runs.clock.now();
    let (answers, earlier) = match answered(&mut request, store, &caller, &origin, now).await? {
        Some((answers, earlier)) => (Some(answers), earlier),
        None => (None, earlier(&request, store, tenant).await?),
    };
    let decisions = answers.iter().flat_map(|answers| &answers.decisions);
    let decisions: Vec<_> = decisions.map(|(_, decision)| decision.clone()).collect();
    let keyed = idempotency.is_some();
    let job_headers = job_headers(&request_id, &headers);
    // They hold the bytes in which they were read.
    drop(headers);
    let wanted = RunRequest {
        caller: Arc::clone(&caller),
        submission: Submission {
            run: None,
            request: SubmitRequest {
                answers,
                ..into_submission(request, earlier, &[], bodies.limit)?
            },
            idempotency,
            on_close,
            headers: job_headers,
        },
        body: Some(held),
        follow: stream || later || !background,
        door: Door::Responses,
    };
    let Submitted {
        accepted,
        follower,
        mut attachment,
        body,
    } = submitter
        .submit(wanted)
        .await
        .map_err(in_words_of_the_wire)?;
    let run = accepted.run();
    let (is_new, head) = match accepted {
        Accepted::Created(created) => {
            decisions.iter().for_each(metrics::approval_decided);
            let head = head(run, created.created_at, &created.spec, created.metadata);
            (true, head)
        }
        Accepted::Replay(known) | Accepted::Steered(known) => (false, recorded_head(&known)),
    };
    // The request was dropped with what accepting the run has yielded.
    drop(body);
    let answered = match (head, place) {
        (Err(error), _) => {
            attachment.detach();
            Err(error)
        }
        (Ok(_), None) if later => {
            attachment.detach();
            answer_within(&followers, &caller, run, follower, prefer).await
        }
        (Ok(head), None) if background => {
            attachment.detach();
            if is_new {
                Ok(answer(&head, &Snapshot::empty(Status::Queued)))
            } else {
                let record = ResponseRecord::load(store, tenant, run).await;
                record.and_then(|record| record.answer())
            }
        }
        // A new response's stream, which needs less, waits in the same future.
        (Ok(_), None) => {
            let whole = answer_whole(&followers, &caller, run, follower, attachment, begun);
            Box::pin(whole).await
        }
        (Ok(head), Some(place)) => {
            let client = Client { attachment, place };
            let frames = ResponseFrames::new(head, None, background);
            match follower {
                Some(follower) => {
                    Ok(frames.follow(&followers, &caller, follower, client, Some(begun)))
                }
                None => Box::pin(frames.open(&followers, &caller, client)).await,
            }
        }
    };
    answered.map_err(|error| match error.status {
        StatusCode::SERVICE_UNAVAILABLE if !error.is_of_run() => {
            tracing::warn!(run.id = %run, code = %error.code, why = error.message,
                           "the answer of an accepted run cannot be sent now");
            let why = "the answer cannot be read at the moment";
            ApiError::goes_on(run, "answer_unavailable", why, keyed)
        }
        _ => error.of_run(run),
    })
}

/// Returns the conversation before a request.
async fn earlier(
    request: &CreateResponse,
    store: &Store,
    tenant: TenantId,
) -> Result<Earlier, ApiError> {
    match request.previous {
        Some(previous) => conversation(store, tenant, previous, &[]).await,
        None => Ok(Earlier::default()),
    }
}
