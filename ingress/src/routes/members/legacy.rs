//! The things that a member created, after the member left or got another role.

use baton_protocol::{ApiKeyId, InviteId, Role};
use baton_store::{ApiKeyRecord, EndedToken, Legacy};
use serde::Serialize;
use utoipa::ToSchema;

/// The invites, password resets and API keys that a member created: revoked ones and kept ones.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberLegacy {
    ended: EndedThings,
    kept: KeptThings,
}

/// Refused from now on.
#[derive(Serialize, ToSchema)]
struct EndedThings {
    invites: Vec<LegacyInvite>,
    password_resets: usize,
    api_keys: Vec<LegacyKey>,
}

/// Valid as before.
#[derive(Serialize, ToSchema)]
struct KeptThings {
    api_keys: Vec<LegacyKey>,
}

/// An invite that a member created.
#[derive(Serialize, ToSchema)]
struct LegacyInvite {
    id: InviteId,
    role: Role,
}

/// A key that a member created, or that was created with such a key.
#[derive(Serialize, ToSchema)]
struct LegacyKey {
    id: ApiKeyId,
    name: String,
    scopes: Vec<String>,
}

impl From<ApiKeyRecord> for LegacyKey {
    fn from(record: ApiKeyRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            scopes: record.scopes,
        }
    }
}

impl From<Legacy> for MemberLegacy {
    fn from(legacy: Legacy) -> Self {
        let invite = |token: &EndedToken| {
            let id = token.id;
            token.role.map(|role| LegacyInvite { id, role })
        };
        let invites: Vec<_> = legacy.ended_tokens.iter().filter_map(invite).collect();
        let keys = |keys: Vec<ApiKeyRecord>| keys.into_iter().map(LegacyKey::from).collect();
        Self {
            ended: EndedThings {
                password_resets: legacy.ended_tokens.len() - invites.len(),
                invites,
                api_keys: keys(legacy.ended_keys),
            },
            kept: KeptThings {
                api_keys: keys(legacy.kept_keys),
            },
        }
    }
}
