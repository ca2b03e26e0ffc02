use baton_harness::mcp_server::{Era, Manner, McpServer as TestServer};
use baton_harness::token_server::TokenServer;
use baton_protocol::{Effect, RunId};
use baton_service::config::{McpServerConfig, McpTrust};
use chrono::DateTime;
use serde_json::json;

use crate::tools::{CallEnd, ToolContext, ToolRegistry};

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

fn configured(url: &str, tools: &[&str]) -> McpServerConfig {
    serde_json::from_value(json!({"name": "docs", "url": url, "tools": tools})).unwrap()
}

fn config(servers: Vec<McpServerConfig>) -> Config {
    let mut config = Config::default();
    config.mcp.servers = servers;
    config
}

#[tokio::test]
async fn a_tool_is_offered_as_its_server_describes_it_and_called_there() {
    let server = TestServer::start(Era::Modern, Manner::Honest)
        .await
        .unwrap();
    let config = config(vec![configured(&server.url(), &["echo", "fail"])]);
    let tools = ToolRegistry::new(&config).unwrap();
    let echo = tools.find("docs__echo").await.unwrap();
    assert_eq!(echo.spec().description, "Repeats its arguments");
    assert!(tools.find("docs__wait").await.is_none(), "it is not listed");
    assert!(tools.find("calculator").await.is_some());

    let context = context();
    let outcome = tools
        .execute("docs__echo", r#"{"text":"a"}"#, context.clone())
        .await
        .unwrap();
    assert_eq!(
        (outcome.end, &*outcome.content),
        (CallEnd::Ok, r#"{"text":"a"}"#)
    );
    let call = &server.seen().calls[0];
    assert_eq!(call["_meta"]["idempotencyKey"], context.idempotency_key());
    let outcome = tools
        .execute("docs__fail", "{}", context.clone())
        .await
        .unwrap();
    assert_eq!(
        (outcome.end, &*outcome.content),
        (CallEnd::Failed, "it went wrong")
    );
    let outcome = tools
        .execute("docs__echo", r#"{"text":1}"#, context.clone())
        .await
        .unwrap();
    assert_eq!(outcome.end, CallEnd::InvalidArguments);
    assert_eq!(server.seen().calls.len(), 2, "wrong arguments are not sent");
}

#[tokio::test]
async fn hints_count_only_if_the_operator_trusts_the_server() {
    let server = TestServer::start(Era::Legacy, Manner::Honest)
        .await
        .unwrap();
    for (trust, effects) in [
        (McpTrust::None, [Effect::AtMostOnce, Effect::AtMostOnce]),
        (McpTrust::Hints, [Effect::Idempotent, Effect::AtMostOnce]),
    ] {
        let mut docs = configured(&server.url(), &["echo", "wait"]);
        docs.trust = trust;
        let tools = ToolRegistry::new(&config(vec![docs])).unwrap();
        let mut found = Vec::new();
        for name in ["docs__echo", "docs__wait"] {
            found.push(tools.find(name).await.unwrap().effect());
        }
        assert_eq!(found, effects, "{trust:?}");
    }
}

/// An earlier attempt may have begun a call of a tool that is away now, so that it counts as one that
/// must not be repeated.
#[tokio::test]
async fn a_server_that_is_away_costs_only_its_own_tools_and_they_say_so() {
    let there = TestServer::start(Era::Modern, Manner::Honest)
        .await
        .unwrap();
    let away = TestServer::start(Era::Modern, Manner::Honest)
        .await
        .unwrap();
    let mut gone = configured(&away.url(), &["echo"]);
    gone.name = "gone".to_owned();
    drop(away);
    let config = config(vec![configured(&there.url(), &["echo", "none"]), gone]);
    let tools = ToolRegistry::new(&config).unwrap();
    for (name, why) in [
        ("gone__echo", "it cannot be reached"),
        ("docs__none", "has no usable tool"),
    ] {
        let tool = tools.find(name).await.unwrap();
        let description = &tool.spec().description;
        assert!(description.contains(why), "{description}");
        assert!(description.contains("Do not call it"), "{description}");
        assert_eq!(tool.effect(), Effect::AtMostOnce);
        let outcome = tools.execute(name, "{}", context()).await.unwrap();
        assert_eq!(outcome.end, CallEnd::Failed);
        assert!(
            outcome.content.contains("the call was not made"),
            "{outcome:?}"
        );
    }
    let outcome = tools.execute("docs__echo", "{}", context()).await.unwrap();
    assert_eq!(outcome.end, CallEnd::Ok);
}

#[tokio::test]
async fn a_definition_that_is_too_large_or_no_schema_is_not_offered() {
    let server = TestServer::start(Era::Modern, Manner::BadDefinitions)
        .await
        .unwrap();
    let config = config(vec![configured(
        &server.url(),
        &["large", "broken", "echo"],
    )]);
    let tools = ToolRegistry::new(&config).unwrap();
    for name in ["docs__large", "docs__broken"] {
        let tool = tools.find(name).await.unwrap();
        let description = &tool.spec().description;
        assert!(description.contains("no usable tool"), "{description}");
    }
    let echo = tools.find("docs__echo").await.unwrap();
    assert_eq!(echo.spec().description, "Repeats its arguments");
}

#[tokio::test]
async fn a_call_that_broke_off_may_have_taken_effect() {
    let server = TestServer::start(Era::Modern, Manner::Honest)
        .await
        .unwrap();
    let config = config(vec![configured(&server.url(), &["wait"])]);
    let tools = ToolRegistry::new(&config).unwrap();
    let calling = tools.execute("docs__wait", "{}", context());
    let stopping = async {
        server.wait_until(|seen| seen.calls.len() == 1).await;
        server.break_off();
    };
    let (outcome, ()) = tokio::join!(calling, stopping);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.end, CallEnd::Failed);
    assert!(
        outcome.content.contains("may have taken effect"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_changed_configuration_keeps_the_connections_of_unchanged_servers() {
    let server = TestServer::start(Era::Modern, Manner::Honest)
        .await
        .unwrap();
    let docs = configured(&server.url(), &["echo"]);
    let first = ToolRegistry::new(&config(vec![docs.clone()])).unwrap();
    first.mcp().connect().await;
    let opened = || {
        let methods = server.seen().methods;
        methods.iter().filter(|it| *it == "server/discover").count()
    };
    assert_eq!(opened(), 1);
    let second = ToolRegistry::after(&config(vec![docs.clone()]), Some(&first)).unwrap();
    second.mcp().connect().await;
    assert_eq!(opened(), 1);
    let mut changed = docs;
    changed.tools.push("fail".to_owned());
    let third = ToolRegistry::after(&config(vec![changed]), Some(&second)).unwrap();
    third.mcp().connect().await;
    assert_eq!(opened(), 2);
    assert!(third.find("docs__fail").await.is_some());
}

#[tokio::test]
async fn a_server_behind_a_token_server_is_used_and_its_secret_is_not_shown() {
    let tokens = TokenServer::start().await.unwrap();
    let manner = Manner::Guarded(TokenServer::token(1));
    let server = TestServer::start(Era::Modern, manner).await.unwrap();
    let mut docs = configured(&format!("{}?team=x", server.url()), &["echo"]);
    let auth = json!({"kind": "client_credentials", "token_url": tokens.url(),
        "client_id": "baton", "client_secret": "the-clients-secret"});
    docs.auth = serde_json::from_value(auth).unwrap();
    let config = config(vec![docs]);
    assert!(!format!("{config:?}").contains("the-clients-secret"));
    assert!(!config.print().unwrap().contains("the-clients-secret"));
    let tools = ToolRegistry::new(&config).unwrap();
    let outcome = tools.execute("docs__echo", "{}", context()).await.unwrap();
    assert_eq!((outcome.end, &*outcome.content), (CallEnd::Ok, "{}"));
    let form = &tokens.requests()[0].form;
    assert!(
        form.ends_with("%2Fmcp"),
        "the resource is the url without its query: {form}"
    );

    let refusal = json!({"error": "invalid_client"});
    tokens.answer_with(http::StatusCode::UNAUTHORIZED, refusal);
    let tools = ToolRegistry::new(&config).unwrap();
    let outcome = tools.execute("docs__echo", "{}", context()).await.unwrap();
    assert_eq!(outcome.end, CallEnd::Failed);
    assert!(
        outcome.content.contains("invalid_client"),
        "{}",
        outcome.content
    );
}
