//! Verifies tokens of other issuers. Their keys are fetched from the configured place, cached, and
//! fetched again if a token names an unknown key.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use baton_admission::Grant;
use baton_identity::{ForeignAlgorithm, ForeignClaims, ForeignKeys, ForeignRules, key_id_of};
use baton_protocol::{Role, TenantId};
use baton_service::SharedClock;
use baton_service::config::{AuthConfig, IssuerAlgorithm, IssuerConfig, trustworthy};
use baton_store::{KeyLimits, Store, StoreError, TenantRecord};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::caller::{Caller, Credential};
use crate::fetch::{self, FetchError};
use baton_identity::scopes::Scopes;

/// The age at which keys are fetched again, so that keys that an issuer has withdrawn are dropped.
const FRESH_FOR: Duration = Duration::from_mins(15);
/// The age up to which keys are used if the issuer does not answer.
const BELIEVED_FOR: Duration = Duration::from_hours(24);
/// The shortest time between two fetches, however many tokens with invented key names arrive.
const BETWEEN_FETCHES: Duration = Duration::from_secs(10);
/// The longest time that connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// The longest JWK set or discovery document, in bytes.
const LONGEST: usize = 256 << 10;

/// The issuers of the configuration.
pub(crate) struct Issuers {
    all: Vec<Issuer>,
    store: Store,
    clock: SharedClock,
    client: reqwest::Client,
}

struct Issuer {
    rules: ForeignRules,
    jwks_url: Option<String>,
    tenant: TenantSource,
    role_claim: Option<String>,
    default_role: Role,
    keys: RwLock<Known>,
    /// Locked while one task fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Option<(Arc<ForeignKeys>, Instant)>,
    tried_at: Option<Instant>,
}

enum TenantSource {
    Named(String),
    Claim(String),
}

/// The reason why an issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the discovery document cannot be read")]
    Discovery(#[source] serde_json::Error),
    #[error("the discovery document is another issuer's, or names no trustworthy key set")]
    Mismatch,
    #[error(transparent)]
    Set(#[from] baton_identity::InvalidJwks),
}

impl Issuers {
    pub(crate) fn new(
        config: &AuthConfig,
        store: Store,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            all: Self::all(config)?,
            store,
            clock,
            client: fetch::client(CONNECT)?,
        })
    }

    /// Checks the issuers of a configuration.
    pub(crate) fn check(config: &AuthConfig) -> anyhow::Result<()> {
        Self::all(config).map(drop)
    }

    fn all(config: &AuthConfig) -> anyhow::Result<Vec<Issuer>> {
        let issuers = config.issuers.iter();
        issuers
            .map(|issuer| Issuer::new(issuer, config.leeway))
            .collect()
    }

    /// Returns the bearer of a token if it names one of these issuers and is signed by it.
    pub(crate) async fn bearer(
        &self,
        issuer: &str,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Caller>, StoreError> {
        let Some(issuer) = self.all.iter().find(|one| one.rules.issuer == issuer) else {
            return Ok(None);
        };
        let Some(kid) = key_id_of(token) else {
            return Ok(None);
        };
        let Some(keys) = self.keys(issuer, &kid).await else {
            return Ok(None);
        };
        match keys.verify(token, &issuer.rules, now) {
            Ok(claims) => self.caller(issuer, &claims).await,
            Err(reason) => {
                tracing::debug!(%reason, issuer = issuer.rules.issuer, "a token was refused");
                Ok(None)
            }
        }
    }

    async fn caller(
        &self,
        issuer: &Issuer,
        claims: &ForeignClaims,
    ) -> Result<Option<Caller>, StoreError> {
        let named = match &issuer.tenant {
            TenantSource::Named(name) => Some(name.as_str()),
            TenantSource::Claim(claim) => claims.all.get(claim).and_then(Value::as_str),
        };
        let Some(named) = named else {
            return Ok(None);
        };
        let Some(tenant) = self.tenant(named).await? else {
            tracing::warn!(
                issuer = issuer.rules.issuer,
                "a token names a tenant that does not exist"
            );
            return Ok(None);
        };
        let role = issuer.role(claims);
        Ok(Some(Caller {
            tenant: tenant.id,
            grant: Grant::default(),
            credential: Credential::Issuer {
                subject: format!("{} {}", issuer.rules.issuer, claims.subject).into(),
                role,
            },
            scopes: Scopes::of_role(role),
            limits: KeyLimits::default(),
            expires_at: Some(claims.expires_at),
            revoked: false,
        }))
    }

    /// Returns the tenant with this id, or with this name, which an operator gave it.
    async fn tenant(&self, named: &str) -> Result<Option<TenantRecord>, StoreError> {
        let system = self.store.system();
        if let Ok(id) = named.parse::<TenantId>() {
            return system.tenant(id).await;
        }
        system.tenant_by_name(named).await
    }

    /// Returns the issuer's keys; fetches them first if they lack this one or are old.
    async fn keys(&self, issuer: &Issuer, kid: &str) -> Option<Arc<ForeignKeys>> {
        let begun = self.clock.monotonic();
        if let Some(keys) = issuer.good_keys(kid, begun) {
            return Some(keys);
        }
        // One task fetches; the others wait for it and look again.
        let _fetching = issuer.fetching.lock().await;
        if let Some(keys) = issuer.good_keys(kid, begun) {
            return Some(keys);
        }
        let now = self.clock.monotonic();
        if issuer.may_try(now) {
            match self.fetch(issuer).await {
                Ok(keys) => issuer.learn(Arc::new(keys), now),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    issuer = issuer.rules.issuer,
                    "an issuer's keys could not be fetched"
                ),
            }
        }
        issuer.keys_at_hand(self.clock.monotonic())
    }

    async fn fetch(&self, issuer: &Issuer) -> Result<ForeignKeys, NoKeys> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }

        let url = if let Some(url) = &issuer.jwks_url {
            url.clone()
        } else {
            let name = &issuer.rules.issuer;
            let url = format!(
                "{}/.well-known/openid-configuration",
                name.trim_end_matches('/')
            );
            let document = fetch::get(&self.client, &url, LONGEST).await?;
            let document: Discovery =
                serde_json::from_slice(&document).map_err(NoKeys::Discovery)?;
            if document.issuer != *name || !trustworthy(&document.jwks_uri) {
                return Err(NoKeys::Mismatch);
            }
            document.jwks_uri
        };
        let set = fetch::get(&self.client, &url, LONGEST).await?;
        Ok(ForeignKeys::read(&set, issuer.rules.algorithm)?)
    }
}

impl Issuer {
    fn new(config: &IssuerConfig, leeway: Duration) -> anyhow::Result<Self> {
        let tenant = match (&config.tenant, &config.tenant_claim) {
            (Some(name), None) => TenantSource::Named(name.clone()),
            (None, Some(claim)) => TenantSource::Claim(claim.clone()),
            _ => anyhow::bail!("the issuer `{}` needs one tenant", config.issuer),
        };
        Ok(Self {
            rules: ForeignRules {
                issuer: config.issuer.clone(),
                audience: config.audience.clone(),
                algorithm: algorithm(config.algorithm),
                leeway,
            },
            jwks_url: config.jwks_url.clone(),
            tenant,
            role_claim: config.role_claim.clone(),
            default_role: config.default_role.parse()?,
            keys: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Returns the highest role that the claim names. No other issuer can make somebody an owner.
    fn role(&self, claims: &ForeignClaims) -> Role {
        let claim = self
            .role_claim
            .as_ref()
            .and_then(|claim| claims.all.get(claim));
        let words: Vec<&str> = match claim {
            Some(Value::String(word)) => vec![word],
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        words
            .into_iter()
            .filter_map(|word| word.parse().ok())
            .max()
            .map_or(self.default_role, |role: Role| role.min(Role::Admin))
    }

    /// Returns the keys if they are fresh and contain this one.
    fn good_keys(&self, kid: &str, now: Instant) -> Option<Arc<ForeignKeys>> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, at) = known.keys.as_ref()?;
        (keys.knows(kid) && now.saturating_duration_since(*at) < FRESH_FOR)
            .then(|| Arc::clone(keys))
    }

    /// Returns the keys if they are not too old to be used.
    fn keys_at_hand(&self, now: Instant) -> Option<Arc<ForeignKeys>> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, at) = known.keys.as_ref()?;
        (now.saturating_duration_since(*at) < BELIEVED_FOR).then(|| Arc::clone(keys))
    }

    /// Returns whether the last fetch was long enough ago, and if so, notes this one.
    fn may_try(&self, now: Instant) -> bool {
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let may = known
            .tried_at
            .is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_FETCHES);
        if may {
            known.tried_at = Some(now);
        }
        may
    }

    fn learn(&self, keys: Arc<ForeignKeys>, now: Instant) {
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        known.keys = Some((keys, now));
    }
}

const fn algorithm(configured: IssuerAlgorithm) -> ForeignAlgorithm {
    match configured {
        IssuerAlgorithm::Rs256 => ForeignAlgorithm::Rs256,
        IssuerAlgorithm::Rs384 => ForeignAlgorithm::Rs384,
        IssuerAlgorithm::Rs512 => ForeignAlgorithm::Rs512,
        IssuerAlgorithm::Ps256 => ForeignAlgorithm::Ps256,
        IssuerAlgorithm::Ps384 => ForeignAlgorithm::Ps384,
        IssuerAlgorithm::Ps512 => ForeignAlgorithm::Ps512,
        IssuerAlgorithm::Es256 => ForeignAlgorithm::Es256,
        IssuerAlgorithm::Es384 => ForeignAlgorithm::Es384,
        IssuerAlgorithm::EdDsa => ForeignAlgorithm::EdDsa,
    }
}
