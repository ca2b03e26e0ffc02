use axum::Json;
use axum::extract::Query;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use baton_outbound::Policy;
use baton_protocol::RunId;
use baton_service::Secret;
use chrono::DateTime;
use http::HeaderMap;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::*;

const KEY: &str = "key-of-the-search";

#[derive(Deserialize)]
struct Asked {
    q: String,
    count: usize,
}

/// A server with the search API's path, parameters, header and form of answer.
async fn search(headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    if headers
        .get("x-subscription-token")
        .is_none_or(|key| key != KEY)
    {
        return (StatusCode::FORBIDDEN, "the key wrong-key is not valid").into_response();
    }
    let page = |n: usize| {
        json!({"title": format!("{} {n}", asked.q), "url": format!("https://example.com/{n}"),
            "description": "An extract", "age": "2 days ago", "language": "en",
            "meta_url": {"hostname": "example.com"}})
    };
    match &*asked.q {
        "nothing" => {
            Json(json!({"type": "search", "query": {"original": "nothing"}})).into_response()
        }
        "busy" => StatusCode::TOO_MANY_REQUESTS.into_response(),
        "broken" => "<html>".into_response(),
        "endless" => vec![b' '; 3 * MAX_ANSWER].into_response(),
        _ => {
            let pages: Vec<_> = (0..asked.count + 3).map(page).collect();
            Json(json!({"type": "search", "web": {"type": "search", "results": pages}}))
                .into_response()
        }
    }
}

async fn web_search(key: &str) -> (WebSearch, DropGuard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    TaskTracker::new().spawn(async move {
        let app = axum::Router::new().route("/res/v1/web/search", get(search));
        let serve = axum::serve(listener, app).with_graceful_shutdown(stopped.cancelled_owned());
        serve.await.unwrap();
    });
    let config = WebSearchConfig {
        api_key: Some(Secret::new(key.to_owned())),
        base_url,
    };
    let guard = Guard::new(Policy::default());
    let tool = WebSearch::new(&config, &guard).unwrap().unwrap();
    (tool, stop.drop_guard())
}

async fn ask(tool: &WebSearch, arguments: Value) -> Result<String, ToolError> {
    let context = ToolContext {
        run: RunId::new(DateTime::UNIX_EPOCH),
        step: 1,
        call_id: "call_1".to_owned(),
        request_id: Some("order-17".to_owned()),
        traceparent: None,
        now: DateTime::UNIX_EPOCH,
        resumes: None,
    };
    tool.call(arguments, &context).await
}

#[test]
fn there_is_no_search_without_a_key() {
    let guard = Guard::new(Policy::default());
    let tool = WebSearch::new(&WebSearchConfig::default(), &guard).unwrap();
    assert!(tool.is_none());
}

#[tokio::test]
async fn a_search_returns_as_many_pages_as_were_asked_for() {
    let (tool, _server) = web_search(KEY).await;
    let found = ask(&tool, json!({"query": "a & b", "count": 2}))
        .await
        .unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        found,
        json!([
            {"title": "a & b 0", "url": "https://example.com/0", "description": "An extract",
                "age": "2 days ago"},
            {"title": "a & b 1", "url": "https://example.com/1", "description": "An extract",
                "age": "2 days ago"},
        ])
    );
    let found = ask(&tool, json!({"query": "x"})).await.unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 5);
    let found = ask(&tool, json!({"query": "nothing"})).await.unwrap();
    assert_eq!(found, "Nothing was found.");
}

#[tokio::test]
async fn a_search_that_fails_says_why_without_quoting_the_service() {
    let (tool, _server) = web_search(KEY).await;
    for (query, reason) in [
        ("busy", "too many searches"),
        ("broken", "cannot be read"),
        ("endless", "cannot be read"),
    ] {
        let error = ask(&tool, json!({"query": query})).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{query}: {error}");
    }
    let (tool, _server) = web_search("wrong-key").await;
    let error = ask(&tool, json!({"query": "x"}))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("refuses the key"), "{error}");
    assert!(!error.contains("wrong-key"), "{error}");
}
