//! People and keys, by the command line and over HTTP, with real processes.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{model, options, run, stack};

const PASSWORD: &str = "correct horse battery";

/// Guards the worker's own check of the key, after the ingress has accepted the run.
#[tokio::test]
async fn a_queued_run_of_a_key_that_was_revoked_since_never_reaches_the_model() {
    let model = model(|_| Reply::text("too late")).await;
    let stack = stack(&model).await;
    let ingress = stack.ingress().await.unwrap();
    let owner = stack.client(&ingress);
    let made = owner.post("/v1/api-keys", &json!({"name": "short"})).await;
    let made = made.unwrap().json().unwrap();
    let client = ingress.client(made["key"].as_str().unwrap());
    let id = client.submit(&run()).await.unwrap();
    let key = made["id"].as_str().unwrap();
    stack
        .run(&["keys", "revoke", "--tenant", "default", key])
        .await
        .unwrap();

    let _worker = stack.worker().await.unwrap();
    let ended = owner.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["error"]["code"], "api_key_revoked");
    assert_eq!(model.counts().requests, 0);
}

/// Guards rights that mean nothing: by the command line they are refused as over HTTP, before a
/// tenant is made for them.
#[tokio::test]
async fn keys_with_unknown_scopes_or_limits_out_of_range_are_refused() {
    let model = model(|_| Reply::text("42")).await;
    let stack = stack(&model).await;
    for (wrong, words) in [
        (
            &["--scopes", "runs:red"][..],
            "`runs:red` is no scope: they are runs:write,",
        ),
        (&["--tools", ""], "`tools` holds at most 200 names"),
        (&["--per-minute", "0"], "0 is not in 1..=2147483647"),
    ] {
        let create = ["keys", "create", "--tenant", "nobody", "--name", "k"];
        let refused = stack.run(&[&create, wrong].concat()).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused:#}");
    }
    let none = stack.run(&["keys", "list", "--tenant", "nobody"]).await;
    assert!(none.is_err(), "{none:?}");
}

#[tokio::test]
async fn the_first_person_comes_by_a_bootstrap_token_and_what_happened_is_in_the_log() {
    let model = model(|_| Reply::text("42")).await;
    let secret = "7f-Kq2xw9ZbTn4Rv8yLmA1cE6uGdHs3J";
    let options = options(&model).set("JWT_SECRET", secret);
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let anybody = stack.client(&ingress);
    let register = async |token: Value| {
        let body = json!({"email": "anna@example.org", "password": PASSWORD, "token": token});
        anybody.post("/v1/auth/register", &body).await.unwrap()
    };
    assert_eq!(
        register(Value::Null).await.status,
        403,
        "not by being first"
    );
    let token = stack.run(&["users", "bootstrap"]).await.unwrap();
    let registered = register(json!(token.trim())).await;
    assert_eq!(registered.status, 201);
    let tokens = registered.json().unwrap();
    let anna = ingress.client(tokens["access_token"].as_str().unwrap());
    let id = anna.submit(&run()).await.unwrap();
    let ended = anna.ended(&id).await.unwrap();
    assert_eq!(ended["status"], "completed");
    let me = anna.get("/v1/auth/me").await.unwrap().json().unwrap();
    let me = me["id"].as_str().unwrap();
    assert_eq!(ended["created_by"], format!("user:{me}"));
    assert!(
        stack.run(&["users", "bootstrap"]).await.is_err(),
        "it has an owner"
    );

    let token = stack
        .run(&["users", "reset-password", "anna@example.org"])
        .await;
    let body = json!({"token": token.unwrap().trim(), "new_password": "another long one"});
    let reset = anybody
        .post("/v1/auth/password/reset", &body)
        .await
        .unwrap();
    assert_eq!(reset.status, 204);
    assert_eq!(anna.get("/v1/runs").await.unwrap().status, 401);
    stack
        .run(&["users", "disable", "anna@example.org"])
        .await
        .unwrap();
    let body = json!({"email": "anna@example.org", "password": "another long one"});
    let login = anybody.post("/v1/auth/login", &body).await.unwrap();
    assert_eq!(login.status, 401);

    let log = stack.run(&["audit", "--json"]).await.unwrap();
    let actions: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["action"].clone())
        .collect();
    assert_eq!(
        actions,
        [
            "key.created",
            "bootstrap.created",
            "user.registered",
            "password_reset.created",
            "password.reset",
            "user.disabled",
            "session.opened"
        ]
    );
    let refused = stack.run(&["audit", "--result", "refused"]).await.unwrap();
    assert_eq!(refused.lines().count(), 1, "{refused}");
    let prune = async |before| stack.run(&["audit", "prune", "--before", before]).await;
    let none = prune("2020-01-01").await.unwrap();
    assert!(none.contains("no part of the log is that old"), "{none}");
    let future = format!("{:#}", prune("2999-01-01").await.unwrap_err());
    assert!(future.contains("2999-01-01 is in the future"), "{future}");
    assert!(!log.contains(PASSWORD) && !log.contains("bb_") && !log.contains("bp_"));
}
