//! The results of calls for clients.

use baton_protocol::{CallFailure, RunId};
use baton_store::{CallState, StepData, StepRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The result of one call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolResult)]
pub(crate) struct ResultView {
    /// The tool.
    pub(super) name: String,
    /// Whether the tool succeeded; null if the call was not made.
    pub(super) ok: Option<bool>,
    /// Why it failed; null if it succeeded, and if a person decided its result.
    pub(super) failure: Option<CallFailure>,
    /// The text of the result, or of the error; null if the call was not made.
    pub(super) result: Option<String>,
    /// The duration of the call, in milliseconds.
    pub(super) duration_ms: Option<u64>,
}

/// The answer to a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolExecution)]
pub(crate) struct ExecutionView {
    /// The run that the call was.
    pub(super) run_id: RunId,
    #[serde(flatten)]
    pub(super) result: ResultView,
}

/// The answer to several calls.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolExecutions)]
pub(crate) struct ExecutionsView {
    /// The run that the calls were.
    pub(super) run_id: RunId,
    /// The results, in the order of the calls.
    pub(super) data: Vec<ResultView>,
}

/// The run of calls that have not ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolExecutionPending)]
pub(crate) struct PendingView {
    /// The run: `GET /v1/runs/{id}` shows its steps.
    pub(super) run_id: RunId,
}

/// The text of a tool's message.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: String,
}

impl ResultView {
    /// Returns the result of a step; `None` for one that is no call.
    pub(super) fn of(step: StepRecord) -> Option<Self> {
        let StepData::Call { name, state, .. } = step.data else {
            return None;
        };
        let said = step.message.as_deref();
        let said = said.and_then(|message| serde_json::from_str::<Said>(message.get()).ok());
        let (ok, failure, duration_ms) = match state {
            CallState::Finished {
                ok,
                failure,
                duration_ms,
            } => (Some(ok), failure, Some(duration_ms)),
            CallState::Pending { .. } | CallState::Started { .. } => (None, None, None),
        };
        Some(Self {
            name,
            ok,
            failure,
            result: said.map(|said| said.content),
            duration_ms,
        })
    }
}
