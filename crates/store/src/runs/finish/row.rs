//! The values that end a run, in the form in which both statements write them.

use baton_protocol::{Charge, Fence, Outcome, TenantId, Usage};
use uuid::Uuid;

use crate::columns;
use crate::runs::finish::FinishCommit;
use crate::steps::TurnTimes;

/// An ending that a statement writes. It owns its values, because a group outlives its callers.
#[derive(Debug)]
pub(crate) struct FinishRow {
    pub(super) fence: Fence,
    pub(super) status: &'static str,
    pub(super) finish_reason: Option<&'static str>,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) error_upstream: Option<String>,
    pub(super) cancel_reason: Option<String>,
    pub(super) last_event_id: u64,
    pub(super) usage_total: Usage,
    pub(super) turn: Option<TurnRow>,
    pub(super) unless_inputs_wait: bool,
}

/// The last turn, whole or broken off.
#[derive(Debug)]
pub(super) struct TurnRow {
    pub(super) step: u32,
    pub(super) message: String,
    pub(super) answer_fields: Option<String>,
    pub(super) charged_model: Option<String>,
    pub(super) usage: Usage,
    pub(super) charge: Charge,
    pub(super) times: TurnTimes,
    /// The reason why a whole turn ended; `None` for one that was broken off.
    pub(super) finish_reason: Option<&'static str>,
    pub(super) last_event_id: u64,
}

/// The columns of an ended run that its caller needs.
#[derive(Debug)]
pub(crate) struct EndedRow {
    pub(super) thread_id: Option<Uuid>,
    /// The seconds from the cancel request to the end of a cancelled run.
    pub(super) cancel_seconds: Option<f64>,
}

impl FinishRow {
    pub(super) fn new(fence: &Fence, finish: &FinishCommit<'_>) -> Self {
        let text = |given: &str| Some(columns::text(given).into_owned());
        let mut row = Self {
            fence: *fence,
            status: finish.outcome.status().as_str(),
            finish_reason: None,
            error_code: None,
            error_message: None,
            error_upstream: None,
            cancel_reason: None,
            last_event_id: finish.last_event_id.as_u64(),
            usage_total: finish.usage_total,
            turn: TurnRow::new(finish),
            unless_inputs_wait: finish.unless_inputs_wait,
        };
        match finish.outcome {
            Outcome::Completed(reason) => row.finish_reason = Some(reason.as_str()),
            Outcome::Failed(error) => {
                row.error_code = text(&error.code);
                row.error_message = text(&error.message);
                row.error_upstream = error.upstream.as_ref().and_then(|upstream| {
                    // Two texts and a number can always be written as JSON, which escapes a NUL.
                    serde_json::to_string(upstream).ok()
                });
            }
            Outcome::Cancelled(reason) => row.cancel_reason = text(reason),
        }
        row
    }

    pub(crate) const fn tenant(&self) -> TenantId {
        self.fence.tenant
    }

    /// Returns the bytes of its long texts.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.error_message, &self.error_upstream];
        let turn = self.turn.as_ref().map_or(0, |turn| {
            turn.message.len() + turn.answer_fields.as_ref().map_or(0, String::len)
        });
        texts.into_iter().flatten().map(String::len).sum::<usize>() + turn
    }
}

impl TurnRow {
    fn new(finish: &FinishCommit<'_>) -> Option<Self> {
        if let Some(turn) = &finish.turn {
            return Some(Self {
                step: turn.step,
                message: turn.message.to_owned(),
                answer_fields: turn.answer_fields.map(str::to_owned),
                charged_model: columns::optional_text(turn.charged_model),
                usage: turn.usage,
                charge: turn.charge,
                times: turn.times,
                finish_reason: Some(turn.finish_reason.as_str()),
                last_event_id: turn.last_event_id.as_u64(),
            });
        }
        finish.cut.as_ref().map(|cut| Self {
            step: cut.step,
            message: cut.message.to_owned(),
            answer_fields: cut.answer_fields.map(str::to_owned),
            charged_model: columns::optional_text(cut.charged_model),
            usage: cut.usage,
            charge: cut.charge,
            times: cut.times,
            finish_reason: None,
            last_event_id: cut.last_event_id.as_u64(),
        })
    }
}
