//! The subject of a rate limit.

use std::net::IpAddr;

use baton_protocol::TenantId;
use uuid::Uuid;

/// The subject of a rate limit: a credential, a quarantine quota or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limited {
    /// A credential's bearer: a key, a person, or another issuer's subject.
    Caller {
        /// The tenant that it acts for.
        tenant: TenantId,
        /// The id of the key or the person, or one derived from the issuer's subject.
        caller: Uuid,
    },
    /// A key's quarantine quota, counted apart from its requests.
    Quarantine {
        /// The tenant that it acts for.
        tenant: TenantId,
        /// The key's id.
        caller: Uuid,
    },
    /// An address. Only the first 64 bits of an IPv6 address count, because one owner has all of
    /// those.
    Address(IpAddr),
}
