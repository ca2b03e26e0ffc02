use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Redirect;
use axum::routing::{any, get, post};
use baton_protocol::{RunId, ToolSource};
use baton_service::Secret;
use baton_service::config;
use chrono::DateTime;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

fn context() -> ToolContext {
    ToolContext {
        run: RunId::new(DateTime::UNIX_EPOCH),
        step: 3,
        call_id: "call_1".to_owned(),
        request_id: Some("order-17".to_owned()),
        traceparent: None,
        now: DateTime::UNIX_EPOCH,
        resumes: None,
    }
}

fn built_in() -> ToolRegistry {
    ToolRegistry::new(&Config::default()).unwrap()
}

/// A registry without the tools that a test does not need.
fn empty() -> ToolRegistry {
    let mut tools = built_in();
    tools.tools.clear();
    tools
}

fn spec(name: &str, timeout: Duration) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        parameters: json!({"type": "object"}),
        source: ToolSource::BuiltIn,
        effect: Effect::Pure,
        timeout,
    }
}

const LONG: Duration = Duration::from_secs(30);

/// A tool with a behaviour that the test provides.
struct Does<F>(F);

impl<F> Tool for Does<F>
where
    F: Fn() -> BoxFuture<'static, Result<String, ToolError>> + Send + Sync + 'static,
{
    fn call<'a>(
        &'a self,
        _arguments: Value,
        _context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        (self.0)()
    }
}

#[tokio::test]
async fn the_calculator_answers_through_all_checks() {
    let tools = built_in();
    let calculate = async |arguments| {
        tools
            .execute("calculator", arguments, context())
            .await
            .unwrap()
    };
    let outcome = calculate(r#"{"expression":"15% of 847"}"#).await;
    assert_eq!((outcome.ok, outcome.content.as_str()), (true, "127.05"));
    let outcome = calculate(r#"{"expression":"2+"}"#).await;
    assert_eq!(
        (outcome.ok, outcome.end),
        (false, CallEnd::InvalidArguments)
    );
    let outcome = calculate(r#"{"expr":"1"}"#).await;
    assert!(
        outcome
            .content
            .contains("\"expression\" is a required property"),
        "{outcome:?}"
    );
    let outcome = calculate(r#"{"expression":"9^9^9^9^9"}"#).await;
    assert!(
        outcome.content.contains("longer than 500 milliseconds"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_time_is_the_one_passed_in() {
    let outcome = built_in()
        .execute("current_time", "", context())
        .await
        .unwrap();
    assert!(
        outcome.content.contains("1970-01-01T00:00:00+00:00"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn an_unknown_tool_is_answered_with_those_that_exist() {
    let outcome = built_in()
        .execute("teleport", "{}", context())
        .await
        .unwrap();
    assert_eq!(outcome.end, CallEnd::UnknownTool);
    assert!(
        outcome.content.contains("`calculator`, `current_time`"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_panic_is_contained_before_and_within_the_future() {
    let mut tools = empty();
    tools
        .register(spec("early", LONG), Does(|| panic!("early")))
        .unwrap();
    tools
        .register(
            spec("late", LONG),
            Does(|| async { panic!("late") }.boxed()),
        )
        .unwrap();
    for name in ["early", "late"] {
        let outcome = tools.execute(name, "{}", context()).await.unwrap();
        assert_eq!(
            (outcome.ok, outcome.end),
            (false, CallEnd::Panicked),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_is_dropped_when_its_time_is_up() {
    let (held, dropped) = oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(held)));
    let mut tools = empty();
    let hang = Does(move || {
        let held = held.lock().unwrap().take();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(String::new())
        }
        .boxed()
    });
    tools
        .register(spec("hang", Duration::from_secs(5)), hang)
        .unwrap();
    let outcome = tools.execute("hang", "{}", context()).await.unwrap();
    assert_eq!(outcome.end, CallEnd::TimedOut);
    assert!(outcome.content.contains("5s"), "{outcome:?}");
    assert!(dropped.await.is_err(), "its future is gone");
}

#[tokio::test]
async fn a_result_that_is_too_long_is_cut_at_a_character_and_says_so() {
    let mut tools = empty();
    let long = Does(|| async { Ok("é".repeat(MAX_CONTENT)) }.boxed());
    tools.register(spec("long", LONG), long).unwrap();
    let outcome = tools.execute("long", "{}", context()).await.unwrap();
    assert!(outcome.ok && outcome.cut);
    assert!(outcome.content.len() < MAX_CONTENT + 100);
    assert!(outcome.content.ends_with("are shown]"));
}

#[test]
fn names_and_schemas_are_checked_when_a_tool_is_added() {
    let mut tools = built_in();
    let nothing = || Does(|| async { Ok(String::new()) }.boxed());
    for name in ["", "a b", "ü", &"x".repeat(65)] {
        let error = tools.register(spec(name, LONG), nothing()).unwrap_err();
        assert!(matches!(error, ToolSetupError::Name(_)), "{name}");
    }
    let error = tools
        .register(spec("calculator", LONG), nothing())
        .unwrap_err();
    assert!(matches!(error, ToolSetupError::Twice(_)));
    let mut outside = spec("outside", LONG);
    outside.parameters = json!({"$ref": "http://127.0.0.1/x"});
    let error = tools.register(outside, nothing()).unwrap_err();
    assert!(matches!(error, ToolSetupError::Schema { .. }));
}

#[test]
fn the_definition_is_an_openai_tool() {
    let tools = built_in();
    let tool: Value =
        serde_json::from_str(tools.get("calculator").unwrap().definition().get()).unwrap();
    assert_eq!(tool["type"], "function");
    assert_eq!(tool["function"]["name"], "calculator");
    assert_eq!(
        tool["function"]["parameters"]["required"],
        json!(["expression"])
    );
}

/// Starts a server that echoes its requests; returns tools for it, and a guard that stops it.
async fn http_tools() -> (ToolRegistry, impl Drop) {
    async fn echo(State(()): State<()>, request: Request) -> String {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let header = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        json!({
            "method": parts.method.as_str(), "query": parts.uri.query(),
            "key": header("idempotency-key"), "request": header("x-request-id"), "secret": header("x-secret"),
            "authorization": header("authorization"), "path": parts.uri.path(),
            "body": String::from_utf8_lossy(&body),
        })
        .to_string()
    }
    let app = axum::Router::new()
        .route("/echo", any(echo))
        .route("/hooks/{token}", any(echo))
        .route("/away", get(|| async { Redirect::temporary("/echo") }))
        .route(
            "/broken",
            post(|| async { (http::StatusCode::BAD_GATEWAY, "no luck") }),
        )
        .with_state(());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    TaskTracker::new().spawn(async move {
        let serve = axum::serve(listener, app).with_graceful_shutdown(stopped.cancelled_owned());
        serve.await.unwrap();
    });
    let tool = |name: &str, method: &str, path: &str, idempotent| config::HttpTool {
        name: name.to_owned(),
        description: "A test".to_owned(),
        parameters: json!({"type": "object"}),
        url: format!("{base}{path}"),
        method: method.to_owned(),
        headers: [
            ("x-secret", "s3"),
            ("authorization", "Bearer key-of-the-tool"),
        ]
        .map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())))
        .into(),
        idempotent,
        timeout: LONG,
    };
    let mut config = Config::default();
    config.tools.http = vec![
        tool("post", "POST", "/echo", false),
        tool("get", "GET", "/echo?fixed=1", true),
        tool("keyed", "GET", "/echo?api_key=q%2Fsecret-in-query", true),
        tool("hook", "POST", "/hooks/T0123456789abcdef", false),
        tool("away", "GET", "/away", true),
        tool("broken", "POST", "/broken", true),
        config::HttpTool {
            url: "http://127.0.0.1:1/".to_owned(),
            ..tool("gone", "POST", "", true)
        },
    ];
    (ToolRegistry::new(&config).unwrap(), stop.drop_guard())
}

#[tokio::test]
async fn an_http_tool_is_sent_its_arguments_its_secret_and_a_key() {
    let (tools, _server) = http_tools().await;
    let context = context();
    let key = format!("{}-3", context.run);
    let outcome = tools
        .execute("post", r#"{"a":1}"#, context.clone())
        .await
        .unwrap();
    let sent: Value = serde_json::from_str(&outcome.content).unwrap();
    assert_eq!(
        sent,
        json!({
            "method": "POST", "query": null, "path": "/echo", "key": key, "secret": "s3",
            "request": "order-17", "authorization": "[secret]", "body": "{\"a\":1}",
        }),
    );
    let outcome = tools
        .execute("get", r#"{"q":"a b&c","n":2}"#, context)
        .await
        .unwrap();
    let sent: Value = serde_json::from_str(&outcome.content).unwrap();
    assert_eq!(sent["query"], "fixed=1&n=2&q=a+b%26c");
    assert_eq!(sent["body"], "");
    assert_eq!(tools.get("post").unwrap().effect(), Effect::AtMostOnce);
    assert_eq!(tools.get("get").unwrap().effect(), Effect::Idempotent);
}

/// Many servers echo requests, so everything that is long enough for a secret is removed.
#[tokio::test]
async fn what_a_tools_server_says_is_cleared_of_its_secrets() {
    let (tools, _server) = http_tools().await;
    let arguments = r#"{"a":"key-of-the-tool","b":"Bearer key-of-the-tool"}"#;
    let outcome = tools.execute("post", arguments, context()).await.unwrap();
    let sent: Value = serde_json::from_str(&outcome.content).unwrap();
    assert_eq!(sent["body"], r#"{"a":"[secret]","b":"[secret]"}"#);
}

#[tokio::test]
async fn secrets_in_a_tools_url_do_not_come_back() {
    let (tools, _server) = http_tools().await;
    let told = tools.execute("keyed", r#"{"city":"q/secret-in-query"}"#, context());
    let sent: Value = serde_json::from_str(&told.await.unwrap().content).unwrap();
    assert_eq!(sent["query"], "api_key=[secret]&city=[secret]");
    let told = tools.execute("hook", "{}", context()).await.unwrap();
    let sent: Value = serde_json::from_str(&told.content).unwrap();
    assert_eq!(sent["path"], "/hooks/[secret]");
}

/// Admission reserves the first turn of a budgeted run by these sizes.
#[test]
fn no_built_in_tool_is_larger_than_admission_reserves_for_it() {
    let config = with_all_tools();
    let registry = ToolRegistry::new(&config).unwrap();
    let sizes = baton_metering::BUILT_IN_TOOL_SIZES;
    assert_eq!(registry.iter().count(), sizes.len());
    for (name, size) in sizes {
        let written = registry.get(name).unwrap().definition().get().len();
        // Admission adds the hosts.
        let hosts = config.http_request.hosts.iter().map(|host| host.len() + 2);
        let hosts: usize = hosts.filter(|_| name == "http_request").sum();
        assert!(written <= size + hosts, "{name}: {written}");
    }
}

/// Many servers use the last of two parameters of one name, which would be the model's.
#[tokio::test]
async fn what_the_operator_set_in_a_tools_url_the_model_cannot_set_again() {
    let (tools, _server) = http_tools().await;
    for name in ["api_key", "API_KEY", "api_key[]", "api.key", " api_key"] {
        let arguments = json!({ name: "mine" }).to_string();
        let outcome = tools.execute("keyed", &arguments, context()).await.unwrap();
        assert_eq!(outcome.end, CallEnd::Failed, "{name}");
        assert!(outcome.content.contains("was not made"), "{outcome:?}");
    }
    let outcome = tools
        .execute("keyed", r#"{"key":"fine"}"#, context())
        .await
        .unwrap();
    assert_eq!(outcome.end, CallEnd::Ok, "{outcome:?}");
}

#[tokio::test]
async fn refusals_redirects_and_absence_are_told_to_the_model() {
    let (tools, _server) = http_tools().await;
    for (name, told) in [
        ("broken", "502 Bad Gateway: no luck"),
        ("away", "307"),
        ("gone", "cannot be reached; the call has had no effect"),
    ] {
        let outcome = tools.execute(name, "{}", context()).await.unwrap();
        assert_eq!(outcome.end, CallEnd::Failed, "{name}");
        assert!(
            outcome.content.contains(told),
            "{name}: {}",
            outcome.content
        );
    }
}

#[test]
fn the_built_in_tools_of_the_configuration_are_there() {
    for config in [Config::default(), with_all_tools()] {
        let registry = ToolRegistry::new(&config).unwrap();
        let mut expected: Vec<_> = config.built_in_tools();
        expected.sort_unstable_by_key(|tool| tool.as_str());
        let expected: Vec<_> = expected.iter().map(|tool| tool.as_str()).collect();
        let names: Vec<_> = registry.iter().map(|tool| &*tool.spec().name).collect();
        assert_eq!(names, expected);
    }
}

/// A configuration with every built-in tool, `http_request` with every method and many hosts.
fn with_all_tools() -> Config {
    let mut config = Config::default();
    config.web_search.api_key = Some(Secret::new("key-of-the-search".to_owned()));
    config.http_request.hosts = (0..50)
        .map(|n| format!("{n}.{}", "h".repeat(200)))
        .collect();
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    config.http_request.methods = methods.map(str::to_owned).to_vec();
    config
}

/// Calls beyond the limit wait for a slot, also across a reload, and none fails.
#[tokio::test]
async fn calls_beyond_a_tools_limit_wait_for_their_turn() {
    let mut config = Config::default();
    config.worker.tool_concurrency = 1;
    let before = ToolRegistry::new(&config).unwrap();
    let held = before.slot("calculator").await;
    let reloaded = ToolRegistry::after(&config, Some(&before)).unwrap();
    let mut second = std::pin::pin!(reloaded.slot("calculator"));
    assert!(futures_util::poll!(&mut second).is_pending());
    let other = std::pin::pin!(reloaded.slot("current_time"));
    assert!(
        futures_util::poll!(other).is_ready(),
        "each tool has its own"
    );
    drop(held);
    second.await;
}
