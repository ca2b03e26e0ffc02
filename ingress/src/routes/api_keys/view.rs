//! The representation of a key for clients, and the rules for creating keys.

use baton_protocol::{ApiKeyId, Nanos};
use baton_store::{ApiKeyRecord, KeyLimits, KeyUsage};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Caller, Credential, Scopes};
use crate::error::ApiError;

/// The limits of a key; a limit that is absent or null does not apply.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Requests in any 60 seconds.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub(crate) per_minute: Option<u32>,
    /// Requests in any 24 hours.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub(crate) per_day: Option<u32>,
    /// Runs at a time.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub(crate) concurrent_runs: Option<u32>,
    /// Tokens in a calendar month, UTC.
    #[schema(minimum = 1, maximum = 9_000_000_000_000_000_u64)]
    pub(crate) monthly_tokens: Option<u64>,
    /// Cost in a calendar month, UTC, in millionths of the currency of the prices.
    #[schema(minimum = 1, maximum = 9_000_000_000_000_000_u64)]
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
    /// The key's first characters, to recognise it by.
    prefix: String,
    /// The permissions of the key; `*` means all.
    scopes: Vec<String>,
    /// The models that the key may name; null for all.
    models: Option<Vec<String>>,
    /// The server-side tools that the key may use; null for all.
    tools: Option<Vec<String>>,
    limits: Limits,
    /// The usage that counts against the key's limits of runs and budgets, if it has any; only in
    /// the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<KeyUsageView>,
    created_at: DateTime<Utc>,
    /// The creator.
    created_by: Option<String>,
    /// The actor that kept the key when its creator left, and is responsible for it since.
    vouched_by: Option<String>,
    /// The time at which the key expires.
    expires_at: Option<DateTime<Utc>>,
    /// The time of the last use, to the minute.
    last_used_at: Option<DateTime<Utc>>,
    /// The time at which the key was revoked.
    revoked_at: Option<DateTime<Utc>>,
    /// The key that this one replaces.
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
            usage: None,
            created_at: record.created_at,
            created_by: record.created_by,
            vouched_by: record.vouched_by,
            expires_at: record.expires_at,
            last_used_at: record.last_used_at,
            revoked_at: record.revoked_at,
            rotated_from: record.rotated_from,
        }
    }
}

impl KeyView {
    /// Returns the representation with the usage that counts against the key's limits.
    pub(super) fn with_usage(record: ApiKeyRecord, usage: Option<&KeyUsage>) -> Self {
        let limits = record.limits;
        Self {
            usage: usage.map(|usage| KeyUsageView::new(usage, &limits)),
            ..Self::from(record)
        }
    }
}

/// The usage that counts against a key's limits. A key shares it with the keys that it was rotated
/// from or into.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeyUsage)]
struct KeyUsageView {
    /// Queued and active runs.
    running: u64,
    /// The first day of this month, UTC.
    month: NaiveDate,
    /// Tokens of this month's runs that have ended.
    tokens: u64,
    /// Tokens that active runs have used or may still use.
    tokens_reserved: u64,
    /// The remaining tokens of the month; null without such a budget.
    tokens_left: Option<u64>,
    /// The cost of the runs that have ended: an exact decimal number, in the currency of the
    /// prices.
    cost: String,
    /// The highest cost that active runs may reach.
    cost_reserved: String,
    /// The remaining cost of the month; null without such a budget.
    cost_left: Option<String>,
}

impl KeyUsageView {
    fn new(usage: &KeyUsage, limits: &KeyLimits) -> Self {
        let taken = usage.spent_tokens.saturating_add(usage.reserved_tokens);
        let cost = usage.spent.0.saturating_add(usage.reserved.0);
        let cost_left = limits
            .monthly_cost_micros
            .map(|limit| Nanos(Nanos::from_micros(limit).0.saturating_sub(cost)));
        Self {
            running: usage.running,
            month: usage.month,
            tokens: usage.spent_tokens,
            tokens_reserved: usage.reserved_tokens,
            tokens_left: limits
                .monthly_tokens
                .map(|limit| limit.saturating_sub(taken)),
            cost: usage.spent.to_string(),
            cost_reserved: usage.reserved.to_string(),
            cost_left: cost_left.map(|left| left.to_string()),
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

/// The requested permissions of a key.
pub(super) struct Wish<'a> {
    pub(super) scopes: &'a [String],
    pub(super) models: Option<&'a [String]>,
    pub(super) tools: Option<&'a [String]>,
    pub(super) expires_at: Option<DateTime<Utc>>,
}

/// Refuses a key with more permissions than the caller has. A key that has limits may create none,
/// because each new key would have those limits again, for itself. Lists, scopes and an expiry do
/// not multiply in that way.
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
    // An access token ends in minutes, but its person does not.
    let own_end = match caller.credential {
        Credential::ApiKey(_) => caller.expires_at,
        Credential::Session { .. } | Credential::Issuer { .. } => None,
    };
    if !within(own_end, wish.expires_at) {
        return beyond("expires_at");
    }
    Ok(())
}

/// Refuses a caller who could not create a key with this one's permissions: they may not see a new
/// secret for it, revoke it, or take responsibility for it.
pub(crate) fn check_may_have_made(caller: &Caller, key: &ApiKeyRecord) -> Result<(), ApiError> {
    let wish = Wish {
        scopes: &key.scopes,
        models: key.allowed_models.as_deref(),
        tools: key.allowed_tools.as_deref(),
        expires_at: key.expires_at,
    };
    check_within(caller, &wish)
}

/// Returns whether a requested bound is within the caller's own, if there is one.
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
