//! A response as the ledger has it.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use baton_openai::AnswerFields;
use baton_protocol::{Event, EventId, FinishReason, Outcome, RunId, RunSpec, RunStatus, TenantId};
use baton_responses::{
    Item, RecordedStep, ResponseHead, Settings, Snapshot, Status, StepSource, UsageObject,
    output_items, usage_object,
};
use baton_run_log::replay::{ReplayError, replay};
use baton_store::{ApprovalRecord, CallState, RunRecord, StepData, StepRecord, Store};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::approvals::open_questions;
use super::path::{not_a_response, not_found, not_kept};
use super::seal::sealed_steps;
use crate::error::{ApiError, run_header};

/// A run of `/v1/responses`, with its steps.
pub(super) struct ResponseRecord {
    pub(super) run: RunRecord,
    pub(super) spec: RunSpec,
    pub(super) head: ResponseHead,
    steps: Vec<StepRecord>,
    /// The steps of the calls that it waits for answers about, and the time of the questions. Empty if it waits
    /// for another decision.
    asked: (Vec<u32>, Option<DateTime<Utc>>),
    /// Its sealed summaries, by their steps.
    sealed: BTreeMap<u32, String>,
}

/// Returns the part of a response that does not change.
pub(super) fn head(
    run: RunId,
    created_at: DateTime<Utc>,
    spec: &RunSpec,
    metadata: Option<Box<RawValue>>,
) -> Result<ResponseHead, ApiError> {
    let settings = spec.response.as_deref();
    let settings = settings.ok_or_else(|| not_a_response(run))?;
    let settings: Settings =
        serde_json::from_str(settings.get()).map_err(|error| ApiError::internal(&error))?;
    Ok(ResponseHead {
        run,
        created_at: created_at.timestamp(),
        model: spec.model.clone(),
        settings,
        metadata,
    })
}

/// As [`head`], from the run's record.
pub(super) fn recorded_head(run: &RunRecord) -> Result<ResponseHead, ApiError> {
    let spec: RunSpec =
        serde_json::from_str(&run.spec_json).map_err(|error| ApiError::internal(&error))?;
    head(run.id, run.created_at, &spec, run.metadata.clone())
}

impl ResponseRecord {
    /// Reads a response in one transaction.
    pub(super) async fn load(
        store: &Store,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Self, ApiError> {
        let mut tx = store.tenant(tenant).await?;
        let record = tx.run(run).await?;
        let record = record.ok_or_else(|| not_found("there is no response with this id"))?;
        let steps = tx.run_steps(run).await?;
        let asked = match record.status {
            RunStatus::AwaitingApproval => tx.run_approvals(run).await?,
            _ => Vec::new(),
        };
        drop(tx);
        let sealed = sealed_steps(store, tenant, run, &steps).await?;
        Self::of(record, steps, &asked, sealed)
    }

    /// As [`Self::load`], for a client that reads it after its request.
    pub(super) async fn load_kept(
        store: &Store,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Self, ApiError> {
        let record = Self::load(store, tenant, run).await?;
        if record.head.settings.store {
            Ok(record)
        } else {
            Err(not_kept())
        }
    }

    fn of(
        run: RunRecord,
        steps: Vec<StepRecord>,
        asked: &[ApprovalRecord],
        sealed: BTreeMap<u32, String>,
    ) -> Result<Self, ApiError> {
        let spec: RunSpec =
            serde_json::from_str(&run.spec_json).map_err(|error| ApiError::internal(&error))?;
        let head = head(run.id, run.created_at, &spec, run.metadata.clone())?;
        let open = open_questions(&run, &head.settings, asked);
        let asked_at = open.iter().map(|asked| asked.created_at).max();
        let asked = (open.iter().map(|asked| asked.step).collect(), asked_at);
        Ok(Self {
            run,
            spec,
            head,
            steps,
            asked,
            sealed,
        })
    }

    /// Returns the events of a run that has ended, as the ledger has them.
    pub(super) fn events(&self) -> Result<Vec<Event>, ReplayError> {
        replay(&self.run, &self.steps, EventId::ORIGIN)
    }

    /// Whether it has ended for its client, with approval requests.
    pub(super) fn is_asking(&self) -> bool {
        !self.asked.0.is_empty()
    }

    /// Whether a call without a result is an approval request: one that waits, or that waited when answers ended
    /// the run.
    fn is_question(&self, step: &StepRecord, name: &str) -> bool {
        let tools = &self.head.settings.mcp_tools;
        let is_answered = self.run.outcome == Some(Outcome::Completed(FinishReason::ToolCalls))
            && tools.iter().any(|tool| tool.offered == name);
        step.is_open_call() && (is_answered || self.asked.0.contains(&step.step))
    }

    /// Whether a step of it is recorded: it has cost something.
    pub(super) fn has_worked(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Returns the items that are recorded so far.
    pub(super) fn output(&self) -> Result<Vec<Item>, ApiError> {
        let steps = self.steps.iter().filter_map(|step| self.recorded(step));
        let steps: Vec<_> = steps.collect();
        output_items(
            self.run.id,
            &steps,
            &self.spec.client_tools(),
            &self.head.settings,
        )
        .map_err(|error| ApiError::internal(&error))
    }

    /// Returns the sealed summary of a step; `None` if it made none.
    pub(super) fn sealed(&self, step: u32) -> Option<&str> {
        self.sealed.get(&step).map(String::as_str)
    }

    /// Returns a step that has items; `None` for a message that a client sent to the run.
    fn recorded<'a>(&'a self, step: &'a StepRecord) -> Option<RecordedStep<'a>> {
        let (source, message) = match &step.data {
            StepData::Turn { finish_reason, .. } => {
                (StepSource::Turn(*finish_reason), step.message.as_deref())
            }
            StepData::CutTurn { .. } => (StepSource::CutTurn, step.cut_message.as_deref()),
            StepData::Call {
                name, arguments, ..
            } if self.is_question(step, name) => (StepSource::Question { name, arguments }, None),
            StepData::Call {
                call_id,
                name,
                arguments,
                edited_arguments,
                state,
                ..
            } => {
                let call = StepSource::Call {
                    call_id,
                    name,
                    arguments: edited_arguments.as_ref().unwrap_or(arguments),
                    ok: matches!(state, CallState::Finished { ok: true, .. }),
                };
                (call, step.message.as_deref())
            }
            StepData::Compaction { .. } => (StepSource::Compaction(self.sealed(step.step)?), None),
            StepData::Input { .. } => return None,
        };
        Some(RecordedStep {
            step: step.step,
            source,
            message,
        })
    }

    /// Returns the tokens of a run that has ended; `None` if it used none.
    pub(super) fn usage(&self) -> Result<Option<UsageObject>, ApiError> {
        let mut counts = AnswerFields::default();
        for fields in self
            .steps
            .iter()
            .filter_map(|step| step.answer_fields.as_ref())
        {
            let fields: AnswerFields =
                serde_json::from_str(fields.get()).map_err(|error| ApiError::internal(&error))?;
            counts.extend(fields);
        }
        let usage = self.run.usage;
        let is_counted = self.run.outcome.is_some() || self.is_asking();
        Ok((is_counted && !usage.is_zero()).then(|| usage_object(usage, &counts.usage)))
    }

    /// Returns the response object as the answer of a request.
    pub(super) fn answer(&self) -> Result<Response, ApiError> {
        let output = self.output()?;
        let record = &self.run;
        let snapshot = Snapshot {
            status: if self.is_asking() {
                Status::Completed
            } else {
                let background = self.head.settings.background;
                Status::of_run(record.status, record.outcome.as_ref(), background)
            },
            ended_at: record.finished_at.or(self.asked.1).map(|at| at.timestamp()),
            output: &output,
            usage: self.usage()?,
        };
        Ok(answer(&self.head, &snapshot))
    }
}

/// Writes a response object as the answer of a request.
pub(super) fn answer(head: &ResponseHead, snapshot: &Snapshot<'_>) -> Response {
    (run_header(head.run), Json(head.object(snapshot))).into_response()
}
