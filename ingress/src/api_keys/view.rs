//! A key as clients see it, and what of it may be handed on.

use baton_protocol::ApiKeyId;
use baton_store::{ApiKeyRecord, KeyLimits};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Caller, Credential, Scopes};
use crate::error::ApiError;

/// How much may be done with a key; what is left out or null is not limited.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Requests in any 60 seconds.
    #[schema(minimum = 1)]
    pub(crate) per_minute: Option<u32>,
    /// Requests in any 24 hours.
    #[schema(minimum = 1)]
    pub(crate) per_day: Option<u32>,
    /// Runs at a time.
    #[schema(minimum = 1)]
    pub(crate) concurrent_runs: Option<u32>,
    /// Tokens in a calendar month, UTC.
    #[schema(minimum = 1)]
    pub(crate) monthly_tokens: Option<u64>,
    /// Cost in a calendar month, UTC, in millionths of the currency of the prices.
    #[schema(minimum = 1)]
    pub(crate) monthly_cost_micros: Option<u64>,
}

impl From<KeyLimits> for Limits {
    fn from(limits: KeyLimits) -> Self {
        Self {
            per_minute: limits.per_minute,
            per_day: limits.per_day,
            concurrent_runs: limits.concurrent_runs,
            monthly_tokens: limits.monthly_tokens,
            monthly_cost_micros: limits.monthly_cost_micros,
        }
    }
}

impl From<Limits> for KeyLimits {
    fn from(limits: Limits) -> Self {
        Self {
            per_minute: limits.per_minute,
            per_day: limits.per_day,
            concurrent_runs: limits.concurrent_runs,
            monthly_tokens: limits.monthly_tokens,
            monthly_cost_micros: limits.monthly_cost_micros,
        }
    }
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct KeyView {
    id: ApiKeyId,
    name: String,
    /// Its first characters, to recognise it by.
    prefix: String,
    /// What it may do; `*` is everything.
    scopes: Vec<String>,
    /// The models it may ask for; null for all.
    models: Option<Vec<String>>,
    /// The server-side tools it may use; null for all.
    tools: Option<Vec<String>>,
    limits: Limits,
    created_at: DateTime<Utc>,
    /// Who made it.
    created_by: Option<String>,
    /// From when on it is refused.
    expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    last_used_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    revoked_at: Option<DateTime<Utc>>,
    /// The key that it takes the place of.
    rotated_from: Option<ApiKeyId>,
}

impl From<ApiKeyRecord> for KeyView {
    fn from(record: ApiKeyRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            prefix: record.prefix,
            scopes: record.scopes,
            models: record.allowed_models,
            tools: record.allowed_tools,
            limits: record.limits.into(),
            created_at: record.created_at,
            created_by: record.created_by,
            expires_at: record.expires_at,
            last_used_at: record.last_used_at,
            revoked_at: record.revoked_at,
            rotated_from: record.rotated_from,
        }
    }
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// The key itself. It is in this answer and nowhere else: keep it.
    pub(super) key: String,
    #[serde(flatten)]
    pub(super) view: KeyView,
}

/// What a key is to be able to do.
pub(super) struct Wish<'a> {
    pub(super) scopes: &'a [String],
    pub(super) models: Option<&'a [String]>,
    pub(super) tools: Option<&'a [String]>,
    pub(super) expires_at: Option<DateTime<Utc>>,
}

/// Nobody hands on more than they have. A limit that a key handed on would hold for each of its
/// bearers: a key that has one hands on nothing. Lists, scopes and an expiry are no more when two keys
/// have them.
pub(super) fn check_within(caller: &Caller, wish: &Wish<'_>) -> Result<(), ApiError> {
    let is_key = matches!(caller.credential, Credential::ApiKey(_));
    if is_key && caller.limits != KeyLimits::default() {
        let message = "a key that has limits cannot make or rotate keys, each of which would have \
                       those limits for itself: ask with a key that has none, or sign in";
        return Err(ApiError::forbidden("limited_key", message));
    }
    let beyond = |param: &'static str| {
        let message = format!("`{param}` goes beyond what your own credential may do");
        Err(ApiError::forbidden("beyond_own_rights", message).param(param))
    };
    if !caller.scopes.cover(&Scopes::stored(wish.scopes.to_vec())) {
        return beyond("scopes");
    }
    if !within_list(caller.grant.models.as_deref(), wish.models) {
        return beyond("models");
    }
    if !within_list(caller.grant.tools.as_deref(), wish.tools) {
        return beyond("tools");
    }
    // An access token ends in minutes and its person does not.
    let own_end = match caller.credential {
        Credential::ApiKey(_) => caller.expires_at,
        Credential::Session { .. } | Credential::Issuer { .. } => None,
    };
    if !within(own_end, wish.expires_at) {
        return beyond("expires_at");
    }
    Ok(())
}

/// Whether a wish stays under one's own bound, if there is one.
fn within<T: PartialOrd>(own: Option<T>, wish: Option<T>) -> bool {
    match (own, wish) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(wish)) => wish <= own,
    }
}

fn within_list(own: Option<&[String]>, wish: Option<&[String]>) -> bool {
    match (own, wish) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(wish)) => wish.iter().all(|one| own.contains(one)),
    }
}
