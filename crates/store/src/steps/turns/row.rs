//! The values of a recorded turn, in the form in which both statements write them.

use baton_protocol::{Charge, Fence, TenantId, Usage};

use crate::columns;
use crate::steps::{NewCall, TurnCommit, TurnTimes};

/// A turn that a statement records. It owns its values, because a group outlives its callers.
#[derive(Debug)]
pub(crate) struct TurnCommitRow {
    pub(super) fence: Fence,
    pub(super) step: u32,
    pub(super) message: String,
    pub(super) answer_fields: Option<String>,
    pub(super) charged_model: Option<String>,
    pub(super) usage: Usage,
    pub(super) charge: Charge,
    pub(super) times: TurnTimes,
    pub(super) usage_total: Usage,
    pub(super) finish_reason: &'static str,
    pub(super) last_event_id: u64,
    pub(super) calls: Vec<NewCall>,
    pub(super) inputs_step: Option<u32>,
}

impl TurnCommitRow {
    pub(super) fn new(fence: &Fence, turn: &TurnCommit<'_>) -> Self {
        let text = |given: &str| columns::text(given).into_owned();
        let calls = turn.calls.iter().map(|call| NewCall {
            step: call.step,
            call_id: text(&call.call_id),
            name: text(&call.name),
            arguments: text(&call.arguments),
            effect: call.effect,
        });
        Self {
            fence: *fence,
            step: turn.step,
            message: turn.message.to_owned(),
            answer_fields: turn.answer_fields.map(str::to_owned),
            charged_model: columns::optional_text(turn.charged_model),
            usage: turn.usage,
            charge: turn.charge,
            times: turn.times,
            usage_total: turn.usage_total,
            finish_reason: turn.finish_reason.as_str(),
            last_event_id: turn.last_event_id.as_u64(),
            calls: calls.collect(),
            inputs_step: turn.inputs_step,
        }
    }

    pub(crate) const fn tenant(&self) -> TenantId {
        self.fence.tenant
    }

    /// Returns the bytes of its long texts.
    pub(crate) fn bytes(&self) -> usize {
        let fields = self.answer_fields.as_ref().map_or(0, String::len);
        let calls = self.calls.iter().map(|call| call.arguments.len());
        self.message.len() + fields + calls.sum::<usize>()
    }
}
