//! Tokens of another issuer, verified with keys fetched from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::routing::get;
use baton_identity::{AccessTokens, KeyAlgorithm, NewAccess, SigningKey, TokenRules};
use baton_protocol::{SessionId, TenantId, UserId};
use baton_service::config::{IssuerAlgorithm, IssuerConfig};
use baton_service::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::fixture::Fixture;

const FIRST: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAEicKbe9ouYyQ/gS3OoVA4FZhxfXuYOict3DSEOEluV
-----END PRIVATE KEY-----
";
const SECOND: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKOYANxv89yyMEC1PfLwtV8Q2lDAUBPojxz9NTEVUcCZ
-----END PRIVATE KEY-----
";

/// Another issuer: a discovery document, a key set, and the number of requests for the key set.
struct Issuer {
    url: String,
    keys: watch::Sender<Value>,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (keys, published) = watch::channel(Value::Null);
        let fetched = Arc::new(AtomicUsize::new(0));
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let counter = Arc::clone(&fetched);
        let router = axum::Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || Json(discovery)),
            )
            .route(
                "/keys",
                get(async move || {
                    counter.fetch_add(1, Ordering::SeqCst);
                    Json(published.borrow().clone())
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, fetched }
    }

    /// Signs with this key, and publishes it as the only one.
    fn sign_by(&self, kid: &str, pem: &str, audience: &str) -> AccessTokens {
        let key = SigningKey {
            kid: Some(kid),
            algorithm: KeyAlgorithm::EdDsa,
            secret: pem.as_bytes(),
        };
        let rules = TokenRules {
            issuer: self.url.clone(),
            audience: audience.into(),
            life: std::time::Duration::from_mins(5),
            leeway: std::time::Duration::ZERO,
        };
        let tokens = AccessTokens::new(&[key], rules).unwrap();
        let _ = self.keys.send(json!({ "keys": tokens.public_keys() }));
        tokens
    }

    fn config(&self) -> IssuerConfig {
        IssuerConfig {
            issuer: self.url.clone(),
            audience: "baton".into(),
            algorithm: IssuerAlgorithm::EdDsa,
            jwks_url: None,
            tenant: Some("test".into()),
            tenant_claim: None,
            role_claim: None,
            default_role: "member".into(),
        }
    }
}

fn token(tokens: &AccessTokens) -> String {
    let now = SystemClock.now();
    let access = NewAccess {
        user: UserId::new(now),
        session: SessionId::new(now),
        tenant: TenantId::new(now),
    };
    tokens.issue(access, now, Uuid::new_v4()).unwrap()
}

#[tokio::test]
async fn an_issuers_token_acts_for_the_configured_tenant_with_the_configured_role() {
    let issuer = Issuer::start().await;
    let good = issuer.sign_by("one", FIRST, "baton");
    let config = issuer.config();
    let fixture = Fixture::start_with(|c| c.auth.issuers = vec![config]).await;
    let bearer = token(&good);
    let (status, me) = fixture
        .ask(&bearer, "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!(status, 200, "{me}");
    // Not the tenant in the token: the configuration names no such claim.
    assert_eq!(me["tenant"], json!(fixture.tenant));
    assert_eq!(
        (&me["kind"], &me["role"]),
        (&json!("issuer"), &json!("member"))
    );
    let run = json!({"model": "m", "input": "x"});
    let (status, run) = fixture.ask(&bearer, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "{run}");
    let (status, _) = fixture
        .ask(&bearer, "POST", "/v1/api-keys", json!({"name": "k"}))
        .await;
    assert_eq!(status, 403, "a member makes no keys");
    let (status, error) = fixture
        .ask(&bearer, "GET", "/v1/auth/sessions", Value::Null)
        .await;
    assert_eq!((status, &error["code"]), (403, &json!("not_signed_in")));

    let other_audience = issuer.sign_by("one", FIRST, "another");
    let (status, _) = fixture
        .ask(&token(&other_audience), "GET", "/v1/runs", Value::Null)
        .await;
    assert_eq!(status, 401);
    let impostor = issuer.sign_by("one", SECOND, "baton");
    let (status, _) = fixture
        .ask(&token(&impostor), "GET", "/v1/runs", Value::Null)
        .await;
    assert_eq!(
        status, 401,
        "the key that is known under this name is another"
    );
    let stranger = Issuer::start().await;
    let foreign = stranger.sign_by("one", FIRST, "baton");
    let (status, _) = fixture
        .ask(&token(&foreign), "GET", "/v1/runs", Value::Null)
        .await;
    assert_eq!(status, 401);
    assert_eq!(
        stranger.fetched.load(Ordering::SeqCst),
        0,
        "nobody asked a stranger"
    );
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_a_new_name_and_not_for_every_made_up_one() {
    let issuer = Issuer::start().await;
    let good = issuer.sign_by("one", FIRST, "baton");
    let config = issuer.config();
    let fixture = Fixture::start_with(|c| c.auth.issuers = vec![config]).await;
    for _ in 0..3 {
        let (status, _) = fixture
            .ask(&token(&good), "GET", "/v1/runs", Value::Null)
            .await;
        assert_eq!(status, 200);
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1);
    // Invented names, right after the fetch: refused without another fetch.
    let keys = issuer.keys.borrow().clone();
    for kid in ["a", "b", "c"] {
        let made_up = issuer.sign_by(kid, SECOND, "baton");
        let _ = issuer.keys.send(keys.clone());
        let (status, _) = fixture
            .ask(&token(&made_up), "GET", "/v1/runs", Value::Null)
            .await;
        assert_eq!(status, 401);
    }
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1);
    // An ingress that has not fetched yet gets the new key at once.
    let config = issuer.config();
    let rotated = issuer.sign_by("two", SECOND, "baton");
    let fresh = Fixture::start_with(|c| c.auth.issuers = vec![config]).await;
    let (status, _) = fresh
        .ask(&token(&rotated), "GET", "/v1/runs", Value::Null)
        .await;
    assert_eq!(status, 200);
}

/// Returns a token of the issuer with these claims and the mandatory ones.
fn claiming(issuer: &Issuer, claims: &Value) -> String {
    let now = SystemClock.now().timestamp();
    let mut all = json!({
        "iss": issuer.url, "aud": "baton", "sub": "somebody", "exp": now + 300, "nbf": now,
        "jti": Uuid::new_v4(),
    });
    let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) else {
        panic!("claims are an object");
    };
    all.extend(claims.clone());
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.kid = Some("one".to_owned());
    let key = jsonwebtoken::EncodingKey::from_ed_pem(FIRST.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, all, &key).unwrap()
}

/// Starts an ingress that reads tenant and role from these claims, and creates a second tenant.
async fn reading_claims(issuer: &Issuer) -> (Fixture, TenantId) {
    issuer.sign_by("one", FIRST, "baton");
    let config = IssuerConfig {
        tenant: None,
        tenant_claim: Some("org".into()),
        role_claim: Some("roles".into()),
        ..issuer.config()
    };
    let fixture = Fixture::start_with(|c| c.auth.issuers = vec![config]).await;
    let acme = TenantId::new(SystemClock.now());
    let system = fixture.store.system();
    let acme = system.ensure_tenant(acme, "acme").await.unwrap().id;
    (fixture, acme)
}

#[tokio::test]
async fn a_claim_names_the_tenant_by_name_or_id_or_the_token_is_refused() {
    let issuer = Issuer::start().await;
    let (fixture, acme) = Box::pin(reading_claims(&issuer)).await;
    for (claims, tenant) in [
        (json!({"org": "acme"}), Some(acme)),
        (json!({"org": acme}), Some(acme)),
        (json!({"org": "test"}), Some(fixture.tenant)),
        (json!({}), None),
        (json!({"org": null}), None),
        (json!({"org": ""}), None),
        (json!({"org": "nobody"}), None),
        (json!({"org": "ACME"}), None),
        (json!({"org": "acme "}), None),
        (json!({"org": TenantId::new(SystemClock.now())}), None),
        // One tenant, as a string: no other form is interpreted.
        (json!({"org": ["acme"]}), None),
        (json!({"org": {"name": "acme"}}), None),
        (json!({"org": 7}), None),
        (json!({"org": true}), None),
        (json!({"tenant": acme, "name": "acme"}), None),
    ] {
        let bearer = claiming(&issuer, &claims);
        let asked = fixture.ask(&bearer, "GET", "/v1/auth/me", Value::Null);
        let (status, me) = asked.await;
        match tenant {
            Some(tenant) => {
                assert_eq!(status, 200, "{claims}: {me}");
                assert_eq!(me["tenant"], json!(tenant), "{claims}");
            }
            None => assert_eq!(
                (status, &me["code"]),
                (401, &json!("invalid_token")),
                "{claims}"
            ),
        }
    }
}

#[tokio::test]
async fn a_claim_gives_the_highest_role_it_names_and_never_that_of_an_owner() {
    let issuer = Issuer::start().await;
    let (fixture, _) = Box::pin(reading_claims(&issuer)).await;
    // Without a known role: the configured one, a member's.
    for (roles, role) in [
        (json!("viewer"), "viewer"),
        (json!("member"), "member"),
        (json!("admin"), "admin"),
        (json!("owner"), "admin"),
        (json!(["viewer", "admin", "member"]), "admin"),
        (json!(["staff", "viewer"]), "viewer"),
        (json!(["owner", "viewer"]), "admin"),
        (json!([["owner"], {"role": "owner"}, 7, "viewer"]), "viewer"),
        (json!(null), "member"),
        (json!([]), "member"),
        (json!("staff"), "member"),
        (json!("Admin"), "member"),
        (json!("admin viewer"), "member"),
        (json!({"admin": true}), "member"),
        (json!(7), "member"),
    ] {
        let bearer = claiming(&issuer, &json!({"org": "acme", "roles": roles}));
        let asked = fixture.ask(&bearer, "GET", "/v1/auth/me", Value::Null);
        let (status, me) = asked.await;
        assert_eq!(status, 200, "{roles}: {me}");
        assert_eq!(me["role"], role, "{roles}");
        let asked = fixture.ask(&bearer, "POST", "/v1/api-keys", json!({"name": "k"}));
        let may = asked.await.0 == 201;
        assert_eq!(may, role == "admin", "{roles}: the role is what counts");
    }
    let bearer = claiming(&issuer, &json!({"org": "acme"}));
    let (_, me) = fixture
        .ask(&bearer, "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!(me["role"], "member");
}
