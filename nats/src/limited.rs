//! Whose requests are counted.

use std::net::IpAddr;

use baton_protocol::TenantId;
use uuid::Uuid;

/// Somebody whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limited {
    /// A credential's bearer: a key, a person, another issuer's subject.
    Caller {
        /// For whom it acts.
        tenant: TenantId,
        /// The key's or the person's id, or what stands for one.
        caller: Uuid,
    },
    /// As `Caller`, counted apart: how much of what it publishes is set aside.
    Quarantine {
        /// For whom it acts.
        tenant: TenantId,
        /// The key's id.
        caller: Uuid,
    },
    /// An address. Of IPv6 addresses only the first 64 bits count: whoever has one has all of these.
    Address(IpAddr),
}
