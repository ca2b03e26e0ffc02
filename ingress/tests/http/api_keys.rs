//! Keys over HTTP: shown once, listed without their secret, rotated, revoked, and never with more
//! permissions than their creator.

use serde_json::{Value, json};

use crate::fixture::Fixture;

async fn make(fixture: &Fixture, by: &str, body: Value) -> (u16, Value) {
    fixture.ask(by, "POST", "/v1/api-keys", body).await
}

async fn alive(fixture: &Fixture, key: &Value) -> u16 {
    let key = key.as_str().unwrap();
    fixture.ask(key, "GET", "/v1/auth/me", Value::Null).await.0
}

#[tokio::test]
async fn a_key_is_shown_once_and_listed_with_all_but_its_secret() {
    let fixture = Fixture::start().await;
    let wish = json!({
        "name": "ci", "scopes": ["runs:write", "runs:read"], "models": ["m"], "tools": [],
        "expires_at": "2999-01-01T00:00:00Z",
        "limits": {"per_minute": 60, "per_day": 1000, "concurrent_runs": 2,
                   "monthly_tokens": 5_000_000_000_u64, "monthly_cost_micros": 20_000_000},
    });
    let (status, made) = make(&fixture, &fixture.key, wish.clone()).await;
    assert_eq!(status, 201, "{made}");
    for (name, value) in wish.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with(made["prefix"].as_str().unwrap()));
    assert!(made["created_by"].as_str().unwrap().starts_with("api_key:"));
    assert_eq!(alive(&fixture, &made["key"]).await, 200);

    let (status, list) = fixture
        .ask(&fixture.key, "GET", "/v1/api-keys", Value::Null)
        .await;
    assert_eq!(status, 200);
    assert!(!list.to_string().contains(key));
    let listed = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == made["id"])
        .unwrap();
    assert_eq!(listed["limits"], wish["limits"]);
    assert!(listed["last_used_at"].is_string());
    // The key's lists are enforced.
    let run = json!({"model": "other", "input": "x"});
    let (status, error) = fixture.ask(key, "POST", "/v1/runs", run).await;
    assert_eq!((status, &error["code"]), (403, &json!("model_not_allowed")));
    let (status, error) = fixture.ask(key, "GET", "/v1/models", Value::Null).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (403, &json!("scope_missing"))
    );
}

#[tokio::test]
async fn nobody_hands_on_more_than_they_have() {
    let fixture = Fixture::start().await;
    let confined = json!({
        "name": "confined", "scopes": ["keys:write", "runs:write", "members:write"],
        "models": ["m", "n"], "tools": ["calculator"],
        "expires_at": "2999-01-01T00:00:00Z",
    });
    let (status, made) = make(&fixture, &fixture.key, confined).await;
    assert_eq!(status, 201, "{made}");
    let by = made["key"].as_str().unwrap();
    let good = json!({
        "name": "x", "scopes": ["runs:write"], "models": ["m"], "tools": [],
        "limits": {"per_minute": 100}, "expires_at": "2998-01-01T00:00:00Z",
    });
    let (status, error) = make(&fixture, by, good.clone()).await;
    assert_eq!(status, 201, "{error}");
    for (param, value) in [
        ("scopes", json!(["runs:read"])),
        ("scopes", json!(["*"])),
        ("models", json!(["other"])),
        ("models", Value::Null),
        ("tools", json!(["calculator", "current_time"])),
        ("tools", Value::Null),
        ("expires_at", json!("2999-01-02T00:00:00Z")),
        ("expires_at", Value::Null),
    ] {
        let mut wish = good.clone();
        wish[param] = value;
        let (status, error) = make(&fixture, by, wish.clone()).await;
        assert_eq!((status, &error["param"]), (403, &json!(param)), "{wish}");
    }
    // Neither by other means: a rotation shows a secret, and an invite creates a person.
    let (_, list) = fixture
        .ask(&fixture.key, "GET", "/v1/api-keys", Value::Null)
        .await;
    let strong = list["data"][0]["id"].as_str().unwrap();
    let path = format!("/v1/api-keys/{strong}/rotate");
    let (status, error) = fixture.ask(by, "POST", &path, json!({})).await;
    assert_eq!((status, &error["code"]), (403, &json!("beyond_own_rights")));
    let invite = json!({"role": "viewer"});
    let (status, error) = fixture.ask(by, "POST", "/v1/invites", invite).await;
    assert_eq!((status, &error["code"]), (403, &json!("role_too_low")));

    // A key with limits would multiply them, however little each new key may do.
    for limit in [
        "per_minute",
        "per_day",
        "concurrent_runs",
        "monthly_tokens",
        "monthly_cost_micros",
    ] {
        let limits = json!({limit: 1_000});
        let wish = json!({"name": "limited", "scopes": ["*"], "limits": limits});
        let (status, limited) = make(&fixture, &fixture.key, wish).await;
        assert_eq!(status, 201, "{limited}");
        let by = limited["key"].as_str().unwrap();
        let path = format!("/v1/api-keys/{}/rotate", limited["id"].as_str().unwrap());
        for (path, wish) in [
            ("/v1/api-keys", json!({"name": "x", "limits": limits})),
            (&path, json!({})),
        ] {
            let (status, error) = fixture.ask(by, "POST", path, wish).await;
            assert_eq!(
                (status, &error["code"]),
                (403, &json!("limited_key")),
                "{limit} {path}"
            );
        }
    }

    for (wish, code) in [
        (
            json!({"name": "x", "scopes": ["runs:everything"]}),
            "unknown_scope",
        ),
        (json!({"name": ""}), "invalid_name"),
        (
            json!({"name": "x", "limits": {"per_day": 0}}),
            "invalid_limit",
        ),
        (
            json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}),
            "invalid_expiry",
        ),
        (json!({"name": "x", "admin": true}), "invalid_json"),
    ] {
        let (status, error) = make(&fixture, &fixture.key, wish).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)));
    }
}

#[tokio::test]
async fn a_rotated_key_goes_on_beside_its_successor_and_a_revoked_one_does_not() {
    let fixture = Fixture::start().await;
    let (_, old) = make(&fixture, &fixture.key, json!({"name": "ci"})).await;
    let rotate = format!("/v1/api-keys/{}/rotate", old["id"].as_str().unwrap());
    let (status, new) = fixture.ask(&fixture.key, "POST", &rotate, json!({})).await;
    assert_eq!(status, 201, "{new}");
    assert_eq!(new["rotated_from"], old["id"]);
    assert_eq!(new["scopes"], old["scopes"]);
    assert_ne!(new["key"], old["key"]);
    assert_eq!(alive(&fixture, &old["key"]).await, 200);
    assert_eq!(alive(&fixture, &new["key"]).await, 200);

    let path = format!("/v1/api-keys/{}", new["id"].as_str().unwrap());
    for _ in 0..2 {
        let (status, _) = fixture
            .ask(&fixture.key, "DELETE", &path, Value::Null)
            .await;
        assert_eq!(status, 204);
    }
    assert_eq!(
        alive(&fixture, &new["key"]).await,
        401,
        "known, and forgotten"
    );
    assert_eq!(alive(&fixture, &old["key"]).await, 200);
    let now = json!({"overlap_seconds": 0});
    let (status, _) = fixture.ask(&fixture.key, "POST", &rotate, now).await;
    assert_eq!(status, 201);

    // Another tenant's keys do not exist.
    let stranger = fixture.key_of_another_tenant(9).await;
    let id = old["id"].as_str().unwrap();
    for (method, path) in [
        ("DELETE", format!("/v1/api-keys/{id}")),
        ("POST", format!("/v1/api-keys/{id}/rotate")),
        ("DELETE", "/v1/api-keys/nonsense".to_owned()),
    ] {
        let (status, error) = fixture.ask(&stranger, method, &path, json!({})).await;
        assert_eq!((status, &error["code"]), (404, &json!("api_key_not_found")));
    }
    let reader = fixture.make_key(77, &["runs:read"], None).await;
    for (method, path) in [("GET", "/v1/api-keys"), ("POST", "/v1/api-keys")] {
        let (status, _) = fixture
            .ask(&reader, method, path, json!({"name": "x"}))
            .await;
        assert_eq!(status, 403, "{method}");
    }
}

#[tokio::test]
async fn a_key_says_what_it_is_for_and_so_does_its_successor() {
    let fixture = Fixture::start_with(|config| {
        "staging".clone_into(&mut config.auth.key_environment);
    })
    .await;
    let (_, made) = make(&fixture, &fixture.key, json!({"name": "n"})).await;
    let rotate = format!("/v1/api-keys/{}/rotate", made["id"].as_str().unwrap());
    let (_, next) = fixture.ask(&fixture.key, "POST", &rotate, json!({})).await;
    for key in [&made["key"], &next["key"]] {
        assert!(key.as_str().unwrap().starts_with("bt_staging_"), "{key}");
        assert_eq!(alive(&fixture, key).await, 200);
    }
}
