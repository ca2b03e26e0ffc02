//! Tools of MCP servers, through the whole of Baton.

use baton_harness::client::Client;
use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Recorded, Reply};
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{
    assert_ended, assert_whole, call, count, has_tool_result, model, options, run,
};

const TOKEN: &str = "canary-mcp-token-7f3a91";

fn configuration(server: &McpServer, tools: &str) -> String {
    format!(
        "[[mcp.servers]]\nname = \"docs\"\nurl = \"{}\"\ntools = {tools}\ntoken = \"{TOKEN}\"\n\
         timeout = \"10m\"\n",
        server.url()
    )
}

/// Calls a tool once, and repeats its result.
fn calls(name: &'static str) -> impl Fn(&Recorded) -> Reply + Send + Sync + 'static {
    move |request| {
        if has_tool_result(request) {
            Reply::text(request.last_text("tool").unwrap_or_default())
        } else {
            call("", name, &json!({"text": "sheep"}))
        }
    }
}

async fn decide(client: &Client, run: &str, approval: &Value, decision: &str) {
    let path = format!("/v1/runs/{run}/approvals/{}", approval.as_str().unwrap());
    let body = json!({ "decision": decision });
    assert_eq!(client.post(&path, &body).await.unwrap().status, 200);
}

/// Guards `start_call` for MCP: a call that may have taken effect is not repeated without a decision.
#[tokio::test]
async fn an_mcp_call_of_a_killed_worker_waits_for_a_person_and_is_not_repeated_by_itself() {
    for era in [Era::Modern, Era::Legacy] {
        let server = McpServer::start(era, Manner::Guarded(TOKEN.to_owned()))
            .await
            .unwrap();
        let model = model(calls("docs__wait")).await;
        let mut options = options(&model).short_lease();
        options.config = configuration(&server, r#"["wait"]"#);
        let stack = Stack::start(options).await.unwrap();
        let (ingress, _scheduler, first) =
            tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
        let client = stack.client(&ingress);
        let id = client.submit(&run()).await.unwrap();
        let mut events = client.events(&id, None).await.unwrap();
        server.wait_until(|seen| seen.calls.len() == 1).await;
        first.kill().await;
        let _second = stack.worker().await.unwrap();
        events.until("approval.requested").await.unwrap();
        let asked = events.seen.last().unwrap().event["data"].clone();
        assert_eq!(asked["name"], "docs__wait");
        assert_eq!(asked["reason"], "outcome unknown");
        assert_eq!(server.seen().calls.len(), 1, "{era:?}");

        server.open_gate();
        decide(&client, &id, &asked["approval_id"], "retry").await;
        let (run, events) = assert_whole(&client, &id, "waited").await;
        assert_eq!(run["attempt"], 3);
        assert_eq!(count(&events, "tool.finished"), 1);
        let calls = server.seen().calls;
        assert_eq!(calls.len(), 2, "once before, once because a person said so");
        let key = |call: &Value| call["_meta"]["idempotencyKey"].clone();
        assert_eq!(key(&calls[0]), key(&calls[1]), "the same purpose");
    }
}

/// Guards the way of a cancel: the call's future is dropped, and the server hears of it.
#[tokio::test]
async fn cancelling_a_run_cancels_its_call_at_the_mcp_server() {
    let server = McpServer::start(Era::Legacy, Manner::Honest).await.unwrap();
    let model = model(calls("docs__wait")).await;
    let mut options = options(&model);
    options.config = configuration(&server, r#"["wait"]"#);
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    server.wait_until(|seen| seen.calls.len() == 1).await;
    assert_eq!(client.cancel(&id).await.unwrap().status, 202);
    server.wait_until(|seen| seen.cancelled == 1).await;
    assert_ended(&client, &id, "cancelled").await;
}

/// Guards that a server which is away costs only its own tools, and that its token stays secret.
#[tokio::test]
async fn runs_go_on_without_a_server_that_is_away_and_its_token_comes_back_nowhere() {
    let server = McpServer::start(Era::Modern, Manner::TellsSecrets)
        .await
        .unwrap();
    let gone = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
    let away = configuration(&gone, r#"["echo"]"#).replace("\"docs\"", "\"gone\"");
    drop(gone);
    let model = model(calls("docs__leak")).await;
    let mut options = options(&model);
    options.config = configuration(&server, r#"["leak"]"#) + &away;
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let (run, events) = assert_whole(&client, &id, "You sent Bearer [secret]").await;
    let asked = model.requests()[0].body.to_string();
    assert!(
        asked.contains("docs__leak") && asked.contains("gone__echo"),
        "{asked}"
    );
    assert!(asked.contains("This tool cannot be used now"), "{asked}");
    let up = "baton_mcp_server_up{server=\"docs\"}";
    assert_eq!(worker.metric(up).await.unwrap(), 1);
    let failures = "baton_mcp_failures_total{server=\"gone\",kind=\"unreachable\"}";
    assert!(worker.metric(failures).await.unwrap() >= 1);
    let shown = format!(
        "{run} {:?} {asked}",
        events.iter().map(|it| &it.event).collect::<Vec<_>>()
    );
    assert!(!shown.contains(TOKEN), "{shown}");
    let log = stack.logged().unwrap();
    assert!(log.contains("an MCP server cannot be used"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
    assert!(!log.contains("rmcp"), "{log}");
}

/// Guards `baton mcp probe`: what a server puts into its texts does not reach the terminal as it is.
#[tokio::test]
async fn a_probe_prints_tools_without_obeying_them() {
    let model = model(|_| Reply::text("unused")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let server = McpServer::start(Era::Legacy, Manner::ControlCharacters)
        .await
        .unwrap();
    let printed = stack.run(&["mcp", "probe", &server.url()]).await.unwrap();
    assert!(printed.contains("MCP 2025-11-25, 4 tools"), "{printed}");
    assert!(
        printed.contains("tools = [\"echo\", \"wait\", \"fail\"]"),
        "{printed}"
    );
    let json = stack
        .run(&["mcp", "probe", "--json", &server.url()])
        .await
        .unwrap();
    for text in [&printed, &json] {
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(obeyed), "{text:?}");
    }
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["server"]["name"], "for tests");
    let mut lines = printed.lines();
    assert!(
        lines.any(|line| line.contains("evil") && line.contains("name")),
        "{printed}"
    );
    assert_eq!(found["tools"][3]["name"], "evil\u{1b}[2J\n\u{202e}name");
}
