//! What executing a tool twice would mean.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tool's declared effect: it decides what happens to a call that was started and whose result
/// was never recorded, because its worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Computes, and changes nothing: it is simply executed again.
    Pure,
    /// Changes something outside, and recognises its idempotency key: executed again with the same
    /// key.
    Idempotent,
    /// Changes something outside and cannot recognise a repetition: the run parks until a person
    /// says what happened.
    AtMostOnce,
}

impl Effect {
    /// Whether a call without a recorded result may be executed again.
    pub const fn may_repeat(self) -> bool {
        match self {
            Self::Pure | Self::Idempotent => true,
            Self::AtMostOnce => false,
        }
    }

    /// The name stored in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Idempotent => "idempotent",
            Self::AtMostOnce => "at_most_once",
        }
    }
}
