//! `GET /v1/runs/{id}/timeline`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_protocol::{
    ApprovalId, ApprovalReason, FinishReason, Lane, RunId, RunStatus, TurnRoute, Usage, WorkerId,
};
use baton_store::{AttemptEnding, Store, Timeline, TimelineData, TimelineEntry};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::path::RunPath;
use crate::access::{Authorized, RunsRead};
use crate::error::{ApiError, Problem, run_header};

/// The timeline of a run: its waits, attempts, model turns and tool calls, with their times. It has no
/// content of messages, arguments or results.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timeline)]
pub(crate) struct TimelineView {
    run_id: RunId,
    /// `run.timeline`.
    object: &'static str,
    status: RunStatus,
    /// The error code of a failed run; else null.
    error_code: Option<String>,
    /// The id of the run's trace; null if it has none.
    trace_id: Option<String>,
    /// The entries, by the time at which they began.
    data: Vec<EntryView>,
}

/// A stretch of a run's time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimelineEntry)]
pub(crate) struct EntryView {
    /// When it began, by the database's clock. For a call that has not begun: when the model asked for it.
    began_at: DateTime<Utc>,
    /// When it ended; null if it goes on. A turn and a call end when they are committed.
    ended_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    data: DataView,
}

/// The kinds of entries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = TimelineData)]
pub(crate) enum DataView {
    /// The run waited for a worker.
    Queued {
        /// The lane that it waited in.
        lane: Lane,
    },
    /// A worker held the run.
    Attempt {
        /// Its number.
        attempt: u32,
        /// The worker, as its logs call it; null if it was not recorded.
        worker_id: Option<WorkerId>,
        /// Why it ended: `completed`, `failed`, `cancelled`, `handed_over`, `parked`, `awaits_budget`,
        /// `lease_expired` or `worker_lost`. Null if it goes on, and if the reason was not recorded.
        ending: Option<&'static str>,
    },
    /// The model answered.
    Turn {
        /// Its place in the run's steps.
        step: u32,
        /// The attempt that recorded it.
        attempt: u32,
        /// The model that is charged.
        model: Option<String>,
        /// When its first output came.
        first_token_at: Option<DateTime<Utc>>,
        /// Why the turn ended; null if it was broken off.
        finish_reason: Option<FinishReason>,
        /// Its tokens.
        usage: Usage,
        /// Tokens of its prompt that the upstream had read before.
        cached_tokens: u64,
        /// Its cost, an exact decimal number in the currency of the prices; null if the model has no price.
        #[schema(example = "0.0125")]
        cost: Option<String>,
        /// The upstream that answered, and those that were left before it; null if the first one answered.
        route: Option<TurnRoute>,
    },
    /// The model summarised the conversation.
    Compaction {
        /// Its place in the run's steps.
        step: u32,
        /// The attempt that recorded it.
        attempt: u32,
        /// The model that is charged.
        model: Option<String>,
        /// Its tokens.
        usage: Usage,
        /// Its cost, an exact decimal number in the currency of the prices; null if the model has no price.
        #[schema(example = "0.0125")]
        cost: Option<String>,
        /// The upstream that answered, and those that were left before it; null if the first one answered.
        route: Option<TurnRoute>,
    },
    /// A server-side tool was called.
    Call {
        /// Its place in the run's steps.
        step: u32,
        /// The attempt that wrote it last.
        attempt: u32,
        /// The call's id, as the model gave it.
        call_id: String,
        /// The tool.
        name: String,
        /// `pending`, `started` or `finished`.
        state: &'static str,
        /// Whether the tool did what it was asked; null before its result.
        ok: Option<bool>,
    },
    /// A call waited for a person.
    Approval {
        /// The question's id.
        approval_id: ApprovalId,
        /// The call's place in the run's steps.
        step: u32,
        /// The reason for asking a person.
        reason: ApprovalReason,
        /// `approve`, `reject`, `retry`, `result` or `fail`; null before the decision.
        decision: Option<&'static str>,
        /// Whether the person approved other arguments than the model's.
        edited: bool,
    },
    /// Somebody asked for the run to be cancelled.
    Cancel {
        /// The reason that was given.
        reason: String,
    },
}

impl From<TimelineData> for DataView {
    fn from(data: TimelineData) -> Self {
        match data {
            TimelineData::Queued { lane } => Self::Queued { lane },
            TimelineData::Attempt {
                attempt,
                worker,
                ending,
            } => Self::Attempt {
                attempt,
                worker_id: worker,
                ending: ending.map(AttemptEnding::as_str),
            },
            TimelineData::Turn {
                step,
                attempt,
                model,
                first_token_at,
                finish_reason,
                usage,
                cached_tokens,
                cost,
                route,
            } => Self::Turn {
                step,
                attempt,
                model,
                first_token_at,
                finish_reason,
                usage,
                cached_tokens,
                cost: cost.map(|cost| cost.to_string()),
                route,
            },
            TimelineData::Compaction {
                step,
                attempt,
                model,
                usage,
                cost,
                route,
            } => Self::Compaction {
                step,
                attempt,
                model,
                usage,
                cost: cost.map(|cost| cost.to_string()),
                route,
            },
            TimelineData::Call {
                step,
                attempt,
                call_id,
                name,
                state,
                ok,
            } => Self::Call {
                step,
                attempt,
                call_id,
                name,
                state: state.as_str(),
                ok,
            },
            TimelineData::Approval {
                id,
                step,
                reason,
                decision,
                edited,
            } => Self::Approval {
                approval_id: id,
                step,
                reason,
                decision,
                edited,
            },
            TimelineData::Cancel { reason } => Self::Cancel { reason },
        }
    }
}

impl From<TimelineEntry> for EntryView {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            began_at: entry.began_at,
            ended_at: entry.ended_at,
            data: entry.data.into(),
        }
    }
}

impl From<Timeline> for TimelineView {
    fn from(timeline: Timeline) -> Self {
        Self {
            run_id: timeline.run,
            object: "run.timeline",
            status: timeline.status,
            trace_id: timeline.trace_id().map(str::to_owned),
            error_code: timeline.error_code,
            data: timeline.entries.into_iter().map(EntryView::from).collect(),
        }
    }
}

/// The timeline of a run, from the ledger alone: the same on every ingress, and for as long as the run is kept.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/timeline",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 200, description = "Its entries, by the time at which they began", body = TimelineView),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn read_timeline(
    State(store): State<Store>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
) -> Result<Response, ApiError> {
    let mut tx = store.tenant(authorized.caller.tenant).await?;
    let timeline = tx.timeline(run).await?.ok_or_else(ApiError::no_such_run)?;
    Ok((run_header(run), Json(TimelineView::from(timeline))).into_response())
}
