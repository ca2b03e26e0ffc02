//! A key as clients see it, and what of it may be handed on.

use baton_protocol::{ApiKeyId, Nanos};
use baton_store::{ApiKeyRecord, KeyLimits, KeyUsage};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Caller, Credential, Scopes};
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
    /// What is taken of its limits of runs and budgets, if it has any; only in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<KeyUsageView>,
    created_at: DateTime<Utc>,
    /// Who made it.
    created_by: Option<String>,
    /// The actor that kept it when its maker left, and answers for it since.
    vouched_by: Option<String>,
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
    /// With what is taken of its limits.
    pub(super) fn with_usage(record: ApiKeyRecord, usage: Option<&KeyUsage>) -> Self {
        let limits = record.limits;
        Self {
            usage: usage.map(|usage| KeyUsageView::new(usage, &limits)),
            ..Self::from(record)
        }
    }
}

/// What is taken of a key's limits. Keys that were rotated into one another share it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeyUsage)]
struct KeyUsageView {
    /// Runs that are queued or at work.
    running: u64,
    /// The first day of this month, UTC.
    month: NaiveDate,
    /// Tokens that runs of this month which have ended used up.
    tokens: u64,
    /// Tokens that those which have not ended have used up, or may use up.
    tokens_reserved: u64,
    /// What is left of the month's tokens; null without such a budget.
    tokens_left: Option<u64>,
    /// The cost of the runs that have ended: an exact decimal number, in the currency of the prices.
    cost: String,
    /// The cost of the others, as at most.
    cost_reserved: String,
    /// What is left of the month's cost; null without such a budget.
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

/// Whether somebody could make a key that may do what this one may: else they neither see a new secret
/// of it, nor end it, nor answer for it.
pub(crate) fn check_may_have_made(caller: &Caller, key: &ApiKeyRecord) -> Result<(), ApiError> {
    let wish = Wish {
        scopes: &key.scopes,
        models: key.allowed_models.as_deref(),
        tools: key.allowed_tools.as_deref(),
        expires_at: key.expires_at,
    };
    check_within(caller, &wish)
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
