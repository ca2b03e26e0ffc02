//! The fencing token of one attempt.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{RunId, TenantId};

/// A random token of one claim. Commits must present it together with the attempt number. So two
/// attempts with one number (from a database that lost its tail in a failover) cannot both commit,
/// and a claim can be repeated if its answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimToken(Uuid);

impl ClaimToken {
    /// Makes a token of 128 random bits.
    pub const fn from_random(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// Returns the UUID to store.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

/// The run and the attempt that a guarded write must present. Only the ledger makes one, when it
/// grants a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The number of this attempt; only the newest can commit.
    pub attempt: u32,
    /// The claim's token.
    pub token: ClaimToken,
}
