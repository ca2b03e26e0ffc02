//! The values of a call's result, in the form in which both statements write them.

use baton_protocol::{CallFailure, Fence, TenantId};

use crate::steps::CallCommit;

/// A result that a statement records. It owns its values, because a group outlives its callers.
#[derive(Debug)]
pub(crate) struct CallCommitRow {
    pub(super) fence: Fence,
    pub(super) step: u32,
    pub(super) ok: bool,
    pub(super) failure: Option<&'static str>,
    pub(super) message: String,
    pub(super) duration_ms: u64,
    pub(super) last_event_id: u64,
    pub(super) started_event_id: u64,
    pub(super) inputs_step: Option<u32>,
}

impl CallCommitRow {
    pub(super) fn new(fence: &Fence, call: &CallCommit<'_>) -> Self {
        Self {
            fence: *fence,
            step: call.step,
            ok: call.ok,
            failure: call.failure.map(CallFailure::as_str),
            message: call.message.to_owned(),
            duration_ms: call.duration_ms,
            last_event_id: call.last_event_id.as_u64(),
            started_event_id: call.started_event_id.as_u64(),
            inputs_step: call.inputs_step,
        }
    }

    pub(crate) const fn tenant(&self) -> TenantId {
        self.fence.tenant
    }

    /// Returns the bytes of its message.
    pub(crate) const fn bytes(&self) -> usize {
        self.message.len()
    }
}
