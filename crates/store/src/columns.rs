//! Conversions between the protocol's types and columns.

use std::borrow::Cow;
use std::time::Duration;

use baton_protocol::{
    ApprovalReason, ApprovalScope, CallFailure, Decision, Effect, EventId, FinishReason, Lane,
    Outcome, RequestedInput, Role, RunError, RunStatus, Usage,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::errors::StoreError;

/// Converts a count or a step number. These stay far below 2^31; a greater one becomes the maximum.
pub(crate) fn int4(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Converts a number; see [`int4`].
pub(crate) fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a stored count.
pub(crate) fn count(stored: i32) -> u32 {
    u32::try_from(stored).unwrap_or(0)
}

/// Reads a stored number.
pub(crate) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// Reads a stored event id.
pub(crate) fn event_id(stored: i64) -> EventId {
    EventId::from_u64(number(stored))
}

/// Removes NUL characters, because PostgreSQL takes none and a model or an upstream may write one.
pub(crate) fn text(given: &str) -> Cow<'_, str> {
    if given.contains('\0') {
        Cow::Owned(given.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(given)
    }
}

/// As [`text`], for an optional text.
pub(crate) fn optional_text(given: Option<&str>) -> Option<String> {
    given.map(|given| text(given).into_owned())
}

/// Reads a stored JSON text.
pub(crate) fn json(column: &'static str, stored: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(stored)
        .map_err(|error| StoreError::unreadable(column, &error.to_string()))
}

pub(crate) fn status(stored: &str) -> Result<RunStatus, StoreError> {
    stored
        .parse()
        .map_err(|_| StoreError::unreadable("runs.status", stored))
}

pub(crate) fn lane(stored: &str) -> Result<Lane, StoreError> {
    stored
        .parse()
        .map_err(|_| StoreError::unreadable("runs.lane", stored))
}

pub(crate) fn finish_reason(
    column: &'static str,
    stored: &str,
) -> Result<FinishReason, StoreError> {
    FinishReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == stored)
        .ok_or_else(|| StoreError::unreadable(column, stored))
}

pub(crate) fn effect(stored: &str) -> Result<Effect, StoreError> {
    [Effect::Pure, Effect::Idempotent, Effect::AtMostOnce]
        .into_iter()
        .find(|effect| effect.as_str() == stored)
        .ok_or_else(|| StoreError::unreadable("steps.effect", stored))
}

pub(crate) fn failure(stored: &str) -> Result<CallFailure, StoreError> {
    CallFailure::ALL
        .into_iter()
        .find(|failure| failure.as_str() == stored)
        .ok_or_else(|| StoreError::unreadable("steps.failure", stored))
}

pub(crate) fn approval_reason(stored: &str) -> Result<ApprovalReason, StoreError> {
    ApprovalReason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == stored)
        .ok_or_else(|| StoreError::unreadable("approvals.reason", stored))
}

/// Reads a decision from its three columns of `approvals`; `None` if they are NULL.
pub(crate) fn decision(
    name: Option<String>,
    answer: Option<String>,
    arguments: Option<&str>,
    scope: ApprovalScope,
) -> Result<Option<Decision>, StoreError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let arguments = arguments
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| StoreError::unreadable("approvals.arguments", &error.to_string()))?;
    Decision::from_parts(&name, answer, arguments, scope)
        .map(Some)
        .ok_or_else(|| StoreError::unreadable("approvals.decision", &name))
}

/// Reads the input that a question asks for.
pub(crate) fn requested_input(json: Option<&str>) -> Result<Option<RequestedInput>, StoreError> {
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| StoreError::unreadable("approvals.input", &error.to_string()))
}

/// Returns the scope of an approval with this grant.
pub(crate) const fn scope(granted: bool, thread: Option<Uuid>) -> ApprovalScope {
    match (granted, thread) {
        (false, _) => ApprovalScope::Once,
        (true, None) => ApprovalScope::Run,
        (true, Some(_)) => ApprovalScope::Thread,
    }
}

pub(crate) fn role(stored: &str) -> Result<Role, StoreError> {
    stored
        .parse()
        .map_err(|_| StoreError::unreadable("memberships.role", stored))
}

pub(crate) fn usage(prompt: i64, completion: i64, total: i64) -> Usage {
    Usage {
        prompt_tokens: number(prompt),
        completion_tokens: number(completion),
        total_tokens: number(total),
        estimated: false,
    }
}

/// As [`usage`], for a row that also says whether the numbers are estimated.
pub(crate) fn usage_or_guess(prompt: i64, completion: i64, total: i64, estimated: bool) -> Usage {
    Usage {
        estimated,
        ..usage(prompt, completion, total)
    }
}

/// Converts the seconds that a cancelled run took to stop, as PostgreSQL computes them.
pub(crate) fn latency(seconds: Option<f64>) -> Option<Duration> {
    // The difference can be negative, because the clock may have been set back between the
    // readings.
    seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// A run's outcome in its five columns of `runs`.
pub(crate) struct OutcomeColumns {
    pub(crate) finish_reason: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) error_upstream: Option<String>,
    pub(crate) cancel_reason: Option<String>,
}

impl OutcomeColumns {
    /// Reads the outcome of a run in `status`; `None` while the run has not ended.
    pub(crate) fn read(self, status: RunStatus) -> Result<Option<Outcome>, StoreError> {
        Ok(match status {
            RunStatus::Queued | RunStatus::Running | RunStatus::AwaitingApproval => None,
            RunStatus::Completed => Some(Outcome::Completed(finish_reason(
                "runs.finish_reason",
                self.finish_reason.as_deref().unwrap_or_default(),
            )?)),
            RunStatus::Failed => Some(Outcome::Failed(RunError {
                code: self.error_code.unwrap_or_default(),
                message: self.error_message.unwrap_or_default(),
                upstream: self
                    .error_upstream
                    .map(|json| {
                        let read = serde_json::from_str(&json);
                        read.map_err(|_| StoreError::unreadable("runs.error_upstream", &json))
                    })
                    .transpose()?,
            })),
            RunStatus::Cancelled => {
                Some(Outcome::Cancelled(self.cancel_reason.unwrap_or_default()))
            }
        })
    }
}
