//! The representation of a run for clients.

use std::collections::BTreeMap;

use baton_admission::{Accepted, CreatedRun};
use baton_protocol::compaction::summary_text;
use baton_protocol::event::BudgetReached;
use baton_protocol::{
    AgentRef, CallFailure, EventId, FinishReason, Lane, MessageId, Outcome, RunError, RunId,
    RunSpec, RunStatus, ThreadId, TurnRoute, Usage,
};
use baton_store::{CallState, RunRecord, StepData, StepRecord};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A run. Lists omit `input`, `output` and `steps`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    id: RunId,
    /// `run`.
    object: &'static str,
    status: RunStatus,
    /// The reason why it completed; null before, and if it did not.
    finish_reason: Option<FinishReason>,
    /// The agent; null for calls that a request made itself.
    agent: Option<AgentRef>,
    /// The upstream's name of the model; null for calls that a request made itself.
    model: Option<String>,
    thread_id: Option<ThreadId>,
    lane: Lane,
    /// The number of times that a worker took it.
    attempt: u32,
    /// The messages that it was submitted with; once it has begun on a thread, after those of the
    /// thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    input: Option<Box<RawValue>>,
    /// The messages that it produced, and those that it was sent while it worked: OpenAI chat
    /// messages, in order. The last has `"status":
    /// "incomplete"` if it was broken off, by a cancel or a failure of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    output: Option<Vec<Box<RawValue>>>,
    /// The tokens of all recorded turns; `estimated` if a turn was broken off before the upstream
    /// had reported its own.
    usage: Usage,
    /// The limit of its own that it waits at; left out while it does not wait at one.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetReached>,
    /// The reason why it failed, or the reason given when it was cancelled.
    error: Option<RunError>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    pub(super) created_at: DateTime<Utc>,
    /// The actor that submitted it: `api_key:<id>`, `user:<id>` or `issuer:<subject>`; null for runs
    /// of versions that did not record it.
    created_by: Option<String>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    /// When a response is removed; left out if it is kept for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
    /// For a cancelled run: the time from the cancel request to the end of all work on it, in
    /// milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_latency_ms: Option<u64>,
    /// The id of its newest recorded event, from which its events can be resumed.
    #[schema(value_type = u64)]
    last_event_id: EventId,
    /// Its steps: one for each model turn and each call of a server-side tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepView>>,
}

/// One step of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub(crate) struct StepView {
    /// Its number, from 1.
    step: u32,
    /// The attempt that recorded it.
    attempt: u32,
    #[serde(flatten)]
    data: StepDataView,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// The content of a step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = StepData)]
pub(crate) enum StepDataView {
    /// One answer of the model.
    Turn {
        /// The reason why the turn ended; null if it was broken off.
        finish_reason: Option<FinishReason>,
        /// The turn's own tokens.
        usage: Usage,
        /// Whether it was broken off, by a cancel or a failure of the upstream.
        incomplete: bool,
        /// The upstream that answered, and those that were left before it; null if the first one answered.
        route: Option<TurnRoute>,
    },
    /// One call of a server-side tool.
    Call {
        /// The call's id, as the model gave it.
        call_id: String,
        /// The tool.
        name: String,
        /// The arguments, as the model wrote them.
        arguments: String,
        /// The arguments that a person approved in their place, as JSON text; left out if nobody did.
        #[serde(skip_serializing_if = "Option::is_none")]
        edited_arguments: Option<String>,
        /// `pending`, `started` or `finished`.
        state: &'static str,
        /// `input` while its server waits for an answer of a person, `task` while its server goes on with it by
        /// itself and is asked for the result from time to time; left out otherwise.
        #[serde(skip_serializing_if = "Option::is_none")]
        waits_for: Option<&'static str>,
        /// Whether the tool succeeded; null before it is finished.
        ok: Option<bool>,
        /// Why it failed; null if it succeeded, and if a person decided its result.
        failure: Option<CallFailure>,
        /// The duration of the call, in milliseconds.
        duration_ms: Option<u64>,
    },
    /// A summary of the conversation, which the model reads in place of it from then on.
    Compaction {
        /// The tokens of making it.
        usage: Usage,
        /// The summary.
        summary: String,
        /// The upstream that answered, and those that were left before it; null if the first one answered.
        route: Option<TurnRoute>,
    },
    /// A message that a client sent to the run while it worked.
    Input {
        /// The message.
        message_id: MessageId,
    },
}

impl RunView {
    /// Returns a run for a list.
    pub(crate) fn in_list(run: RunRecord) -> Self {
        Self::new(run, None, None, None)
    }

    /// Returns a run as seen by the transaction that accepted it or found it accepted. An
    /// idempotent replay is shown as in a list.
    pub(crate) fn accepted(accepted: Accepted) -> Self {
        let created = match accepted {
            Accepted::Replay(run) | Accepted::Steered(run) => return Self::in_list(*run),
            Accepted::Created(created) => *created,
        };
        let CreatedRun {
            id,
            thread_id,
            lane,
            spec,
            metadata,
            created_by,
            created_at,
            cancelled: _,
            title_model: _,
        } = created;
        Self {
            id,
            object: "run",
            status: RunStatus::Queued,
            finish_reason: None,
            agent: named(spec.agent),
            model: Some(spec.model).filter(|model| !model.is_empty()),
            thread_id,
            lane,
            attempt: 0,
            input: Some(spec.messages),
            output: Some(Vec::new()),
            usage: Usage::default(),
            budget: None,
            error: None,
            metadata,
            created_at,
            created_by: Some(created_by),
            started_at: None,
            finished_at: None,
            expires_at: None,
            cancel_latency_ms: None,
            last_event_id: EventId::ORIGIN,
            steps: Some(Vec::new()),
        }
    }

    /// Returns a run with all its parts.
    pub(crate) fn whole(
        run: RunRecord,
        output: Vec<Box<RawValue>>,
        steps: Vec<StepRecord>,
        mut routes: BTreeMap<u32, TurnRoute>,
        budget: Option<BudgetReached>,
    ) -> Result<Self, serde_json::Error> {
        let spec: RunSpec = serde_json::from_str(&run.spec_json)?;
        let mut output = output;
        for cut in steps.iter().filter_map(|step| step.cut_message.as_deref()) {
            output.push(incomplete(cut)?);
        }
        let steps = steps.into_iter().map(|step| {
            let route = routes.remove(&step.step);
            StepView::new(step, route)
        });
        let steps = steps.collect();
        let shown = Self::new(run, Some(spec.messages), Some(output), Some(steps));
        Ok(Self { budget, ..shown })
    }

    fn new(
        run: RunRecord,
        input: Option<Box<RawValue>>,
        output: Option<Vec<Box<RawValue>>>,
        steps: Option<Vec<StepView>>,
    ) -> Self {
        let (finish_reason, error) = match run.outcome {
            None => (None, None),
            Some(Outcome::Completed(reason)) => (Some(reason), None),
            Some(Outcome::Failed(error)) => (None, Some(error)),
            Some(Outcome::Cancelled(reason)) => (
                None,
                Some(RunError {
                    code: "cancelled".to_owned(),
                    message: reason,
                    upstream: None,
                }),
            ),
        };
        Self {
            id: run.id,
            object: "run",
            status: run.status,
            finish_reason,
            agent: named(run.agent),
            model: Some(run.model).filter(|model| !model.is_empty()),
            thread_id: run.thread_id,
            lane: run.lane,
            attempt: run.attempt,
            input,
            output,
            usage: run.usage,
            budget: None,
            error,
            metadata: run.metadata,
            created_at: run.created_at,
            created_by: run.created_by,
            started_at: run.started_at,
            finished_at: run.finished_at,
            expires_at: run.expires_at,
            cancel_latency_ms: run
                .cancel_latency
                .map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)),
            last_event_id: run.last_event_id,
            steps,
        }
    }

    /// Returns whether the run has ended.
    pub(crate) fn is_terminal(&self) -> bool {
        self.status.is_terminal()
    }
}

/// Returns the agent of a run that has one.
fn named(agent: AgentRef) -> Option<AgentRef> {
    Some(agent).filter(|agent| !agent.name.is_empty())
}

/// Returns the received part of a message, marked as incomplete.
fn incomplete(message: &RawValue) -> Result<Box<RawValue>, serde_json::Error> {
    let mut message: Map<String, Value> = serde_json::from_str(message.get())?;
    message.insert("status".to_owned(), "incomplete".into());
    serde_json::value::to_raw_value(&message)
}

impl StepView {
    fn new(step: StepRecord, route: Option<TurnRoute>) -> Self {
        let data = match step.data {
            StepData::Turn {
                finish_reason,
                usage,
            } => StepDataView::Turn {
                finish_reason: Some(finish_reason),
                usage,
                incomplete: false,
                route,
            },
            StepData::CutTurn { usage } => StepDataView::Turn {
                finish_reason: None,
                usage,
                incomplete: true,
                route,
            },
            StepData::Compaction { usage } => StepDataView::Compaction {
                usage,
                summary: step
                    .message
                    .as_deref()
                    .map(summary_text)
                    .unwrap_or_default(),
                route,
            },
            StepData::Input { id, .. } => StepDataView::Input { message_id: id },
            StepData::Call {
                call_id,
                name,
                arguments,
                edited_arguments,
                effect: _,
                state,
                paused,
            } => {
                let waits_for = paused.and_then(|paused| match paused.pause.asked() {
                    Some(_) => paused.given.is_none().then_some("input"),
                    None => paused.pause.task().map(|_| "task"),
                });
                let (state, ok, failure, duration_ms) = match state {
                    CallState::Pending { decision: _ } => ("pending", None, None, None),
                    CallState::Started { decision: _ } => ("started", None, None, None),
                    CallState::Finished {
                        ok,
                        failure,
                        duration_ms,
                    } => ("finished", Some(ok), failure, Some(duration_ms)),
                };
                StepDataView::Call {
                    call_id,
                    name,
                    arguments,
                    edited_arguments,
                    state,
                    waits_for,
                    ok,
                    failure,
                    duration_ms,
                }
            }
        };
        Self {
            step: step.step,
            attempt: step.attempt,
            data,
            created_at: step.created_at,
            finished_at: step.finished_at,
        }
    }
}

/// Runs, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunList {
    /// A page of them.
    pub(crate) data: Vec<RunView>,
    /// `?cursor=` of the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}
