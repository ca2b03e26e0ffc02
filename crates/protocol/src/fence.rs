//! The fencing token of one attempt.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{RunId, TenantId};

/// Drawn at random for each claim. It guards the claim's commits beside the attempt number, so
/// that two attempts which were given one number (by a database that lost its tail in a failover)
/// cannot both commit, and so that a claim whose answer was lost can be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimToken(Uuid);

impl ClaimToken {
    /// A token of the given 128 random bits.
    pub const fn from_random(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The UUID to store.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

/// What a guarded write must present: which run, and which attempt at it. Made by the ledger when
/// it grants a claim, and by nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The n-th time that some worker took the run; the newest alone can commit.
    pub attempt: u32,
    /// The claim's own secret.
    pub token: ClaimToken,
}
