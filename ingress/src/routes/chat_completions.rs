//! `POST /v1/chat/completions`.
//!
//! The head of a streamed answer is sent with its first token, so that a run that fails earlier
//! gets a proper status. If no event arrives within one heartbeat, the head is sent alone.

mod answer;
mod frames;
pub(crate) mod passed_on;
#[cfg(test)]
mod samples;
mod streamed;
mod whole;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use baton_admission::request::ChatSubmission;
use baton_admission::{Accepted, OnClose, Submission};
use baton_nats::{EventFollower, ResumeError};
use baton_openai::{ChatCompletion, ChatRequest, ErrorBody};
use baton_protocol::{EventId, FinishReason, Outcome, RunId, TenantId};
use baton_service::RequestId;
use baton_store::RunRecord;
use http::{HeaderMap, StatusCode};

use self::answer::Answer;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsWrite};
use crate::error::ApiError;
use crate::metrics::Door;
use crate::routes::openapi::AnswerErrors;
use crate::routes::run_stream::Client;
use crate::routes::sse::ServerSentEvent;
use crate::run::followers::{EndsWith, Followers};
use crate::run::ledger::{Recorded, find_run};
use crate::run::reader::RunReader;
use crate::run::relay::Interruption;
use crate::run::submission::{RunRequest, Submitted, Submitter, idempotency_key, job_headers};

/// The code for an active run after the stream has dropped its first events.
const EVENTS_EXPIRED: &str = "events_expired";

/// A chat request, as far as its answer needs it.
pub(crate) struct Chat {
    run: RunId,
    /// The upstream model.
    model: String,
    /// The client's own tools: the client executes their calls.
    client_tools: Vec<String>,
    include_usage: bool,
    /// Whether the client expects calls in their older form.
    older_calls: bool,
    /// Whether the stream stays open while the run waits for a person.
    waits_for_people: bool,
    /// Whether the same request finds the run again.
    keyed: bool,
    begun: Instant,
}

/// The source of the answer.
enum Source {
    /// The run's events, from the first.
    Live(Box<EventFollower>),
    /// The ledger: the run had already ended when the request was repeated.
    Recorded(Box<Recorded>),
}

/// Answers a chat, whole or as server-sent events.
///
/// Unknown fields are passed on to the upstream. `model` names an upstream model, which the
/// `default` agent uses, or an agent. The server executes the agent's server-side tools, and they
/// never appear as `tool_calls`. If a call waits for a person, the answer is the error `approval_required`; with
/// `"on_approval": "wait"`, a stream stays open until the decision, and goes on. Closing the connection cancels the run. If the request has an
/// `Idempotency-Key`, the run is cancelled half a minute later, unless a client has returned.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatRequest,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same run and answer. Another body: 422.", min_length = 1, max_length = 255),
    ),
    responses(
        (status = 200, description = "The answer; with `stream`, its chunks as `text/event-stream`. `X-Run-Id` names the run.", content((ChatCompletion = "application/json"), (ServerSentEvent = "text/event-stream"))),
        AnswerErrors,
        (status = 404, description = "No such agent or model", body = ErrorBody),
        (status = 409, description = "`run_cancelled` by somebody; `approval_required`: the run waits for a decision about a tool call or a limit, and the run goes on afterwards", body = ErrorBody),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn chat_completions(
    State(submitter): State<Arc<Submitter>>,
    State(followers): State<Arc<Followers>>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    let begun = followers.runs.clock.monotonic();
    let ChatSubmission {
        request,
        stream,
        include_usage,
        older_calls,
        waits_for_people,
    } = ChatSubmission::parse(&body)?;
    let idempotency = idempotency_key(&headers, "/v1/chat/completions", &body)?;
    let keyed = idempotency.is_some();
    drop(body);
    let on_close = if keyed {
        OnClose::CancelUnlessBack
    } else {
        OnClose::Cancel
    };
    let caller = authorized.caller;
    let tenant = caller.tenant;
    // Before the run is accepted, so that a refusal leaves none behind.
    let place = if stream {
        Some(followers.streams.take(&caller)?)
    } else {
        None
    };
    let client_tools = request.tool_names.clone();
    let job_headers = job_headers(&request_id, &headers);
    // They hold the bytes in which they were read.
    drop(headers);
    let wanted = RunRequest {
        caller: Arc::clone(&caller),
        submission: Submission {
            run: None,
            request,
            idempotency,
            on_close,
            headers: job_headers,
        },
        body: Some(held),
        follow: true,
        door: Door::Chat,
    };
    let Submitted {
        accepted,
        follower,
        mut attachment,
        body,
    } = submitter.submit(wanted).await?;
    let run = accepted.run();
    let found = match (accepted, follower) {
        (Accepted::Created(created), Some(follower)) => {
            Ok((created.spec.model, Source::Live(Box::new(follower))))
        }
        (Accepted::Created(_), None) => Box::pin(attach(&followers.runs, tenant, run)).await,
        (Accepted::Replay(known) | Accepted::Steered(known), _) => {
            Box::pin(replayed(&followers.runs, tenant, &known)).await
        }
    };
    // Accepting the run has consumed and dropped the request.
    drop(body);
    let (model, source) = match found {
        Ok(found) => found,
        Err(error) => {
            attachment.detach();
            tracing::warn!(run.id = %run, code = %error.code, why = error.message,
                           "the answer of an accepted run cannot be sent now");
            let why = "the answer cannot be read at the moment";
            return Err(match &*error.code {
                EVENTS_EXPIRED => error.of_run(run),
                _ => ApiError::goes_on(run, "answer_unavailable", why, keyed),
            });
        }
    };
    let chat = Chat {
        run,
        model,
        client_tools,
        include_usage,
        older_calls,
        waits_for_people,
        keyed,
        begun,
    };
    let answered = match (source, stream) {
        (Source::Recorded(recorded), _) => {
            attachment.detach();
            if stream {
                chat.stream_recorded(&recorded)
            } else {
                chat.answer_recorded(&recorded)
            }
        }
        (Source::Live(follower), _) => {
            let relay = followers.relay(&caller, run, *follower, EndsWith::All);
            match place {
                Some(place) => chat.stream(relay, Client { attachment, place }).await,
                // A stream, which needs less, waits in the same future.
                None => Box::pin(chat.answer_whole(relay, attachment)).await,
            }
        }
    };
    answered.map_err(|error| error.of_run(run))
}

/// Returns the source of an idempotent replay: the run's events from the first, or the ledger.
async fn replayed(
    runs: &RunReader,
    tenant: TenantId,
    known: &RunRecord,
) -> Result<(String, Source), ApiError> {
    // The record of a run that has ended never changes.
    match Recorded::of(&runs.store, tenant, known).await? {
        Some(recorded) => Ok((known.model.clone(), Source::Recorded(Box::new(recorded)))),
        None => attach(runs, tenant, known.id).await,
    }
}

/// Follows a run from its first event, unless it has ended.
async fn attach(
    runs: &RunReader,
    tenant: TenantId,
    run: RunId,
) -> Result<(String, Source), ApiError> {
    // Before the row is read, so that events in between are heard.
    let subscribed = runs.subscribe(tenant, run).await?;
    let record = find_run(&runs.store, tenant, run)
        .await?
        .ok_or_else(ApiError::no_such_run)?;
    if let Some(recorded) = Recorded::of(&runs.store, tenant, &record).await? {
        return Ok((record.model, Source::Recorded(Box::new(recorded))));
    }
    let resumed = subscribed.resume(EventId::ORIGIN).await;
    match resumed.map_err(|unresumed| unresumed.reason) {
        Ok(follower) => Ok((record.model, Source::Live(Box::new(follower)))),
        Err(ResumeError::CursorUnknown | ResumeError::Expired) => Err(ApiError::new(
            StatusCode::CONFLICT,
            EVENTS_EXPIRED,
            format!("the beginning of run {run} is no longer stored, and it has not ended yet: poll GET /v1/runs/{run}"),
        )
        .do_not_retry()),
        Err(error) => Err(ApiError::unavailable("broker_unavailable", error.to_string())),
    }
}

impl Chat {
    /// Returns the recorded answer of a completed run, or the error for any other end.
    fn recorded_answer(&self, recorded: &Recorded) -> Result<(Answer, FinishReason), ApiError> {
        match &recorded.outcome {
            Outcome::Completed(finish_reason) => {
                let mut answer =
                    Answer::from_messages(&recorded.messages, *finish_reason, &self.client_tools);
                answer.fields.extend(recorded.fields.clone());
                Ok((answer, *finish_reason))
            }
            Outcome::Failed(error) => Err(ApiError::run_failed(self.run, error, recorded.worked)),
            Outcome::Cancelled(reason) => Err(self.cancelled(reason)),
        }
    }

    /// The run was cancelled while its client waited. A retry would start another run.
    fn cancelled(&self, reason: &str) -> ApiError {
        let message = format!("run {} was cancelled: {reason}", self.run);
        ApiError::new(StatusCode::CONFLICT, "run_cancelled", message).do_not_retry()
    }

    /// Returns the error for a client that gets no answer although its run goes on.
    fn interrupted(&self, reason: Interruption) -> ApiError {
        let goes_on = |code, why| ApiError::goes_on(self.run, code, why, self.keyed);
        match reason {
            Interruption::Parked => {
                let message = format!(
                    "the run waits for a decision: GET /v1/runs/{run}/approvals; run {run} goes \
                     on afterwards: GET /v1/runs/{run}",
                    run = self.run
                );
                ApiError::new(StatusCode::CONFLICT, "approval_required", message).do_not_retry()
            }
            Interruption::Stopping => goes_on("server_stopping", "this server is stopping"),
            Interruption::Revoked => ApiError::credential_ended(),
            Interruption::Lost | Interruption::Unreadable => {
                goes_on("events_unavailable", "the run's events cannot be read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size<A, B, C, D, E, F, R>(_: &impl Fn(A, B, C, D, E, F) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_chat_holds_little_until_its_first_token() {
        assert!(size(&chat_completions) < 5 << 10);
    }
}
