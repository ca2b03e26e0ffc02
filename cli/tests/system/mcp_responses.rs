//! MCP servers as tools of a response, through the whole of Baton.

use baton_harness::client::{Client, ResponseEvent};
use baton_harness::mcp_server::{Era, Manner, McpServer};
use baton_harness::scripted_model::{Piece, Recorded, Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack};
use baton_responses::checker::{StreamChecker, check_response};
use serde_json::{Value, json};

use crate::fixture::{call, has_tool_result, model, options};

const TOKEN: &str = "canary-mcp-token-5b12c0";
const RESPONSES: &str = "/v1/responses";

/// A stack with the server `docs`, and a server `gone` that is away.
pub(crate) struct Served {
    pub(crate) server: McpServer,
    pub(crate) client: Client,
    pub(crate) stack: Stack,
    pub(crate) worker: Option<Role>,
    _ingress: Role,
    _scheduler: Role,
    pub(crate) model: ScriptedModel,
}

impl Served {
    pub(crate) async fn start(
        manner: Manner,
        choose: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let server = McpServer::start(Era::Modern, manner).await.unwrap();
        let gone = McpServer::start(Era::Modern, Manner::Honest).await.unwrap();
        let model = model(choose).await;
        let mut options = options(&model).short_lease();
        options.config = format!(
            "[tools]\napproval_required = [\"docs__wait\"]\n\
             [[mcp.servers]]\nname = \"docs\"\nurl = \"{}?key={TOKEN}\"\ntoken = \"{TOKEN}\"\n\
             tools = [\"echo\", \"wait\", \"fail\"]\ntrust = \"hints\"\ntimeout = \"10m\"\n\
             [[mcp.servers]]\nname = \"gone\"\nurl = \"{}\"\ntools = [\"echo\"]\n",
            server.url(),
            gone.url()
        );
        drop(gone);
        let stack = Stack::start(options).await.unwrap();
        let (ingress, scheduler, worker) =
            tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
        Self {
            server,
            client: stack.client(&ingress),
            stack,
            worker: Some(worker),
            _ingress: ingress,
            _scheduler: scheduler,
            model,
        }
    }

    pub(crate) async fn post(&self, body: &Value) -> (u16, Value) {
        let answer = self.client.post(RESPONSES, body).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }

    pub(crate) async fn get(&self, id: &Value, rest: &str) -> Value {
        let path = format!("{RESPONSES}/{}{rest}", id.as_str().unwrap());
        self.client.get(&path).await.unwrap().json().unwrap()
    }
}

pub(crate) fn docs(fields: &Value) -> Value {
    let mut tool = json!({"type": "mcp", "server_label": "docs"});
    for (name, value) in fields.as_object().into_iter().flatten() {
        tool[name] = value.clone();
    }
    tool
}

pub(crate) fn request(tools: &[Value], fields: &Value) -> Value {
    let mut body = json!({"model": "script", "input": "Please.", "tools": tools});
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// Calls two tools in one turn, and then repeats the last result.
fn calls_both(request: &Recorded) -> Reply {
    if has_tool_result(request) {
        return Reply::text(request.last_text("tool").unwrap_or_default());
    }
    let call = |index, name: &str| Piece::ToolCall {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
        fragments: vec![json!({"text": "sheep"}).to_string()],
    };
    Reply::pieces([call(0, "docs__echo"), call(1, "docs__fail")]).ended("tool_calls")
}

pub(crate) fn check(events: &[ResponseEvent]) -> StreamChecker {
    let mut checker = StreamChecker::default();
    for event in events {
        checker.take(&event.kind, &event.data).unwrap();
    }
    checker.finish().unwrap();
    checker
}

pub(crate) fn kinds(response: &Value) -> Vec<String> {
    let output = response["output"].as_array().unwrap().iter();
    let status = |item: &Value| item["status"].as_str().unwrap_or_default().to_owned();
    let kinds = output.map(|item| format!("{} {}", item["type"].as_str().unwrap(), status(item)));
    kinds.map(|kind| kind.trim_end().to_owned()).collect()
}

/// Guards the items and events of a server that answers, of one that is away, and of a call that fails; the
/// ways back: a read, the next response, and the items in a further input; and the secrets of the registration.
#[tokio::test]
async fn a_servers_tools_are_listed_and_called_and_every_way_back_shows_the_same() {
    let s = Served::start(Manner::Honest, calls_both).await;
    let free = json!({"require_approval": "never", "allowed_tools": ["echo", "fail"],
                      "server_url": s.server.url(), "server_description": "Our sheep."});
    let gone = json!({"type": "mcp", "server_label": "gone", "require_approval": "never"});
    let tools = [docs(&free), gone];
    let streamed = request(&tools, &json!({"stream": true}));
    let stream = s.client.response(&streamed).await.unwrap();
    let events = stream.rest().await.unwrap();
    let response = check(&events).response.unwrap();
    assert_eq!(
        kinds(&response),
        [
            "mcp_list_tools",
            "mcp_list_tools",
            "mcp_call completed",
            "mcp_call failed",
            "message completed"
        ]
    );
    let [list, away, echo, fail, _] = &response["output"].as_array().unwrap()[..] else {
        panic!("{response}");
    };
    assert_eq!(list["tools"][0]["name"], "echo");
    assert_eq!(list["tools"][0]["annotations"]["idempotentHint"], true);
    assert_eq!(list["tools"][0]["input_schema"]["type"], "object");
    assert_eq!(list["tools"].as_array().unwrap().len(), 2, "{list}");
    assert_eq!(away["tools"], json!([]));
    assert!(
        away["error"].as_str().unwrap().contains("cannot be used"),
        "{away}"
    );
    assert_eq!(
        (&echo["server_label"], &echo["name"]),
        (&json!("docs"), &json!("echo"))
    );
    assert!(echo["output"].as_str().unwrap().contains("sheep"), "{echo}");
    assert_eq!(fail["output"], Value::Null);
    assert_eq!(fail["error"]["type"], "mcp_tool_execution_error");
    assert_eq!(response["tools"][0]["server_url"], s.server.url());

    let asked = &s.model.requests()[0].body;
    let offered = asked["tools"].as_array().unwrap().iter();
    let offered: Vec<_> = offered.map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(offered[2..], ["docs__echo", "docs__fail", "gone__echo"]);
    assert!(
        asked["messages"][0]["content"]
            .as_str()
            .unwrap()
            .contains("Our sheep.")
    );

    let id = &response["id"];
    let mut read = s.get(id, "").await;
    check_response(&read).unwrap();
    read["completed_at"] = response["completed_at"].clone();
    assert_eq!(read, response);
    let again = s
        .client
        .follow_response(id.as_str().unwrap(), None)
        .await
        .unwrap();
    assert_eq!(again.rest().await.unwrap(), events);

    let next = request(
        &tools,
        &json!({"previous_response_id": id, "input": "And?"}),
    );
    let (status, next) = s.post(&next).await;
    assert_eq!(status, 200, "{next}");
    let items = s.get(&next["id"], "/input_items?order=asc").await;
    let of_items = json!({"output": items["data"]});
    assert_eq!(
        kinds(&of_items)[1..3],
        ["mcp_call completed", "mcp_call completed"]
    );
    assert_eq!(items["data"][1]["name"], "echo");

    let before = s.model.requests().len();
    let mut input = vec![json!({"role": "user", "content": "Please."})];
    input.extend(response["output"].as_array().unwrap().clone());
    input.push(json!({"role": "user", "content": "Again."}));
    let (status, back) = s.post(&request(&tools, &json!({"input": input}))).await;
    assert_eq!(status, 200, "{back}");
    let messages = &s.model.requests()[before].body["messages"];
    let roles = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["role"].as_str().unwrap());
    let roles: Vec<_> = roles.collect();
    assert_eq!(
        roles,
        [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
            "tool",
            "assistant",
            "user"
        ]
    );
    assert_eq!(
        messages[2]["tool_calls"][0]["function"]["name"],
        "docs__echo"
    );

    let log = s.stack.logged().unwrap();
    let shown = format!("{response}{next}{items}{back}{log}");
    assert!(
        !shown.contains(TOKEN),
        "a secret of the registration is shown"
    );
}

/// Guards the bounds of a call: a server that never answers and one with an answer that never ends cost their
/// own calls only. Other calls of the same turn have their results, and the worker goes on.
#[tokio::test]
async fn a_server_that_hangs_and_one_that_floods_cost_only_their_own_calls() {
    let start = |manner| McpServer::start(Era::Modern, manner);
    let servers = tokio::try_join!(
        start(Manner::Honest),
        start(Manner::FloodsCalls),
        start(Manner::Honest)
    );
    let (hangs, floods, docs) = servers.unwrap();
    let model = model(|request| {
        if has_tool_result(request) {
            return Reply::text("done");
        }
        let calls = ["hangs__wait", "floods__echo", "docs__echo"];
        let calls = (0..).zip(calls).map(|(index, name)| Piece::ToolCall {
            index,
            id: format!("call_{index}"),
            name: name.to_owned(),
            fragments: vec![json!({"text": "sheep"}).to_string()],
        });
        Reply::pieces(calls).ended("tool_calls")
    })
    .await;
    let named = [("hangs", &hangs), ("floods", &floods), ("docs", &docs)];
    let config = named.map(|(name, server)| {
        let url = server.url();
        format!(
            "[[mcp.servers]]\nname = \"{name}\"\nurl = \"{url}\"\ntools = [\"echo\", \"wait\"]\n\
             timeout = \"2s\"\n"
        )
    });
    let mut options = options(&model);
    options.config = config.concat();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let tools = named
        .map(|(name, _)| json!({"type": "mcp", "server_label": name, "require_approval": "never"}));
    // The second response finds the same worker, and the same connections.
    for _ in 0..2 {
        let body = request(&tools, &json!({}));
        let answer = client.post(RESPONSES, &body).await.unwrap();
        let response = answer.json().unwrap();
        let expected = [
            "mcp_list_tools",
            "mcp_list_tools",
            "mcp_list_tools",
            "mcp_call failed",
            "mcp_call failed",
            "mcp_call completed",
            "message completed",
        ];
        assert_eq!(kinds(&response), expected, "{response}");
        let why = |at: usize| response["output"][at]["error"].to_string();
        assert!(why(3).contains("2s"), "{}", why(3));
        assert!(why(4).contains("floods"), "{}", why(4));
        let run = response["id"].as_str().unwrap().replace("resp_", "");
        let run = client.get(&format!("/v1/runs/{run}")).await.unwrap();
        assert_eq!(run.json().unwrap()["attempt"], 1);
    }
    assert_eq!(docs.seen().calls.len(), 2);
}

/// Guards the rules for approval: a call waits unless the request says otherwise, and the operator's rule holds
/// whatever it says.
#[tokio::test]
async fn a_call_waits_for_a_person_by_default_and_an_operators_rule_is_not_lifted() {
    for (tool, approval) in [
        ("docs__echo", json!("always")),
        ("docs__wait", json!("never")),
    ] {
        let s = Served::start(Manner::Honest, move |request| {
            if has_tool_result(request) {
                Reply::text("done")
            } else {
                call("", tool, &json!({"text": "sheep"}))
            }
        })
        .await;
        s.server.open_gate();
        let tools = [docs(&json!({"require_approval": approval}))];
        let (_, queued) = s.post(&request(&tools, &json!({"background": true}))).await;
        let run = queued["id"].as_str().unwrap().replace("resp_", "");
        let mut events = s.client.events(&run, None).await.unwrap();
        events.until("approval.requested").await.unwrap();
        let asked = events.seen.last().unwrap().event["data"].clone();
        assert_eq!(asked["name"], tool);
        assert_eq!(s.server.seen().calls.len(), 0);
        let path = format!(
            "/v1/runs/{run}/approvals/{}",
            asked["approval_id"].as_str().unwrap()
        );
        let decided = s
            .client
            .post(&path, &json!({"decision": "approve"}))
            .await
            .unwrap();
        assert_eq!(decided.status, 200);
        s.client.ended(&run).await.unwrap();
        let ended = s.get(&queued["id"], "").await;
        assert_eq!(
            kinds(&ended),
            ["mcp_list_tools", "mcp_call completed", "message completed"]
        );
        assert_eq!(s.server.seen().calls.len(), 1);
    }
}

/// Guards the item of a call over a worker's end and a cancel: it is closed as incomplete, and no item of the
/// response.
#[tokio::test]
async fn the_calls_of_a_killed_worker_and_of_a_cancelled_run_are_incomplete() {
    let s = Served::start(Manner::Honest, |request| {
        if has_tool_result(request) {
            Reply::text("done")
        } else {
            call("", "docs__wait", &json!({"text": "sheep"}))
        }
    })
    .await;
    let tools = [docs(&json!({}))];
    let body = request(&tools, &json!({"background": true, "stream": true}));
    let mut stream = s.client.response(&body).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let id = first.data["response"]["id"].as_str().unwrap();
    let run = id.replace("resp_", "");
    let mut events = s.client.events(&run, None).await.unwrap();
    let mut decide = async |reason: &str, decision: &str| {
        let asked = events.until_event(|event| event.event["data"]["reason"] == reason);
        let asked = asked.await.unwrap().event["data"]["approval_id"].clone();
        let path = format!("/v1/runs/{run}/approvals/{}", asked.as_str().unwrap());
        let decided = s
            .client
            .post(&path, &json!({"decision": decision}))
            .await
            .unwrap();
        assert_eq!(decided.status, 200);
    };
    decide("approval required", "approve").await;
    s.server.wait_until(|seen| seen.calls.len() == 1).await;
    // The first stream has ended with the approval request.
    let stream = s.client.follow_response(id, None).await.unwrap();
    let Served { worker, .. } = s;
    worker.unwrap().kill().await;
    let _second = s.stack.worker().await.unwrap();
    decide("outcome unknown", "retry").await;
    s.server.wait_until(|seen| seen.calls.len() == 2).await;
    assert_eq!(s.client.cancel(&run).await.unwrap().status, 202);
    let checker = check(&stream.rest().await.unwrap());
    let calls = checker.items.iter().filter(|item| item.kind == "mcp_call");
    let calls: Vec<_> = calls.filter_map(|item| item.done.as_deref()).collect();
    assert_eq!(calls, ["incomplete", "incomplete"]);
    assert_eq!(kinds(&checker.response.unwrap()), ["mcp_list_tools"]);
}
