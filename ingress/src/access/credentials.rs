//! Resolves credentials to callers: the same way for every carrier and kind of credential, with a
//! short-lived cache.

use std::sync::Arc;
use std::time::Duration;

use baton_admission::Grant;
use baton_identity::{ApiKey, OpaqueToken, issuer_of};
use baton_protocol::{ApiKeyId, RunId, SessionId, TenantId, UserId};
use baton_service::SharedClock;
use baton_store::{KeyLimits, Store, StoreError, TicketMaker};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::caller::{Caller, Credential};
use super::issuers::Issuers;
use super::sign_in::SignIn;
use crate::error::ApiError;
use crate::metrics::AuthRefusal;
use baton_identity::scopes::Scopes;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The lifetime of a cached look-up. If the news of a revocation is lost, the credential is refused
/// after this time at the latest.
const BELIEVED_FOR: Duration = Duration::from_secs(4);
const CACHED: u64 = 50_000;
/// The longest access token, in bytes.
const LONGEST_TOKEN: usize = 8 * 1024;

/// A credential as it was sent, not yet looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presented {
    /// A key with a correct checksum.
    ApiKey(ApiKey),
    /// A string in the form of a JWT.
    Token(String),
}

impl Presented {
    /// Returns a hash of the whole credential, so that two credentials never share a cache entry.
    fn hash(&self) -> [u8; 32] {
        match self {
            Self::ApiKey(key) => key.hash(),
            Self::Token(token) => Sha256::digest(token.as_bytes()).into(),
        }
    }

    /// Returns the error for a credential that belongs to nobody.
    pub(crate) fn unknown(&self) -> ApiError {
        match self {
            Self::ApiKey(_) => ApiError::unauthorized("this API key does not exist"),
            Self::Token(_) => {
                ApiError::invalid_token("this access token is not good: refresh, or sign in")
            }
        }
    }
}

/// The cache key of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// A presented credential, by the hash of all of it.
    Hash([u8; 32]),
    /// A key that the broker has asked about when its bearer connected.
    Key(TenantId, ApiKeyId),
}

/// Looks credentials up and caches the answer for a moment.
#[derive(Clone)]
pub(crate) struct Credentials {
    store: Store,
    clock: SharedClock,
    sign_in: Arc<SignIn>,
    issuers: Arc<Issuers>,
    known: Cache<Place, Option<Arc<Caller>>>,
}

impl Credentials {
    pub(crate) fn new(
        store: Store,
        clock: SharedClock,
        sign_in: Arc<SignIn>,
        issuers: Arc<Issuers>,
    ) -> Self {
        let known = Cache::builder()
            .max_capacity(CACHED)
            .time_to_live(BELIEVED_FOR)
            .support_invalidation_closures()
            .build();
        Self {
            store,
            clock,
            sign_in,
            issuers,
            known,
        }
    }

    /// Returns the bearer of a credential; `None` if it belongs to nobody.
    pub(crate) async fn find(
        &self,
        presented: &Presented,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        let look_up = async || match presented {
            Presented::ApiKey(key) => self.owner_of_key(key).await,
            Presented::Token(token) => self.bearer_of_token(token).await,
        };
        self.remembered(Place::Hash(presented.hash()), look_up)
            .await
    }

    /// Returns the bearer of a key of this tenant that the broker has authenticated; `None` if the
    /// tenant has no such key.
    pub(crate) async fn find_key(
        &self,
        tenant: TenantId,
        key: ApiKeyId,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        let look_up = async || {
            let record = self.store.system().find_api_key_by_id(tenant, key).await?;
            Ok(record.map(Caller::from))
        };
        self.remembered(Place::Key(tenant, key), look_up).await
    }

    async fn remembered(
        &self,
        place: Place,
        look_up: impl AsyncFnOnce() -> Result<Option<Caller>, StoreError>,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        if let Some(known) = self.known.get(&place).await {
            return Ok(known);
        }
        // Concurrent requests with one credential that was just evicted share one look-up. It is boxed,
        // because most requests need none, and each would keep room for it.
        let look_up = async { Ok(look_up().await?.map(Arc::new)) };
        Box::pin(self.known.try_get_with(place, look_up))
            .await
            .map_err(|error: Arc<StoreError>| {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "a credential cannot be checked"
                );
                ApiError::unavailable(
                    "ledger_unavailable",
                    "the credential cannot be checked: try again",
                )
            })
    }

    /// Removes the answers about a key or a session from the cache.
    pub(crate) fn forget(&self, credential: Uuid) {
        let about = move |caller: &Option<Arc<Caller>>| {
            caller
                .as_ref()
                .is_some_and(|caller| match &caller.credential {
                    Credential::ApiKey(key) => key.as_uuid() == credential,
                    Credential::Session { session, .. } => session.as_uuid() == credential,
                    Credential::Issuer { .. } => false,
                })
        };
        let forgotten = self
            .known
            .invalidate_entries_if(move |_, caller| about(caller));
        if let Err(error) = forgotten {
            tracing::error!(%error, "a revoked credential is forgotten a few seconds later");
        }
    }

    async fn owner_of_key(&self, key: &ApiKey) -> Result<Option<Caller>, StoreError> {
        let record = self.store.system().find_api_key(&key.hash()).await?;
        Ok(record.map(Caller::from))
    }

    /// The token's unverified `iss` decides only which issuer's keys verify it.
    async fn bearer_of_token(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let Some(issuer) = issuer_of(token) else {
            return Ok(None);
        };
        match &self.sign_in.tokens {
            Some(own) if own.issuer() == issuer => {}
            _ => return self.issuers.bearer(&issuer, token, self.clock.now()).await,
        }
        let verified = self
            .sign_in
            .tokens
            .as_ref()
            .map(|own| own.verify(token, self.clock.now()));
        let claims = match verified {
            Some(Ok(claims)) => claims,
            Some(Err(reason)) => {
                tracing::debug!(%reason, "an access token was refused");
                return Ok(None);
            }
            None => return Ok(None),
        };
        let person = self.bearer_of_session(claims.tenant, claims.sid).await?;
        Ok(person
            .filter(|(user, _)| *user == claims.sub)
            .map(|(_, caller)| Caller {
                expires_at: Some(claims.expires_at()),
                ..caller
            }))
    }

    /// Returns the person of a session, with their present role; `None` if there is no such
    /// session, or they are not a member.
    async fn bearer_of_session(
        &self,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<Option<(UserId, Caller)>, StoreError> {
        let standing = self
            .store
            .system()
            .session_standing(session, tenant)
            .await?;
        let Some((standing, role)) =
            standing.and_then(|standing| Some((standing.clone(), standing.role?)))
        else {
            return Ok(None);
        };
        let caller = Caller {
            tenant,
            grant: Grant::default(),
            credential: Credential::Session {
                user: standing.user,
                session,
                role,
            },
            scopes: Scopes::of_role(role),
            limits: KeyLimits::default(),
            expires_at: Some(standing.expires_at),
            revoked: standing.over,
        };
        Ok(Some((standing.user, caller)))
    }

    /// Returns the run that a stream ticket opens, and the ticket's creator with their present
    /// permissions; `None` if the ticket is not good.
    pub(crate) async fn find_ticket(
        &self,
        ticket: &OpaqueToken,
    ) -> Result<Option<(RunId, Arc<Caller>)>, ApiError> {
        let Some(found) = self
            .store
            .system()
            .find_stream_ticket(ticket.hash())
            .await?
        else {
            return Ok(None);
        };
        let tenant = found.tenant;
        let caller = match found.maker {
            TicketMaker::ApiKey(key) => self.find_key(tenant, key).await?,
            TicketMaker::Session(session) => {
                let person = self.bearer_of_session(tenant, session).await?;
                person.map(|(_, caller)| Arc::new(caller))
            }
            TicketMaker::Issuer {
                subject,
                role,
                until,
            } => Some(Arc::new(Caller {
                tenant,
                grant: Grant::default(),
                credential: Credential::Issuer {
                    subject: subject.into(),
                    role,
                },
                scopes: Scopes::of_role(role),
                limits: KeyLimits::default(),
                expires_at: Some(until),
                revoked: false,
            })),
        };
        Ok(caller.map(|caller| (found.run, caller)))
    }
}

/// Reads the credential from whichever carrier holds it. Two carriers must agree, so that a proxy
/// that checks one of them cannot be bypassed through the other.
pub(crate) fn presented(headers: &HeaderMap) -> Result<Presented, (AuthRefusal, &'static str)> {
    let malformed = (
        AuthRefusal::Malformed,
        "this is no credential of this server: API keys begin with `bt_`, access tokens are JWTs; \
         both are sent as `Authorization: Bearer …` or `X-API-Key: …`",
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
        (Some(given), _) | (None, Some(given)) => given,
        (None, None) => {
            return Err((
                AuthRefusal::Missing,
                "no credential was sent: send `Authorization: Bearer …` with an API key or an \
                 access token",
            ));
        }
    };
    if looks_like_jwt(given) {
        return Ok(Presented::Token(given.to_owned()));
    }
    ApiKey::parse(given)
        .map(Presented::ApiKey)
        .map_err(|_| malformed)
}

/// Checks for three parts of base64url, the first of them a JSON object.
fn looks_like_jwt(given: &str) -> bool {
    given.starts_with("eyJ")
        && given.len() <= LONGEST_TOKEN
        && given.bytes().filter(|byte| *byte == b'.').count() == 2
        && given
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

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
        let token = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJ4In0.c2ln-_";
        for (given, read) in [
            (key.expose(), Presented::ApiKey(key.clone())),
            (token, Presented::Token(token.to_owned())),
        ] {
            let bearer = format!("Bearer {given}");
            let lower = format!("bearer {given}");
            for good in [
                &[(AUTHORIZATION, &*bearer)][..],
                &[(AUTHORIZATION, &*lower)],
                &[(X_API_KEY, given)],
                &[(AUTHORIZATION, &*bearer), (X_API_KEY, given)],
            ] {
                assert_eq!(presented(&headers(good)).unwrap(), read, "{good:?}");
            }
            let basic = format!("Basic {given}");
            for (bad, reason) in [
                (&[][..], AuthRefusal::Missing),
                (&[(AUTHORIZATION, &*basic)], AuthRefusal::Malformed),
                (&[(AUTHORIZATION, given)], AuthRefusal::Malformed),
                (&[(AUTHORIZATION, "Bearer sk-abc")], AuthRefusal::Malformed),
                (&[(X_API_KEY, "")], AuthRefusal::Malformed),
                (
                    &[(AUTHORIZATION, &*bearer), (X_API_KEY, other.expose())],
                    AuthRefusal::Malformed,
                ),
                (
                    &[(X_API_KEY, given), (X_API_KEY, given)],
                    AuthRefusal::Malformed,
                ),
            ] {
                assert_eq!(presented(&headers(bad)).unwrap_err().0, reason, "{bad:?}");
            }
        }
    }

    #[test]
    fn a_refresh_token_and_what_only_resembles_a_jwt_are_no_credentials() {
        let refresh =
            baton_identity::OpaqueToken::from_random(baton_identity::TokenKind::Refresh, [5; 32]);
        let long = format!("eyJ{}.a.b", "x".repeat(LONGEST_TOKEN));
        for bad in [refresh.expose(), "eyJa.b", "eyJa.b.c.d", "eyJ a.b.c", &long] {
            let bearer = format!("Bearer {bad}");
            let refused = presented(&headers(&[(AUTHORIZATION, &bearer)])).unwrap_err();
            assert_eq!(refused.0, AuthRefusal::Malformed, "{bad:.40}");
        }
    }

    /// Generates credentials, and strings that resemble one.
    fn given() -> impl Strategy<Value = Vec<u8>> {
        let key = |random| ApiKey::from_random("test", [random; 32]).unwrap();
        let text = prop_oneof![
            Just(key(7).expose().to_owned()),
            Just(key(8).expose().to_owned()),
            Just("eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJ4In0.c2ln-_".to_owned()),
            "[ -~]{0,30}",
        ];
        let scheme = prop_oneof![Just(""), Just("Bearer "), Just("bEARER  "), Just("Basic ")];
        let near = (scheme, text).prop_map(|(scheme, text)| format!("{scheme}{text}").into());
        prop_oneof![5 => near, 1 => proptest::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        /// A second carrier, a second value or another scheme next to a correct one never passes
        /// unnoticed.
        #[test]
        fn what_is_read_stands_in_every_carrier_that_is_there_and_nowhere_twice(
            bearers in proptest::collection::vec(given(), 0..3),
            plains in proptest::collection::vec(given(), 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for (name, values) in [(AUTHORIZATION, &bearers), (X_API_KEY, &plains)] {
                for value in values {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        headers.append(name.clone(), value);
                    }
                }
            }
            let Ok(read) = presented(&headers) else { return Ok(()) };
            let read = match &read {
                Presented::ApiKey(key) => key.expose(),
                Presented::Token(token) => token,
            };
            let words = |name: HeaderName| -> Vec<String> {
                let values = headers.get_all(name).iter();
                values.map(|value| value.to_str().unwrap().to_owned()).collect()
            };
            let (bearers, plains) = (words(AUTHORIZATION), words(X_API_KEY));
            prop_assert!(bearers.len() <= 1 && plains.len() <= 1);
            for bearer in bearers {
                let (scheme, rest) = bearer.split_once(' ').unwrap();
                prop_assert!(scheme.eq_ignore_ascii_case("bearer"));
                prop_assert_eq!(rest.trim(), read);
            }
            for plain in plains {
                prop_assert_eq!(plain.trim(), read);
            }
        }
    }
}
