//! Fields that must not reach the upstream, at all doors for runs.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::from_the_bus::{Program, fresh, refusal};

/// Returns the answer to a body with this field, through one of the doors.
async fn ask(fixture: &Fixture, key: &str, path: &str, field: &str, value: &Value) -> (u16, Value) {
    let body = if path == "/v1/runs" {
        json!({"model": "cheap", "input": "x", "params": {field: value}})
    } else {
        let messages = json!([{"role": "user", "content": "x"}]);
        json!({"model": "cheap", "messages": messages, field: value})
    };
    let (status, answer) = fixture.ask(key, "POST", path, body).await;
    let error = answer.get("error").unwrap_or(&answer).clone();
    (status, error)
}

#[tokio::test]
async fn a_field_that_gets_around_a_keys_limits_is_refused_by_name_at_every_door() {
    let fixture = Fixture::start_with(|config| {
        config.llm.extra_fields = vec!["top_k".to_owned()];
    })
    .await;
    let models = fixture.make_key(31, &["*"], Some(&["cheap"])).await;
    let budget = fixture
        .limited_key(json!({"monthly_tokens": 10_000_000}))
        .await;
    let dear = json!({"model": "dear", "n": 7});
    for path in ["/v1/chat/completions", "/v1/runs"] {
        for field in ["extra_body", "models", "fallbacks", "best_of", "provider"] {
            for key in [&models, &budget] {
                let (status, error) = ask(&fixture, key, path, field, &dear).await;
                assert_eq!((status, &error["code"]), (400, &json!("field_not_allowed")));
                let message = error["message"].as_str().or(error["detail"].as_str());
                assert!(message.unwrap().contains(field), "{error}");
            }
        }
        let (status, error) = ask(&fixture, &budget, path, "web_search_options", &json!({})).await;
        assert_eq!(status, 400, "{error}");
        for (field, value) in [
            ("api_base", json!("http://elsewhere")),
            ("extra_body", json!({"litellm_params": {}})),
        ] {
            let (status, error) = ask(&fixture, &fixture.key, path, field, &value).await;
            assert_eq!((status, &error["code"]), (400, &json!("field_not_allowed")));
        }
    }
    // A native run answers at once, so it shows the fields that are passed on.
    for (key, field) in [
        (&models, "seed"),
        (&budget, "top_k"),
        (&fixture.key, "best_of"),
    ] {
        let (status, run) = ask(&fixture, key, "/v1/runs", field, &json!(1)).await;
        assert_eq!(status, 202, "{field}: {run}");
    }
}

/// Guards the door for programs, which runs its own admission.
#[tokio::test]
async fn a_field_that_gets_around_a_keys_limits_is_refused_at_the_door_of_programs() {
    let fixture = Fixture::start().await;
    let free = Program::new(&fixture, json!({})).await;
    let models = Program::new(&fixture, json!({"models": ["cheap"]})).await;
    let limits = json!({"limits": {"monthly_tokens": 10_000_000}});
    let budget = Program::new(&fixture, limits).await;
    let request = |field: &str, value: Value| json!({"model": "cheap", "input": "x", "params": {field: value}});
    let dear = json!({"model": "dear", "n": 7});
    for field in ["extra_body", "models", "fallbacks", "best_of"] {
        for program in [&models, &budget] {
            let refused = program.submit(fresh(), request(field, dear.clone())).await;
            assert_eq!(refusal(&refused), "field_not_allowed", "{field}");
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.contains(field), "{refused}");
        }
    }
    for program in [&free, &models, &budget] {
        let moved = request("api_base", json!("http://elsewhere"));
        let refused = program.submit(fresh(), moved).await;
        assert_eq!(refusal(&refused), "field_not_allowed");
        let fine = program.submit(fresh(), request("seed", json!(1))).await;
        assert_eq!(fine["ok"], true, "{fine}");
    }
}
