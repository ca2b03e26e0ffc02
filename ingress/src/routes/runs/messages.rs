//! `POST` and `GET /v1/runs/{id}/messages`, `DELETE /v1/runs/{id}/messages/{message}`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use baton_admission::{check_shape, read_json};
use baton_openai::Content;
use baton_protocol::{MessageId, RunId};
use baton_service::{RequestId, SharedClock};
use baton_store::{InputState, RunInput, Store, WithdrawInput};
use chrono::{DateTime, Utc};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::create::answer_accepted;
use super::path::RunPath;
use super::view::RunView;
use crate::access::body::WholeBody;
use crate::access::{Authorized, RunsRead, RunsWrite};
use crate::error::{ApiError, Problem, run_header};
use crate::metrics::Door;
use crate::routes::query::{QueryParams, list_params};
use crate::run::follow_up::FollowUp;
use crate::run::inputs::{self, RUN_ENDED};
use crate::run::submission::{Submitter, job_headers};

/// A message to a run that works.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"content": "In euros, please."}))]
pub(crate) struct RunMessage {
    /// The content of a user message: a text, or a list of content parts.
    #[schema(value_type = Content)]
    content: Box<RawValue>,
    /// `steer`: the run takes it at its next step. `follow_up`: it is the next run of the thread.
    /// Default: `steer`.
    #[schema(pattern = "^(steer|follow_up)$")]
    mode: Option<String>,
    /// A UUID of version 7 that names the message: sent again with it, the message is not taken twice.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    id: Option<String>,
}

/// The state of a message to a run.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunMessageStatus {
    /// The run takes it at its next step.
    Waiting,
    /// It is part of the run.
    Applied,
    /// The run has ended without it.
    Returned,
}

/// A message that was sent to a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunMessageView {
    id: MessageId,
    /// `run.message`.
    object: &'static str,
    run_id: RunId,
    /// Its place among the messages sent to the run, rising from 1.
    position: u32,
    status: RunMessageStatus,
    /// The step that it became; 0 if it joined the input of a run that no worker had taken yet; null
    /// before.
    step: Option<u32>,
    /// An OpenAI chat message.
    #[schema(value_type = Object)]
    message: Box<RawValue>,
    created_at: DateTime<Utc>,
}

impl RunMessageView {
    fn new(run: RunId, input: RunInput) -> Self {
        let (status, step) = match input.state {
            InputState::Waiting => (RunMessageStatus::Waiting, None),
            InputState::Applied(step) => (RunMessageStatus::Applied, Some(step)),
            InputState::Returned => (RunMessageStatus::Returned, None),
        };
        Self {
            id: input.id,
            object: "run.message",
            run_id: run,
            position: input.position,
            status,
            step,
            message: input.message,
            created_at: input.created_at,
        }
    }
}

/// Messages that were sent to a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunMessageList {
    data: Vec<RunMessageView>,
    next_cursor: Option<String>,
}

/// Sends a message to a run that works: the run takes it at its next step, or the message becomes the
/// next run of the run's thread.
///
/// A run that would end with an answer while a message waits takes another turn instead. If it ends
/// for another reason, the message is `returned`. With `"mode": "follow_up"` the answer is the next run;
/// its id is the message's, and its agent, model, tools and limits are those of this one.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/messages",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    request_body = RunMessage,
    responses(
        (status = 202, description = "It waits, or was sent before with this id; with `follow_up`, the run that it became", content((RunMessageView = "application/json"), (RunView = "application/json"))),
        (status = 400, description = "This is no message", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`run_ended`, with the `content` that was sent, or `message_id_taken`, or `run_without_thread`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_messages`: ten wait already", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn send_message(
    State(clock): State<SharedClock>,
    State(submitter): State<Arc<Submitter>>,
    authorized: Authorized<RunsWrite>,
    Extension(request_id): Extension<RequestId>,
    RunPath(run): RunPath,
    headers: HeaderMap,
    WholeBody { bytes: body, held }: WholeBody,
) -> Result<Response, ApiError> {
    check_shape(&body)?;
    let sent: RunMessage = read_json(&body)?;
    let follows_up = match sent.mode.as_deref() {
        None | Some("steer") => false,
        Some("follow_up") => true,
        Some(_) => {
            let message = "`mode` is `steer` or `follow_up`";
            let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_mode", message);
            return Err(error.param("mode"));
        }
    };
    let id = match sent.id {
        Some(id) => id.parse().map_err(|_| bad_id())?,
        None => MessageId::new(clock.now()),
    };
    let answered = if follows_up {
        let follow_up = FollowUp {
            caller: authorized.caller,
            run,
            id,
            content: &sent.content,
            key: FollowUp::key(id, "/v1/runs/{id}/messages", &body),
            held: Some(held),
            headers: job_headers(&request_id, &headers),
            door: Door::Runs,
        };
        follow_up.send(&submitter).await.map(answer_accepted)
    } else {
        let tenant = authorized.caller.tenant;
        let actor = authorized.caller.actor().to_string();
        let runs = &submitter.runs;
        let input = inputs::send(runs, tenant, run, id, &sent.content, &actor).await;
        input.map(|input| {
            let view = RunMessageView::new(run, input);
            (StatusCode::ACCEPTED, run_header(run), Json(view)).into_response()
        })
    };
    match answered {
        Ok(answer) => Ok(answer),
        // A client that keeps no copy can send the content with a new run.
        Err(error) if error.code == RUN_ENDED => Err(error.with("content", sent.content)),
        Err(error) => Err(error),
    }
}

fn bad_id() -> ApiError {
    let message = "`id` is a UUID of version 7, hyphenated and in lower case: leave it out, and the \
                   server draws one";
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_message_id", message).param("id")
}

list_params! {
    /// The page of the list.
    pub(crate) struct RunMessageListParams {}
    cursor: pattern = "^[0-9]{1,10}$"
}

/// Lists the messages that were sent to a run while it worked, the first one first.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/messages",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid), RunMessageListParams),
    responses(
        (status = 200, description = "A page of messages", body = RunMessageList),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_messages(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
    QueryParams(params): QueryParams<RunMessageListParams>,
) -> Result<Json<RunMessageList>, ApiError> {
    let (cursor, limit) = params.page()?;
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    tx.run(run).await?.ok_or_else(ApiError::no_such_run)?;
    let page = tx.run_inputs(run, cursor, limit).await?;
    let data = page.data.into_iter();
    Ok(Json(RunMessageList {
        data: data.map(|input| RunMessageView::new(run, input)).collect(),
        next_cursor: page.next_cursor.map(|cursor| cursor.to_string()),
    }))
}

/// Withdraws a message that waits for a run.
#[utoipa::path(
    delete,
    path = "/v1/runs/{id}/messages/{message}",
    tag = "Runs",
    params(
        ("id" = String, Path, description = "The run", format = Uuid),
        ("message" = String, Path, description = "The message", format = Uuid),
    ),
    responses(
        (status = 204, description = "It is withdrawn"),
        (status = 404, description = "No such run, or no such message", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`message_applied`, or `run_ended` without it", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn withdraw_message(
    State(store): State<Store>,
    authorized: Authorized<RunsWrite>,
    RunMessagePath(run, message): RunMessagePath,
) -> Result<StatusCode, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let withdrawn = tx.withdraw_input(run, message).await?;
    tx.commit().await?;
    let conflict = |code, message| ApiError::new(StatusCode::CONFLICT, code, message);
    match withdrawn {
        WithdrawInput::Withdrawn => Ok(StatusCode::NO_CONTENT),
        WithdrawInput::NotWaiting(InputState::Applied(_)) => Err(conflict(
            "message_applied",
            "the message is part of the run, and cannot be withdrawn",
        )),
        WithdrawInput::NotWaiting(InputState::Returned | InputState::Waiting) => Err(conflict(
            RUN_ENDED,
            "the run has ended, or is being cancelled: it does not take the message",
        )),
        WithdrawInput::NotFound => Err(no_such_message()),
    }
}

/// The message that the path names. A malformed id names none.
pub(crate) struct RunMessagePath(RunId, MessageId);

impl<S: Send + Sync> FromRequestParts<S> for RunMessagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((run, message)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| no_such_message())?;
        let run = run.parse().map_err(|_| ApiError::no_such_run())?;
        let message = message.parse().map_err(|_| no_such_message())?;
        Ok(Self(run, message))
    }
}

fn no_such_message() -> ApiError {
    let message = "the run was sent no message with this id";
    ApiError::new(StatusCode::NOT_FOUND, "message_not_found", message)
}
