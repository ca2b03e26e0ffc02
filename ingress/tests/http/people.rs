//! Members, invites, passwords, and their audit log.

use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::InviteId;
use baton_service::config::Registration;
use baton_service::{Clock as _, SystemClock};
use baton_store::AuditFilter;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, answer};

async fn post(fixture: &Fixture, path: &str, body: Value) -> (u16, Value) {
    answer(fixture.plain("POST", path, &body).send().await.unwrap()).await
}

/// Invites a person to the fixture's tenant, and registers them; returns their access token and id.
async fn member(fixture: &Fixture, email: &str, role: &str) -> (String, String) {
    let invite = fixture.invite(role).await;
    let body = json!({"email": email, "password": PASSWORD, "token": invite["token"]});
    let (status, tokens) = post(fixture, "/v1/auth/register", body).await;
    assert_eq!(status, 201, "{tokens}");
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    let (_, me) = fixture
        .ask(&access, "GET", "/v1/auth/me", Value::Null)
        .await;
    assert_eq!(
        (&me["role"], &me["tenant"]),
        (&json!(role), &json!(fixture.tenant))
    );
    (access, me["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn each_role_may_do_what_it_may_and_a_change_of_it_counts_at_once() {
    let fixture = Fixture::start_with(|config| {
        config.auth.registration = Registration::Invited;
    })
    .await;
    let run = json!({"model": "m", "input": "x"});
    let key = json!({"name": "k"});
    let may = async |who: &str| {
        let mut may = Vec::new();
        for (method, path, body) in [
            ("GET", "/v1/runs", Value::Null),
            ("POST", "/v1/runs", run.clone()),
            ("POST", "/v1/api-keys", key.clone()),
            ("GET", "/v1/members", Value::Null),
        ] {
            let (status, _) = fixture.ask(who, method, path, body).await;
            assert!(
                [200, 201, 202, 403].contains(&status),
                "{method} {path}: {status}"
            );
            may.push(status != 403);
        }
        may
    };
    let (viewer, viewer_id) = member(&fixture, "v@example.org", "viewer").await;
    let (admin, admin_id) = member(&fixture, "a@example.org", "admin").await;
    let (owner, _) = member(&fixture, "o@example.org", "owner").await;
    assert_eq!(may(&viewer).await, [true, false, false, false]);
    assert_eq!(may(&admin).await, [true; 4]);
    assert_eq!(may(&owner).await, [true; 4]);

    let change = async |who: &str, whom: &str, role: &str| {
        let path = format!("/v1/members/{whom}");
        fixture
            .ask(who, "PATCH", &path, json!({"role": role}))
            .await
    };
    let (status, error) = change(&admin, &admin_id, "owner").await;
    assert_eq!((status, &error["code"]), (403, &json!("role_too_low")));
    let (status, _) = change(&viewer, &viewer_id, "owner").await;
    assert_eq!(status, 403);
    let (status, _) = change(&admin, &viewer_id, "member").await;
    assert_eq!(status, 200);
    let (status, _) = change(&admin, "nonsense", "member").await;
    assert_eq!(status, 404);
    // The token is old, but the role is the present one. Other ingresses look it up again within
    // seconds.
    let (base, _) = fixture.another_ingress().await;
    let request = fixture.request(reqwest::Method::POST, &format!("{base}/v1/runs"));
    let request = request.bearer_auth(&viewer).body(run.to_string());
    assert_eq!(request.send().await.unwrap().status(), 202);

    let path = format!("/v1/members/{viewer_id}");
    let (status, _) = fixture.ask(&owner, "DELETE", &path, Value::Null).await;
    assert_eq!(status, 200);
    let request = fixture.get_from(&base, "/v1/members");
    let list: Value =
        serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 2, "{list}");
    let stranger = fixture.key_of_another_tenant(5).await;
    let path = format!("/v1/members/{admin_id}");
    let (status, _) = fixture.ask(&stranger, "DELETE", &path, Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn registration_is_for_whoever_it_is_for() {
    let fixture = Fixture::start_with(|config| {
        config.auth.registration = Registration::Closed;
    })
    .await;
    let bootstrap = OpaqueToken::from_random(TokenKind::Bootstrap, [3; 32]);
    let system = fixture.store.system();
    let hash = bootstrap.hash();
    let made = system.create_bootstrap(
        InviteId::new(SystemClock.now()),
        &hash,
        fixture.tenant,
        "operator",
        std::time::Duration::from_hours(1),
    );
    assert!(made.await.unwrap().is_some());
    let invite = fixture.invite("member").await;
    let register = async |email: &str, token: Value| {
        let body = json!({"email": email, "password": PASSWORD, "token": token});
        post(&fixture, "/v1/auth/register", body).await
    };
    for token in [Value::Null, invite["token"].clone()] {
        let (status, error) = register("x@example.org", token).await;
        assert_eq!(
            (status, &error["code"]),
            (403, &json!("registration_closed"))
        );
    }
    let (status, tokens) = register("first@example.org", json!(bootstrap.expose())).await;
    assert_eq!(status, 201, "{tokens}");
    let first = tokens["access_token"].as_str().unwrap();
    let (_, me) = fixture.ask(first, "GET", "/v1/auth/me", Value::Null).await;
    assert_eq!(
        (&me["role"], &me["tenant"]),
        (&json!("owner"), &json!(fixture.tenant))
    );
    let (status, error) = register("second@example.org", json!(bootstrap.expose())).await;
    assert_eq!((status, &error["code"]), (400, &json!("token_refused")));
}

#[tokio::test]
async fn one_person_belongs_to_several_tenants_and_a_token_names_one() {
    let fixture = Fixture::start().await;
    let tokens = fixture.register("anna@example.org").await;
    let at_home = tokens["access_token"].as_str().unwrap();
    let (_, me) = fixture
        .ask(at_home, "GET", "/v1/auth/me", Value::Null)
        .await;
    let switch = json!({"tenant": fixture.tenant});
    let (status, error) = fixture
        .ask(at_home, "POST", "/v1/auth/switch", switch.clone())
        .await;
    assert_eq!((status, &error["code"]), (403, &json!("not_a_member")));

    let wish = json!({"role": "viewer", "email": "Anna@example.org"});
    let (_, invite) = fixture.ask(&fixture.key, "POST", "/v1/invites", wish).await;
    let token = json!({"token": invite["token"]});
    let bob = fixture.register("bob@example.org").await;
    let bob = bob["access_token"].as_str().unwrap();
    let accept = "/v1/auth/accept-invite";
    let (status, _) = fixture.ask(bob, "POST", accept, token.clone()).await;
    assert_eq!(status, 400, "meant for somebody else");
    let (status, joined) = fixture.ask(at_home, "POST", accept, token.clone()).await;
    assert_eq!((status, &joined["role"]), (200, &json!("viewer")));
    let (status, _) = fixture.ask(at_home, "POST", accept, token).await;
    assert_eq!(status, 400, "used");

    let (status, there) = fixture
        .ask(at_home, "POST", "/v1/auth/switch", switch)
        .await;
    assert_eq!(status, 200, "{there}");
    let there = there["access_token"].as_str().unwrap();
    let run = json!({"model": "m", "input": "x"});
    let (status, _) = fixture.ask(there, "POST", "/v1/runs", run.clone()).await;
    assert_eq!(status, 403, "a viewer there");
    let (status, _) = fixture.ask(at_home, "POST", "/v1/runs", run).await;
    assert_eq!(status, 202, "an owner at home");
    let body = json!({"refresh_token": tokens["refresh_token"], "tenant": me["tenant"]});
    let (status, back) = post(&fixture, "/v1/auth/refresh", body).await;
    assert_eq!(status, 200);
    let back = back["access_token"].as_str().unwrap();
    let (_, me_again) = fixture.ask(back, "GET", "/v1/auth/me", Value::Null).await;
    assert_eq!(me_again["tenant"], me["tenant"]);
    assert_eq!(me_again["memberships"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_password_is_changed_by_the_old_one_and_reset_by_a_token_and_ends_other_sessions() {
    let fixture = Fixture::start().await;
    let (access, id) = member(&fixture, "anna@example.org", "member").await;
    let login = async |password: &str| {
        let body = json!({"email": "anna@example.org", "password": password});
        post(&fixture, "/v1/auth/login", body).await
    };
    let (_, elsewhere) = login(PASSWORD).await;
    let elsewhere = elsewhere["access_token"].as_str().unwrap();
    let (_, sessions) = fixture
        .ask(&access, "GET", "/v1/auth/sessions", Value::Null)
        .await;
    assert_eq!(sessions["data"].as_array().unwrap().len(), 2, "{sessions}");
    assert!(sessions["data"][0]["ip"].is_string());

    let wrong = json!({"current_password": "wrong wrong", "new_password": "another long one"});
    let (status, _) = fixture
        .ask(&access, "POST", "/v1/auth/password", wrong)
        .await;
    assert_eq!(status, 401);
    let right = json!({"current_password": PASSWORD, "new_password": "another long one"});
    let (status, error) = fixture
        .ask(&access, "POST", "/v1/auth/password", right)
        .await;
    assert_eq!(status, 204, "{error}");
    let me = async |who: &str| fixture.ask(who, "GET", "/v1/auth/me", Value::Null).await.0;
    assert_eq!((me(&access).await, me(elsewhere).await), (200, 401));
    assert_eq!(login(PASSWORD).await.0, 401);
    assert_eq!(login("another long one").await.0, 200);

    let path = format!("/v1/members/{id}/password-reset");
    let (status, reset) = fixture.ask(&fixture.key, "POST", &path, Value::Null).await;
    assert_eq!(status, 201, "{reset}");
    let body = json!({"token": reset["token"], "new_password": "the third long one"});
    let (status, error) = post(&fixture, "/v1/auth/password/reset", body.clone()).await;
    assert_eq!(status, 204, "{error}");
    let (status, _) = post(&fixture, "/v1/auth/password/reset", body).await;
    assert_eq!(status, 400, "used");
    assert_eq!(me(&access).await, 401);
    assert_eq!(login("the third long one").await.0, 200);

    // A tenant cannot take over a person who belongs to another tenant, too.
    let bob = fixture.register("bob@example.org").await;
    let bob = bob["access_token"].as_str().unwrap();
    let invite = fixture.invite("viewer").await;
    let token = json!({"token": invite["token"]});
    fixture
        .ask(bob, "POST", "/v1/auth/accept-invite", token)
        .await;
    let (_, me) = fixture.ask(bob, "GET", "/v1/auth/me", Value::Null).await;
    let path = format!("/v1/members/{}/password-reset", me["id"].as_str().unwrap());
    let (status, error) = fixture.ask(&fixture.key, "POST", &path, Value::Null).await;
    assert_eq!((status, &error["code"]), (403, &json!("not_here_alone")));
}

#[tokio::test]
async fn what_was_done_and_what_was_refused_stands_in_the_log_without_a_secret() {
    let fixture = Fixture::start().await;
    let (access, id) = member(&fixture, "anna@example.org", "admin").await;
    let wrong = json!({"email": "anna@example.org", "password": "not her password"});
    post(&fixture, "/v1/auth/login", wrong).await;
    let request = fixture
        .plain("POST", "/v1/api-keys", &json!({"name": "ci"}))
        .bearer_auth(&access)
        .header("user-agent", "test/1")
        .header("x-request-id", "r-17");
    let (_, key) = answer(request.send().await.unwrap()).await;
    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    fixture.ask(&access, "DELETE", &path, Value::Null).await;
    let run = json!({"model": "m", "input": "x"});
    let (_, run) = fixture.ask(&access, "POST", "/v1/runs", run).await;
    let run = run["id"].as_str().unwrap();
    let path = format!("/v1/runs/{run}/cancel");
    let (status, _) = fixture.ask(&access, "POST", &path, Value::Null).await;
    assert_eq!(status, 200);

    let filter = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    let log = fixture.store.system().audit_log(&filter).await.unwrap();
    let told: Vec<_> = log
        .iter()
        .map(|entry| (entry.action.as_str(), entry.result.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("invite.created", "done"),
            ("user.registered", "done"),
            ("session.opened", "refused"),
            ("key.created", "done"),
            ("key.revoked", "done"),
            ("run.cancelled", "done"),
        ]
    );
    let made = &log[3];
    assert_eq!(made.actor.as_deref(), Some(id.as_str()));
    assert_eq!(made.tenant, Some(fixture.tenant));
    assert_eq!(made.user_agent.as_deref(), Some("test/1"));
    assert_eq!(made.request_id.as_deref(), Some("r-17"));
    assert!(made.ip.is_some());
    assert_eq!(log[5].target, Some(format!("run:{run}")));
    let all = format!("{log:?}");
    let secret = key["key"].as_str().unwrap();
    assert!(!all.contains(PASSWORD) && !all.contains(secret) && !all.contains("not her"));
}
