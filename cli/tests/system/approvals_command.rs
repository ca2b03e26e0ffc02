//! `baton approvals`: questions are listed and decided from the command line, over HTTP.

use std::collections::BTreeSet;

use baton_harness::client::Client;
use baton_harness::scripted_model::{Piece, Recorded, Reply};
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{CountingTool, assert_whole, has_tool_result, model, options, run};

/// Calls the tool three times in one turn, and then answers.
fn counts_thrice(request: &Recorded) -> Reply {
    if has_tool_result(request) {
        return Reply::text("done");
    }
    let calls = (0..3).map(|index| Piece::ToolCall {
        index,
        id: format!("call_{index}"),
        name: "count".to_owned(),
        fragments: vec![json!({"of": format!("sheep \u{202e}{index}")}).to_string()],
    });
    Reply::pieces(calls).ended("tool_calls")
}

/// A stack with a run that asks about three calls.
struct Asking<'a> {
    stack: &'a Stack,
    /// The environment of the commands.
    client: [(&'static str, String); 2],
}

impl Asking<'_> {
    async fn output(&self, arguments: &[&str]) -> (bool, String) {
        let all: Vec<_> = ["approvals"].iter().chain(arguments).copied().collect();
        let settings: Vec<_> = self
            .client
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        self.stack.output_of(&all, &settings).await.unwrap()
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.output(arguments).await;
        assert!(ok, "{arguments:?}: {text}");
        text
    }

    async fn refused(&self, arguments: &[&str], says: &str) -> String {
        let (ok, text) = self.output(arguments).await;
        assert!(!ok && text.contains(says), "{arguments:?}: {text}");
        text
    }
}

async fn until_asked(client: &Client, run: &str) {
    let mut events = client.events(run, None).await.unwrap();
    for _ in 0..3 {
        events.until("approval.requested").await.unwrap();
    }
}

#[tokio::test]
async fn questions_are_listed_and_decided_from_the_command_line() {
    let tool = CountingTool::start().await;
    let model = model(counts_thrice).await;
    let mut options = options(&model);
    options.config = format!(
        "[tools]\napproval_required = [\"count\"]\n{}",
        tool.config()
    );
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker, _scheduler) =
        tokio::try_join!(stack.ingress(), stack.worker(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let asking = Asking {
        stack: &stack,
        client: [
            ("BATON_BASE_URL", format!("http://{}", ingress.address())),
            ("BATON_API_KEY", stack.api_key().to_owned()),
        ],
    };
    assert_eq!(asking.ok(&["list"]).await, "");
    let id = client.submit(&run()).await.unwrap();
    until_asked(&client, &id).await;

    let listed = asking.ok(&["list"]).await;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    // Questions of one moment have no order among themselves.
    let of_run = asking.ok(&["list", "--run", &id]).await;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(&of_run), lines(&listed));
    assert_eq!(
        asking.ok(&["list", "--limit", "1"]).await.lines().count(),
        1
    );
    assert!(
        !listed.contains('\u{202e}'),
        "a mark of direction is shown as an escape"
    );
    let newest = listed.lines().next().unwrap();
    for part in [&*id, "approval required", "count", "sheep"] {
        assert!(newest.contains(part), "{part}: {newest}");
    }
    let json: Value = serde_json::from_str(&asking.ok(&["list", "--json"]).await).unwrap();
    let questions: Vec<_> = json["data"].as_array().unwrap().iter().collect();
    let [first, second, _] = *questions else {
        panic!("{questions:?}")
    };
    let (first, second) = (
        first["id"].as_str().unwrap(),
        second["id"].as_str().unwrap(),
    );

    // An unknown question spoils nothing.
    let said = asking
        .refused(&["approve", &id, first, &id], "1 of 2 questions")
        .await;
    assert!(said.contains(&format!("{first}  approve")), "{said}");
    assert!(said.contains("approval_not_found"), "{said}");
    asking
        .refused(
            &["approve", &id, first, second, "--arguments", "{}"],
            "one call",
        )
        .await;
    asking
        .refused(
            &["approve", &id, second, "--arguments", "7"],
            "a JSON object",
        )
        .await;
    asking
        .refused(&["retry", &id, "--all"], "decided with `retry`")
        .await;
    asking
        .refused(&["retry", &id, second], "invalid_decision")
        .await;
    asking.refused(&["approve", &id], "--all").await;
    asking
        .refused(
            &["approve", &id, "--all", "--url", "http://127.0.0.1:1"],
            "does not answer",
        )
        .await;
    asking
        .refused(&["list", "--key", "bt_dev_none"], "invalid_api_key")
        .await;
    let decided = asking
        .ok(&["reject", &id, second, "--reason", "not today", "--json"])
        .await;
    let decided: Value = serde_json::from_str(&decided).unwrap();
    assert_eq!(
        decided["data"][0]["approval"]["decision"]["reason"],
        "not today"
    );
    let all = asking.ok(&["approve", &id, "--all"]).await;
    assert_eq!(all.lines().count(), 1, "{all}");

    let (run, _) = assert_whole(&client, &id, "done").await;
    assert_eq!(tool.calls(), 2);
    let failed = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["ok"] == false);
    assert_eq!(failed.count(), 1);
    asking
        .refused(&["approve", &id, "--all"], "no open question")
        .await;
    assert_eq!(asking.ok(&["list"]).await, "");

    // Without a key, the command says where to get one.
    let (ok, text) = stack.output_of(&["approvals", "list"], &[]).await.unwrap();
    assert!(!ok && text.contains("baton keys create"), "{text}");
}
