//! Who is asking, and what they may do: one extractor for every credential carrier.
//!
//! A route names the scope that it needs in its signature, as `Authorized<RunsWrite>`; there is no
//! way to a caller without one.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use baton_admission::Grant;
use baton_identity::ApiKey;
use baton_protocol::TenantId;
use baton_store::{ApiKeyRecord, Store, StoreError};
use chrono::{DateTime, Utc};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use moka::future::Cache;

use crate::error::ApiError;
use crate::metrics::{self, AuthRefusal};
use crate::state::AppState;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How long a look-up is believed: a key that is revoked meanwhile is refused after that.
const BELIEVED_FOR: Duration = Duration::from_secs(4);
const CACHED_KEYS: u64 = 50_000;

/// Who is asking.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) grant: Grant,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    revoked: bool,
}

impl From<ApiKeyRecord> for Caller {
    fn from(record: ApiKeyRecord) -> Self {
        Self {
            tenant: record.tenant,
            grant: Grant {
                api_key: Some(record.id),
                models: record.allowed_models,
                tools: record.allowed_tools,
            },
            scopes: record.scopes,
            expires_at: record.expires_at,
            revoked: record.revoked_at.is_some(),
        }
    }
}

impl Caller {
    fn check(&self, scope: &'static str, now: DateTime<Utc>) -> Result<(), ApiError> {
        let refuse = |reason, message| {
            metrics::auth_refusal(reason);
            Err(ApiError::unauthorized(message))
        };
        if self.revoked {
            return refuse(AuthRefusal::Revoked, "this API key was revoked");
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return refuse(AuthRefusal::Expired, "this API key has expired");
        }
        if self.scopes.iter().any(|own| own == scope || own == "*") {
            return Ok(());
        }
        metrics::auth_refusal(AuthRefusal::Scope);
        let message = format!("this API key lacks the scope `{scope}`");
        Err(ApiError::forbidden("scope_missing", message))
    }
}

/// Looks keys up by the SHA-256 of the whole key, and remembers the answer for a moment.
#[derive(Clone)]
pub(crate) struct KeyRing {
    store: Store,
    known: Cache<[u8; 32], Option<Arc<Caller>>>,
}

impl KeyRing {
    pub(crate) fn new(store: Store) -> Self {
        let known = Cache::builder()
            .max_capacity(CACHED_KEYS)
            .time_to_live(BELIEVED_FOR)
            .build();
        Self { store, known }
    }

    /// The owner of a key that has passed its own checksum.
    async fn find(&self, key: &ApiKey) -> Result<Option<Arc<Caller>>, ApiError> {
        let hash = key.hash();
        if let Some(known) = self.known.get(&hash).await {
            return Ok(known);
        }
        // Many requests with one key that has just run out of the cache ask once.
        let look_up = async {
            let record = self.store.system().find_api_key(&hash).await?;
            Ok(record.map(|record| Arc::new(Caller::from(record))))
        };
        self.known
            .try_get_with(hash, look_up)
            .await
            .map_err(|error: Arc<StoreError>| {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "an API key cannot be checked"
                );
                ApiError::unavailable(
                    "ledger_unavailable",
                    "the API key cannot be checked: try again",
                )
            })
    }
}

/// What a route demands.
pub(crate) trait Scope: Send + Sync + 'static {
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub(crate) enum $name {}
        impl Scope for $name { const NAME: &'static str = $text; })+
        /// Every scope that a key can have; `*` stands for all.
        pub const SCOPES: &[&str] = &[$($text),+];
    };
}

scopes! {
    /// Starting and cancelling runs.
    RunsWrite = "runs:write",
    /// Reading runs and their events.
    RunsRead = "runs:read",
    /// Deciding what parked runs wait for.
    ApprovalsWrite = "approvals:write",
    /// Listing models.
    ModelsRead = "models:read",
}

/// A caller whose credential is good and holds the scope.
pub(crate) struct Authorized<S> {
    pub(crate) caller: Arc<Caller>,
    scope: PhantomData<S>,
}

impl<S: Scope> FromRequestParts<AppState> for Authorized<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let key = credential(&parts.headers).map_err(|(reason, message)| {
            metrics::auth_refusal(reason);
            ApiError::unauthorized(message)
        })?;
        let Some(caller) = state.keys.find(&key).await? else {
            metrics::auth_refusal(AuthRefusal::Unknown);
            return Err(ApiError::unauthorized("this API key does not exist"));
        };
        caller.check(S::NAME, state.clock.now())?;
        Ok(Self {
            caller,
            scope: PhantomData,
        })
    }
}

/// The key from whichever carrier holds it. Two carriers must agree, so that a proxy that checks
/// one of them cannot be led past the other.
fn credential(headers: &HeaderMap) -> Result<ApiKey, (AuthRefusal, &'static str)> {
    let malformed = (
        AuthRefusal::Malformed,
        "this is no API key of this server: keys begin with `bt_` and are sent as \
         `Authorization: Bearer …` or `X-API-Key: …`",
    );
    if headers.get_all(AUTHORIZATION).iter().count() > 1
        || headers.get_all(X_API_KEY).iter().count() > 1
    {
        return Err(malformed);
    }
    let bearer = match headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => {
            let value = value.to_str().map_err(|_| malformed)?;
            let (scheme, key) = value.split_once(' ').ok_or(malformed)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(malformed);
            }
            Some(key.trim())
        }
    };
    let plain = match headers.get(X_API_KEY) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| malformed)?.trim()),
    };
    let given = match (bearer, plain) {
        (Some(bearer), Some(plain)) if bearer != plain => return Err(malformed),
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => {
            return Err((
                AuthRefusal::Missing,
                "no API key was sent: send `Authorization: Bearer bt_…`",
            ));
        }
    };
    ApiKey::parse(given).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn every_carrier_is_read_the_same_way() {
        let key = ApiKey::from_random("test", [7; 32]).unwrap();
        let other = ApiKey::from_random("test", [8; 32]).unwrap();
        let bearer = format!("Bearer {}", key.expose());
        let lower = format!("bearer {}", key.expose());
        for good in [
            &[(AUTHORIZATION, &*bearer)][..],
            &[(AUTHORIZATION, &*lower)],
            &[(X_API_KEY, key.expose())],
            &[(AUTHORIZATION, &*bearer), (X_API_KEY, key.expose())],
        ] {
            assert_eq!(credential(&headers(good)).unwrap(), key, "{good:?}");
        }
        let basic = format!("Basic {}", key.expose());
        for (bad, reason) in [
            (&[][..], AuthRefusal::Missing),
            (&[(AUTHORIZATION, &*basic)], AuthRefusal::Malformed),
            (&[(AUTHORIZATION, key.expose())], AuthRefusal::Malformed),
            (&[(AUTHORIZATION, "Bearer sk-abc")], AuthRefusal::Malformed),
            (&[(X_API_KEY, "")], AuthRefusal::Malformed),
            (
                &[(AUTHORIZATION, &*bearer), (X_API_KEY, other.expose())],
                AuthRefusal::Malformed,
            ),
            (
                &[(X_API_KEY, key.expose()), (X_API_KEY, key.expose())],
                AuthRefusal::Malformed,
            ),
        ] {
            assert_eq!(credential(&headers(bad)).unwrap_err().0, reason, "{bad:?}");
        }
    }

    #[test]
    fn a_key_must_be_alive_and_hold_the_scope() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let caller = |scopes: &[&str], expires: Option<i64>, revoked| Caller {
            tenant: TenantId::new(now),
            grant: Grant::default(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            expires_at: expires.map(|at| DateTime::from_timestamp(at, 0).unwrap()),
            revoked,
        };
        let status = |caller: Caller| {
            caller
                .check(RunsWrite::NAME, now)
                .err()
                .map(|error| error.status.as_u16())
        };
        assert_eq!(status(caller(&["runs:write"], None, false)), None);
        assert_eq!(status(caller(&["*"], Some(1_001), false)), None);
        assert_eq!(status(caller(&["runs:read"], None, false)), Some(403));
        assert_eq!(status(caller(&[], None, false)), Some(403));
        assert_eq!(status(caller(&["*"], Some(1_000), false)), Some(401));
        assert_eq!(status(caller(&["*"], None, true)), Some(401));
    }
}
