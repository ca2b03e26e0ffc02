//! Authority is checked at the time of use: a token or key is worth no more than its creator's
//! present role.

use baton_protocol::TenantId;
use baton_service::{Clock as _, SystemClock};
use baton_store::AuditFilter;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, answer};

const NEW_PASSWORD: &str = "another horse battery";

async fn post(fixture: &Fixture, path: &str, body: Value) -> (u16, Value) {
    answer(fixture.plain("POST", path, &body).send().await.unwrap()).await
}

/// A person who joined the fixture's tenant.
struct Person {
    email: String,
    access: String,
    id: String,
}

async fn join(fixture: &Fixture, email: &str, role: &str) -> Person {
    let invite = fixture.invite(role).await;
    let body = json!({"email": email, "password": PASSWORD, "token": invite["token"]});
    let (status, tokens) = post(fixture, "/v1/auth/register", body).await;
    assert_eq!(status, 201, "{tokens}");
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    let (_, me) = fixture
        .ask(&access, "GET", "/v1/auth/me", Value::Null)
        .await;
    Person {
        email: email.to_owned(),
        access,
        id: me["id"].as_str().unwrap().to_owned(),
    }
}

/// Creates a token, by `by`, that resets a person's password.
async fn reset_by(fixture: &Fixture, by: &str, whom: &Person) -> Value {
    let path = format!("/v1/members/{}/password-reset", whom.id);
    let (status, reset) = fixture.ask(by, "POST", &path, Value::Null).await;
    assert_eq!(status, 201, "{reset}");
    reset["token"].clone()
}

async fn use_reset(fixture: &Fixture, token: &Value) -> u16 {
    let body = json!({"token": token, "new_password": NEW_PASSWORD});
    post(fixture, "/v1/auth/password/reset", body).await.0
}

async fn change_role(fixture: &Fixture, by: &str, whom: &Person, role: &str) {
    let path = format!("/v1/members/{}", whom.id);
    let (status, answer) = fixture.ask(by, "PATCH", &path, json!({"role": role})).await;
    assert!(status < 300, "{status} {answer}");
}

async fn remove(fixture: &Fixture, by: &str, whom: &Person, query: &str) -> (u16, Value) {
    let path = format!("/v1/members/{}{query}", whom.id);
    fixture.ask(by, "DELETE", &path, Value::Null).await
}

async fn signs_in(fixture: &Fixture, who: &Person, password: &str) -> bool {
    let body = json!({"email": who.email, "password": password});
    post(fixture, "/v1/auth/login", body).await.0 == 200
}

/// Creates something, and expects success.
async fn make(fixture: &Fixture, by: &str, path: &str, body: Value) -> Value {
    let (status, made) = fixture.ask(by, "POST", path, body).await;
    assert_eq!(status, 201, "{path}: {made}");
    made
}

async fn lives(fixture: &Fixture, key: &Value) -> bool {
    let key = key["key"].as_str().unwrap();
    let (status, _) = fixture.ask(key, "GET", "/v1/auth/me", Value::Null).await;
    status == 200
}

#[tokio::test]
async fn a_reset_made_in_one_tenant_is_refused_once_its_person_belongs_to_another() {
    let fixture = Fixture::start().await;
    let admin = join(&fixture, "admin@example.org", "admin").await;
    let victim = join(&fixture, "victim@example.org", "member").await;
    let token = reset_by(&fixture, &admin.access, &victim).await;

    let there = fixture.register("founder@example.org").await;
    let founder = there["access_token"].as_str().unwrap();
    let invite = make(&fixture, founder, "/v1/invites", json!({"role": "owner"})).await;
    let (status, joined) = fixture
        .ask(
            &victim.access,
            "POST",
            "/v1/auth/accept-invite",
            json!({"token": invite["token"]}),
        )
        .await;
    assert_eq!((status, &joined["role"]), (200, &json!("owner")));

    assert_eq!(use_reset(&fixture, &token).await, 400);
    assert!(!signs_in(&fixture, &victim, NEW_PASSWORD).await);
    assert!(signs_in(&fixture, &victim, PASSWORD).await);
}

#[tokio::test]
async fn a_reset_ends_with_a_change_of_its_persons_role() {
    let fixture = Fixture::start().await;
    let admin = join(&fixture, "admin@example.org", "admin").await;
    join(&fixture, "owner@example.org", "owner").await;
    let risen = join(&fixture, "risen@example.org", "member").await;
    let token = reset_by(&fixture, &admin.access, &risen).await;
    change_role(&fixture, &fixture.key, &risen, "owner").await;
    assert_eq!(use_reset(&fixture, &token).await, 400);
    // The old role does not revive it.
    change_role(&fixture, &fixture.key, &risen, "member").await;
    assert_eq!(use_reset(&fixture, &token).await, 400);
    let again = reset_by(&fixture, &admin.access, &risen).await;
    assert_eq!(use_reset(&fixture, &again).await, 204);
}

#[tokio::test]
async fn a_reset_is_worth_what_its_maker_is_now() {
    let fixture = Fixture::start().await;
    let victim = join(&fixture, "victim@example.org", "member").await;
    let demoted = join(&fixture, "demoted@example.org", "admin").await;
    let token = reset_by(&fixture, &demoted.access, &victim).await;
    change_role(&fixture, &fixture.key, &demoted, "member").await;
    assert_eq!(
        use_reset(&fixture, &token).await,
        400,
        "its maker is demoted"
    );

    let removed = join(&fixture, "removed@example.org", "admin").await;
    let token = reset_by(&fixture, &removed.access, &victim).await;
    let (status, _) = remove(&fixture, &fixture.key, &removed, "").await;
    assert!(status < 300);
    assert_eq!(use_reset(&fixture, &token).await, 400, "its maker is gone");

    let wish = json!({"name": "all", "scopes": ["*"]});
    let key = make(&fixture, &fixture.key, "/v1/api-keys", wish).await;
    let token = reset_by(&fixture, key["key"].as_str().unwrap(), &victim).await;
    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    let (status, _) = fixture
        .ask(&fixture.key, "DELETE", &path, Value::Null)
        .await;
    assert!(status < 300);
    assert_eq!(use_reset(&fixture, &token).await, 400, "its key is revoked");
    assert!(signs_in(&fixture, &victim, PASSWORD).await);
}

#[tokio::test]
async fn a_removed_administrator_does_not_come_back_by_what_they_made() {
    let fixture = Fixture::start().await;
    let admin = join(&fixture, "admin@example.org", "admin").await;
    let invite = make(
        &fixture,
        &admin.access,
        "/v1/invites",
        json!({"role": "admin"}),
    )
    .await;
    let wish = json!({"name": "first", "scopes": ["keys:write", "runs:read", "models:read"]});
    let first = make(&fixture, &admin.access, "/v1/api-keys", wish).await;
    // Created with their own key, and with the key that replaces it.
    let by_first = first["key"].as_str().unwrap();
    let wish = json!({"name": "second", "scopes": ["keys:write", "runs:read"]});
    let second = make(&fixture, by_first, "/v1/api-keys", wish).await;
    let path = format!("/v1/api-keys/{}/rotate", second["id"].as_str().unwrap());
    let by_second = second["key"].as_str().unwrap();
    let third = make(&fixture, by_second, &path, json!({})).await;
    assert!(lives(&fixture, &third).await);

    let (status, left) = remove(&fixture, &fixture.key, &admin, "").await;
    assert_eq!(status, 200, "{left}");
    let ids = |list: &Value| {
        let mut ids: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].clone())
            .collect();
        ids.sort_by_key(ToString::to_string);
        ids
    };
    assert_eq!(ids(&left["ended"]["invites"]), [invite["id"].clone()]);
    let mut keys = [
        first["id"].clone(),
        second["id"].clone(),
        third["id"].clone(),
    ];
    keys.sort_by_key(ToString::to_string);
    assert_eq!(ids(&left["ended"]["api_keys"]), keys);
    assert_eq!(left["kept"]["api_keys"], json!([]));
    for key in [&first, &second, &third] {
        assert!(!lives(&fixture, key).await, "{}", key["name"]);
    }
    let body =
        json!({"email": "again@example.org", "password": PASSWORD, "token": invite["token"]});
    let (status, error) = post(&fixture, "/v1/auth/register", body).await;
    assert_eq!((status, &error["code"]), (400, &json!("token_refused")));
    let home = fixture.register("elsewhere@example.org").await;
    let (status, _) = fixture
        .ask(
            home["access_token"].as_str().unwrap(),
            "POST",
            "/v1/auth/accept-invite",
            json!({"token": invite["token"]}),
        )
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn keys_of_a_removed_member_are_kept_by_somebody_who_could_make_them() {
    let fixture = Fixture::start().await;
    let owner = join(&fixture, "owner@example.org", "owner").await;
    let other = join(&fixture, "other@example.org", "owner").await;
    join(&fixture, "third@example.org", "owner").await;
    let all = json!({"name": "all", "scopes": ["*"]});
    let kept = make(&fixture, &owner.access, "/v1/api-keys", all).await;
    // This key may remove an owner, but not create such a key.
    let (status, error) = {
        let wish = json!({"name": "members", "scopes": ["members:write", "runs:read"]});
        let weak = make(&fixture, &fixture.key, "/v1/api-keys", wish).await;
        let weak = weak["key"].as_str().unwrap().to_owned();
        remove(&fixture, &weak, &owner, "?api_keys=keep").await
    };
    assert_eq!(status, 403, "{error}");
    assert!(lives(&fixture, &kept).await);

    let (status, left) = remove(&fixture, &other.access, &owner, "?api_keys=keep").await;
    assert_eq!(status, 200, "{left}");
    assert_eq!(left["kept"]["api_keys"][0]["id"], kept["id"]);
    assert_eq!(left["ended"]["api_keys"], json!([]));
    assert!(lives(&fixture, &kept).await);
    // The key now belongs to the keeper: it ends with them.
    let (status, left) = remove(&fixture, &fixture.key, &other, "").await;
    assert_eq!(status, 200, "{left}");
    assert_eq!(left["ended"]["api_keys"][0]["id"], kept["id"]);
    assert!(!lives(&fixture, &kept).await);
}

#[tokio::test]
async fn a_demoted_maker_keeps_no_key_that_goes_beyond_the_new_role() {
    let fixture = Fixture::start().await;
    let maker = join(&fixture, "maker@example.org", "admin").await;
    let wish = json!({"name": "strong", "scopes": ["keys:write"]});
    let strong = make(&fixture, &maker.access, "/v1/api-keys", wish).await;
    let wish = json!({"name": "weak", "scopes": ["runs:read"]});
    let weak = make(&fixture, &maker.access, "/v1/api-keys", wish).await;
    let invite = make(
        &fixture,
        &maker.access,
        "/v1/invites",
        json!({"role": "viewer"}),
    )
    .await;
    let path = format!("/v1/members/{}", maker.id);
    let (status, left) = fixture
        .ask(&fixture.key, "PATCH", &path, json!({"role": "member"}))
        .await;
    assert_eq!(status, 200, "{left}");
    assert_eq!(left["ended"]["api_keys"][0]["id"], strong["id"]);
    assert_eq!(left["kept"]["api_keys"][0]["id"], weak["id"]);
    assert_eq!(left["ended"]["invites"][0]["id"], invite["id"]);
    assert!(!lives(&fixture, &strong).await);
    assert!(lives(&fixture, &weak).await);
    let body = json!({"email": "new@example.org", "password": PASSWORD, "token": invite["token"]});
    assert_eq!(post(&fixture, "/v1/auth/register", body).await.0, 400);
}

#[tokio::test]
async fn nobody_revokes_what_they_could_not_make() {
    let fixture = Fixture::start().await;
    let revoke = async |by: &str, id: &Value| {
        let path = format!("/v1/api-keys/{}", id.as_str().unwrap());
        let (status, error) = fixture.ask(by, "DELETE", &path, Value::Null).await;
        (status, error["code"].clone())
    };
    let key = async |name: &str, wish: Value| {
        let mut wish = wish;
        wish["name"] = json!(name);
        make(&fixture, &fixture.key, "/v1/api-keys", wish).await
    };
    let all = key("all", json!({"scopes": ["*"]})).await;
    let equal = key("equal", json!({"scopes": ["keys:write"]})).await;
    let weak = key("weak", json!({"scopes": ["keys:write"]})).await;
    let by = weak["key"].as_str().unwrap();
    let beyond = (403, json!("beyond_own_rights"));
    assert_eq!(revoke(by, &all["id"]).await, beyond);
    assert!(lives(&fixture, &all).await);
    assert_eq!(revoke(by, &equal["id"]).await.0, 204);
    assert!(!lives(&fixture, &equal).await);
    // A key that has limits can create none, so it can revoke none, except itself.
    let limits = json!({"scopes": ["keys:write"], "limits": {"per_day": 1_000}});
    let limited = key("limited", limits).await;
    let by_limited = limited["key"].as_str().unwrap();
    let other = key("other", json!({"scopes": ["runs:read"]})).await;
    assert_eq!(
        revoke(by_limited, &other["id"]).await,
        (403, json!("limited_key"))
    );
    assert_eq!(revoke(by_limited, &limited["id"]).await.0, 204);
    let admin = join(&fixture, "admin@example.org", "admin").await;
    assert_eq!(revoke(&admin.access, &all["id"]).await, beyond);

    let invite = make(
        &fixture,
        &fixture.key,
        "/v1/invites",
        json!({"role": "owner"}),
    )
    .await;
    let path = format!("/v1/invites/{}", invite["id"].as_str().unwrap());
    let only = key("only", json!({"scopes": ["members:write"]})).await;
    for by in [&admin.access, only["key"].as_str().unwrap()] {
        let (status, error) = fixture.ask(by, "DELETE", &path, Value::Null).await;
        assert_eq!((status, &error["code"]), (403, &json!("role_too_low")));
    }
    let (status, _) = fixture
        .ask(&fixture.key, "DELETE", &path, Value::Null)
        .await;
    assert_eq!(status, 204);
}

#[tokio::test]
async fn a_stranger_registers_no_tenant_that_an_operator_could_mean() {
    let fixture = Fixture::start().await;
    let system = fixture.store.system();
    let register = async |email: &str, tenant: &str| {
        let body = json!({"email": email, "password": PASSWORD, "tenant": tenant});
        post(&fixture, "/v1/auth/register", body).await
    };
    let (status, tokens) = register("eve@example.org", "globex").await;
    assert_eq!(status, 201, "{tokens}");
    let eve = tokens["access_token"].as_str().unwrap();
    let (_, me) = fixture.ask(eve, "GET", "/v1/auth/me", Value::Null).await;
    let found = system.tenant_by_name("globex").await.unwrap();
    assert!(found.is_none(), "an operator's name leads to {found:?}");
    let fresh = TenantId::new(SystemClock.now());
    let made = system.ensure_tenant(fresh, "globex").await.unwrap();
    assert_eq!(made.id, fresh);
    assert_ne!(me["tenant"], json!(made.id));

    let look_alikes = [
        "default",
        "Default",
        "default ",
        "ＤＥＦＡＵＬＴ",
        "defau1t",
        "d\u{435}fault",
        "Globex",
        "gl\u{3bf}bex",
        "test",
        "T\u{435}st",
        "tes\u{200b}t",
        "~globex",
        "",
    ];
    for (n, name) in look_alikes.into_iter().enumerate() {
        let (status, error) = register(&format!("s{n}@example.org"), name).await;
        assert!([400, 409].contains(&status), "{name:?}: {status} {error}");
        let code = error["code"].as_str().unwrap();
        assert!(
            ["invalid_name", "tenant_taken"].contains(&code),
            "{name:?}: {error}"
        );
    }
    // Among the names that strangers chose, spellings that differ only in case are one name.
    let (status, error) = register("second@example.org", " GLOBEX INC ").await;
    assert_eq!(status, 201, "{error}");
    let (status, error) = register("third@example.org", "globex inc").await;
    assert_eq!((status, &error["code"]), (409, &json!("tenant_taken")));
}

#[tokio::test]
async fn tries_from_many_networks_at_one_account_are_slowed_and_its_owner_is_not() {
    let fixture = Fixture::start_with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let login = async |from: String, password: &str| {
        let body = json!({"email": "anna@example.org", "password": password});
        let request = fixture.plain("POST", "/v1/auth/login", &body);
        answer(
            request
                .header("x-forwarded-for", from)
                .send()
                .await
                .unwrap(),
        )
        .await
    };
    let body = json!({"email": "anna@example.org", "password": PASSWORD});
    let request = fixture.plain("POST", "/v1/auth/register", &body);
    let at_home = request.header("x-forwarded-for", "192.0.2.1");
    let (status, tokens) = answer(at_home.send().await.unwrap()).await;
    assert_eq!(status, 201, "{tokens}");

    let mut tried = 0;
    for network in 0..100 {
        let (status, error) = login(format!("198.51.100.{network}"), "wrong").await;
        match status {
            401 => tried += 1,
            429 => assert_eq!(error["code"], "too_many_tries"),
            other => panic!("{other}: {error}"),
        }
    }
    assert!(
        tried <= 40,
        "{tried} passwords were tried from 100 networks"
    );
    let (status, _) = login("203.0.113.9".into(), PASSWORD).await;
    assert_eq!(status, 429, "slowed for networks that nobody knows");

    // Sessions, and networks from which the person has signed in before, are not slowed down.
    let (status, _) = login("192.0.2.1".into(), PASSWORD).await;
    assert_eq!(status, 200);
    let access = tokens["access_token"].as_str().unwrap();
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let request = fixture.plain("POST", "/v1/auth/password", &change);
    let request = request.header("x-forwarded-for", "203.0.113.9");
    let (status, error) = answer(request.bearer_auth(access).send().await.unwrap()).await;
    assert_eq!(status, 204, "{error}");

    let filter = AuditFilter {
        action: Some("sign_in.slowed".into()),
        limit: 10,
        ..AuditFilter::default()
    };
    let entries = fixture.store.system().audit_log(&filter).await.unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let (_, me) = fixture.ask(access, "GET", "/v1/auth/me", Value::Null).await;
    let target = format!("user:{}", me["id"].as_str().unwrap());
    assert_eq!(entries[0].target.as_deref(), Some(&*target));
}
