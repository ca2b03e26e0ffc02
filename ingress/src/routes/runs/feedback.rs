//! `POST /v1/runs/{id}/feedback` and `GET /v1/runs/{id}/feedback`.

use axum::Json;
use axum::extract::State;
use baton_protocol::{FeedbackId, RunId};
use baton_service::SharedClock;
use baton_store::{AuditEntry, FeedbackRecord, GivenFeedback, Judgement, NewFeedback, Store};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::path::RunPath;
use crate::access::body::JsonBody;
use crate::access::{Authorized, Origin, RunsRead, RunsWrite};
use crate::error::{ApiError, Problem};

/// The most judgements about one run.
const MOST: u32 = 1_000;
/// The longest name of a judged quality, in bytes.
const MAX_KEY: usize = 63;
/// The longest word, in characters.
const MAX_VALUE: usize = 1_000;
/// The longest explanation, in characters.
const MAX_COMMENT: usize = 4_000;
/// The largest score.
const MAX_SCORE: f64 = 1e9;

/// A judgement about a run: `score` or `value`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "helpful", "score": 0.8, "comment": "found the invoice at once"}))]
pub(crate) struct GiveFeedback {
    /// The judged quality: a lower-case letter, then lower-case letters, digits, `_`, `.` and `-`.
    #[schema(pattern = "^[a-z][a-z0-9_.-]{0,62}$")]
    key: String,
    /// The judgement as a number.
    #[serde(default)]
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    score: Option<f64>,
    /// The judgement as a word.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 1000)]
    value: Option<String>,
    /// An explanation.
    #[serde(default)]
    #[schema(max_length = 4000)]
    comment: Option<String>,
}

/// A judgement about a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Feedback)]
pub(crate) struct FeedbackView {
    id: FeedbackId,
    /// `feedback`.
    object: &'static str,
    /// The judged quality.
    key: String,
    /// The judgement as a number; null if it is a word.
    score: Option<f64>,
    /// The judgement as a word; null if it is a number.
    value: Option<String>,
    /// An explanation.
    comment: Option<String>,
    /// The actor that gave it: `api_key:<id>`, `user:<id>` or `issuer:<subject>`.
    created_by: String,
    created_at: DateTime<Utc>,
}

/// The judgements about a run, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FeedbackList {
    data: Vec<FeedbackView>,
    /// Always null: the judgements about a run are one page.
    next_cursor: Option<String>,
}

impl From<FeedbackRecord> for FeedbackView {
    fn from(record: FeedbackRecord) -> Self {
        Self {
            id: record.id,
            object: "feedback",
            key: record.key,
            score: record.score,
            value: record.value,
            comment: record.comment,
            created_by: record.created_by,
            created_at: record.created_at,
        }
    }
}

impl GiveFeedback {
    fn check(self, id: FeedbackId, created_by: String) -> Result<NewFeedback, ApiError> {
        let refuse = |param: &str, message: String| {
            let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_feedback", message);
            Err(error.param(param))
        };
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
        };
        let is_key = self.key.len() <= MAX_KEY
            && self
                .key
                .starts_with(|first: char| first.is_ascii_lowercase())
            && self.key.bytes().all(allowed);
        if !is_key {
            let message = format!(
                "`key` is a lower-case letter, then lower-case letters, digits, `_`, `.` and `-`, at \
                 most {MAX_KEY} in all"
            );
            return refuse("key", message);
        }
        let fits = |text: &str, most: usize| text.chars().count() <= most && !text.contains('\0');
        if self
            .comment
            .as_deref()
            .is_some_and(|comment| !fits(comment, MAX_COMMENT))
        {
            let message =
                format!("`comment` has at most {MAX_COMMENT} characters, and no NUL character");
            return refuse("comment", message);
        }
        let judgement = match (self.score, self.value) {
            (Some(score), None) if (-MAX_SCORE..=MAX_SCORE).contains(&score) => {
                Judgement::Score(score)
            }
            (Some(_), None) => {
                let message = format!("`score` is a number from -{MAX_SCORE} to {MAX_SCORE}");
                return refuse("score", message);
            }
            (None, Some(value)) if !value.is_empty() && fits(&value, MAX_VALUE) => {
                Judgement::Value(value)
            }
            (None, Some(_)) => {
                let message =
                    format!("`value` has 1 to {MAX_VALUE} characters, and no NUL character");
                return refuse("value", message);
            }
            (Some(_), Some(_)) => {
                let message = "`score` and `value` exclude one another";
                return refuse("value", message.to_owned());
            }
            (None, None) => {
                let message = "`score` or `value` is missing";
                return refuse("score", message.to_owned());
            }
        };
        Ok(NewFeedback {
            id,
            key: self.key,
            judgement,
            comment: self.comment,
            created_by,
        })
    }
}

/// Adds a judgement about a run, whether it has ended or not.
///
/// A run may have several judgements, also of one key; none is changed.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/feedback",
    tag = "Runs",
    request_body = GiveFeedback,
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 201, description = "The judgement", body = FeedbackView),
        (status = 400, description = "This is no judgement", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`feedback_full`: the run has 1,000 judgements", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn give_feedback(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsWrite>,
    origin: Origin,
    RunPath(run): RunPath,
    JsonBody(body): JsonBody<GiveFeedback>,
) -> Result<(StatusCode, Json<FeedbackView>), ApiError> {
    let caller = &authorized.caller;
    let id = FeedbackId::new(clock.now());
    let feedback = body.check(id, caller.actor().to_string())?;
    let mut tx = store.tenant(caller.tenant).await?;
    let given = tx.give_feedback(run, &feedback, MOST).await?;
    if let GivenFeedback::Stored(_) = &given {
        let entry = AuditEntry {
            target: Some(format!("run:{run}")),
            detail: Some(format!("{id}: {}", feedback.key)),
            ..origin.entry(caller.actor(), Some(caller.tenant), "feedback.given")
        };
        tx.record_audit(&entry).await?;
    }
    tx.commit().await?;
    match given {
        GivenFeedback::Stored(record) => Ok((StatusCode::CREATED, Json(record.into()))),
        GivenFeedback::NoSuchRun => Err(ApiError::no_such_run()),
        GivenFeedback::Full => {
            let message = format!("the run has {MOST} judgements, the most that it may have");
            Err(ApiError::new(StatusCode::CONFLICT, "feedback_full", message).do_not_retry())
        }
    }
}

/// Lists the judgements about a run, the oldest first.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/feedback",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 200, description = "Its judgements", body = FeedbackList),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn list_feedback(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
) -> Result<Json<FeedbackList>, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let data = feedback_of(&mut tx, run).await?;
    if data.is_empty() && tx.run(run).await?.is_none() {
        return Err(ApiError::no_such_run());
    }
    Ok(Json(FeedbackList {
        data,
        next_cursor: None,
    }))
}

/// Reads the judgements about a run.
pub(super) async fn feedback_of(
    tx: &mut baton_store::TenantTx,
    run: RunId,
) -> Result<Vec<FeedbackView>, ApiError> {
    let records = tx.run_feedback(run).await?;
    Ok(records.into_iter().map(FeedbackView::from).collect())
}
