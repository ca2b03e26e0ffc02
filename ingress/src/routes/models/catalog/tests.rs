use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use serde_json::json;

use super::*;

#[expect(
    clippy::disallowed_methods,
    reason = "the server lives as long as the runtime of its test"
)]
/// Starts an upstream that answers requests for its models with this.
async fn upstream(status: StatusCode, body: &'static str) -> String {
    let routes = Router::new().route("/v1/models", get(move || async move { (status, body) }));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}/v1")
}

#[tokio::test]
async fn models_are_the_upstream_s_or_those_that_the_configuration_names() {
    let ok = StatusCode::OK;
    let none = StatusCode::NOT_FOUND;
    let broken = StatusCode::INTERNAL_SERVER_ERROR;
    let empty: &[&str] = &[];
    let both: &[&str] = &["house", "dear"];
    for (status, body, configured, expected) in [
        (
            ok,
            r#"{"object":"list","data":[{"id":"a"}]}"#,
            true,
            Some(&["a"][..]),
        ),
        (ok, r#"[{"id":"a","created":null}]"#, true, Some(&["a"])),
        (ok, r#"{"models":[{"name":"a"}]}"#, true, Some(&["a"])),
        (none, "no such route", true, Some(both)),
        (none, "no such route", false, Some(empty)),
        (StatusCode::METHOD_NOT_ALLOWED, "", false, Some(empty)),
        (broken, "", true, Some(both)),
        (broken, "", false, None),
        (ok, "<html>", true, Some(both)),
        (ok, "<html>", false, None),
    ] {
        let base_url = upstream(status, body).await;
        let price = |model: &str| {
            let price =
                json!({"model": model, "input_per_million": "1", "output_per_million": "1"});
            serde_json::from_value(price).unwrap()
        };
        let config = LlmConfig {
            base_url: Some(base_url),
            default_model: configured.then(|| "house".to_owned()),
            prices: if configured {
                vec![price("house"), price("dear")]
            } else {
                Vec::new()
            },
            ..LlmConfig::default()
        };
        let listed = ModelCatalog::new(&config).unwrap().list().await;
        let Some(expected) = expected else {
            assert_eq!(
                listed.unwrap_err().code,
                "upstream_error",
                "{status} {body}"
            );
            continue;
        };
        let listed = listed.unwrap();
        let ids: Vec<_> = listed.data.iter().map(|model| &*model.id).collect();
        assert_eq!(ids, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn names_and_aliases_are_listed_and_the_models_that_match_a_pattern() {
    let list = r#"{"data":[{"id":"gpt-4o"},{"id":"gpt-5"},{"id":"dall-e"}]}"#;
    let (up, down) = tokio::join!(
        upstream(StatusCode::OK, list),
        upstream(StatusCode::INTERNAL_SERVER_ERROR, "")
    );
    let config = json!({
        "default_model": "house/llama",
        "upstreams": [{"name": "up", "base_url": up}, {"name": "down", "base_url": down}],
        "routes": [
            {"model": "gpt-4o", "aliases": ["fast"], "to": [{"upstream": "down"}]},
            {"model": "gpt-*", "to": [{"upstream": "up"}]},
            {"model": "house/*", "to": [{"upstream": "down"}]},
        ],
    });
    let config: LlmConfig = serde_json::from_value(config).unwrap();
    let listed = ModelCatalog::new(&config).unwrap().list().await.unwrap();
    let ids: Vec<_> = listed.data.iter().map(|model| &*model.id).collect();
    assert_eq!(ids, ["gpt-4o", "fast", "gpt-5", "house/llama"]);
}
