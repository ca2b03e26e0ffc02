//! The subjects that an ingress reads programs' messages on, and the sender that each proves. Pure.

use baton_protocol::{ApiKeyId, Lane, TenantId};

use super::super::control::Verb;
use crate::subjects;

/// A message's sender and purpose, from its subject. The server lets only this key of this tenant
/// publish there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A submission.
    Submission {
        /// The tenant.
        tenant: TenantId,
        /// The key.
        key: ApiKeyId,
        /// The queue.
        lane: Lane,
    },
    /// A request about a run.
    Control {
        /// The tenant.
        tenant: TenantId,
        /// The key.
        key: ApiKeyId,
        /// The kind of request.
        verb: Verb,
    },
    /// A question for history.
    History {
        /// The tenant.
        tenant: TenantId,
        /// The key.
        key: ApiKeyId,
    },
}

impl Address {
    /// All subscriptions with their numbers.
    pub const SUBSCRIPTIONS: [(u64, &'static str); 3] = [
        (1, subjects::ALL_SUBMISSIONS),
        (2, subjects::ALL_CONTROL),
        (3, subjects::ALL_HISTORY),
    ];

    /// Reads the subject of a message that came under this number. Returns `None` unless it has
    /// exactly the form of that subscription.
    pub fn read(sid: u64, subject: &[u8]) -> Option<Self> {
        let subject = std::str::from_utf8(subject).ok()?;
        match sid {
            1 => subjects::of_submission(subject),
            2 => subjects::of_control(subject),
            3 => subjects::of_history(subject),
            _ => None,
        }
    }

    /// Returns the key that published it.
    pub const fn key(&self) -> ApiKeyId {
        match self {
            Self::Submission { key, .. }
            | Self::Control { key, .. }
            | Self::History { key, .. } => *key,
        }
    }
}
