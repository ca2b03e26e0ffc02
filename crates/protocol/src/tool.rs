//! The effects of tools, and whether a call may be repeated.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tool's declared effect. It decides about a call that was begun but has no recorded result,
/// because its worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It computes, and changes nothing: the call is repeated.
    Pure,
    /// It changes something outside, and recognises its idempotency key: the call is repeated with
    /// the same key.
    Idempotent,
    /// It changes something outside and cannot recognise a repetition: the run parks until a person
    /// decides.
    AtMostOnce,
}

impl Effect {
    /// Returns whether a call without a recorded result may be repeated.
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
