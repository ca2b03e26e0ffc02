//! Approval requests about calls of MCP servers' tools, and the answers of later requests.

use baton_harness::mcp_server::Manner;
use baton_harness::scripted_model::{Recorded, Reply};
use baton_responses::checker::check_response;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{call, has_tool_result};
use crate::mcp_responses::{Served, check, docs, kinds, request};

/// Calls `echo` once, and then repeats its result.
fn echoes(request: &Recorded) -> Reply {
    if has_tool_result(request) {
        Reply::text(request.last_text("tool").unwrap_or_default())
    } else {
        call("I ask.", "docs__echo", &json!({"text": "sheep"}))
    }
}

fn answer(asked: &Value, approve: bool) -> Value {
    json!({"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": approve})
}

/// Guards the whole way of an approval: the response ends with the request, one of fifty answers goes on from it
/// in a new response, and the call is made once, by a worker that had not asked.
#[tokio::test]
async fn a_response_ends_with_an_approval_request_and_one_of_fifty_answers_goes_on_from_it() {
    let mut s = Served::start(Manner::Honest, echoes).await;
    let tools = [docs(&json!({}))];
    let body = request(&tools, &json!({"stream": true}));
    let events = s
        .client
        .response(&body)
        .await
        .unwrap()
        .rest()
        .await
        .unwrap();
    let first = check(&events).response.unwrap();
    let asking = [
        "mcp_list_tools",
        "message completed",
        "mcp_approval_request",
    ];
    assert_eq!(kinds(&first), asking);
    assert_eq!(first["status"], "completed");
    assert!(
        first["usage"]["total_tokens"].as_u64().unwrap() > 0,
        "{first}"
    );
    let asked = &first["output"][2];
    assert_eq!(
        (&asked["server_label"], &asked["name"]),
        (&json!("docs"), &json!("echo"))
    );
    assert_eq!(asked["arguments"], r#"{"text":"sheep"}"#);
    let mut read = s.get(&first["id"], "").await;
    check_response(&read).unwrap();
    read["completed_at"] = first["completed_at"].clone();
    assert_eq!(read, first);

    let early = request(
        &tools,
        &json!({"previous_response_id": first["id"], "input": "Well?"}),
    );
    let (status, error) = s.post(&early).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (409, &json!("approval_required")),
        "{error}"
    );
    for (id, code, status) in [
        (json!("mcpr_x"), Value::Null, 400),
        (
            json!("mcpr_01890a5d-ac96-774b-bcce-b302099a8057_2"),
            json!("response_not_found"),
            404,
        ),
        (
            json!(asked["id"].as_str().unwrap().replace("_2", "_9")),
            json!("response_not_found"),
            404,
        ),
    ] {
        let input = [answer(&json!({ "id": id }), true)];
        let (answered, error) = s.post(&request(&tools, &json!({"input": input}))).await;
        assert_eq!(answered, status, "{id}: {error}");
        assert_eq!(error["error"]["param"], "input[0].approval_request_id");
        assert!(code.is_null() || error["error"]["code"] == code, "{error}");
    }
    assert_eq!(s.server.seen().calls.len(), 0);

    s.worker.take().unwrap().kill().await;
    let yes = json!({"previous_response_id": first["id"], "input": [answer(asked, true)], "background": true});
    let yes = request(&tools, &yes);
    let answers = join_all((0..50).map(|_| s.post(&yes))).await;
    let won: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let lost = answers.iter().filter(|(status, _)| *status != 200);
    for (status, error) in lost {
        assert_eq!(
            (*status, &error["error"]["code"]),
            (409, &json!("already_decided"))
        );
    }
    let _second = s.stack.worker().await.unwrap();
    let next = &won[0].1["id"];
    s.client
        .ended(&next.as_str().unwrap().replace("resp_", ""))
        .await
        .unwrap();
    let next = s.get(next, "").await;
    assert_eq!(
        kinds(&next),
        ["mcp_list_tools", "mcp_call completed", "message completed"]
    );
    assert_eq!(next["output"][1]["approval_request_id"], asked["id"]);
    assert!(
        next["output"][1]["output"]
            .as_str()
            .unwrap()
            .contains("sheep"),
        "{next}"
    );
    assert_eq!(s.server.seen().calls.len(), 1);
    let streamed = s
        .client
        .follow_response(next["id"].as_str().unwrap(), None)
        .await
        .unwrap();
    let streamed = check(&streamed.rest().await.unwrap()).response.unwrap();
    assert_eq!(streamed["output"], next["output"]);

    let after = s.get(&first["id"], "").await;
    assert_eq!(
        (kinds(&after), &after["status"]),
        (asking.map(str::to_owned).to_vec(), &json!("completed"))
    );
    let replayed = s
        .client
        .follow_response(first["id"].as_str().unwrap(), None)
        .await
        .unwrap();
    let replayed = check(&replayed.rest().await.unwrap()).response.unwrap();
    assert_eq!(replayed["output"], first["output"]);
    let items = s.get(&next["id"], "/input_items?order=asc").await;
    let items = json!({"output": items["data"]});
    assert_eq!(
        kinds(&items)[1..],
        [
            "message completed",
            "mcp_approval_request",
            "mcp_approval_response"
        ]
    );
    let run = first["id"].as_str().unwrap().replace("resp_", "");
    let listed = s
        .client
        .get(&format!("/v1/runs/{run}/approvals"))
        .await
        .unwrap();
    assert_eq!(
        listed.json().unwrap()["data"][0]["decision"]["decision"],
        "approve"
    );
}

/// Guards the form without `previous_response_id`, in which a client sends all items back, and a rejection.
#[tokio::test]
async fn a_client_that_sends_all_items_back_is_answered_and_a_rejection_calls_nothing() {
    let s = Served::start(Manner::Honest, echoes).await;
    let tools = [docs(&json!({}))];
    let mut input = vec![json!({"role": "user", "content": "Please."})];
    let (status, first) = s.post(&request(&tools, &json!({"input": input}))).await;
    assert_eq!(status, 200, "{first}");
    input.extend(first["output"].as_array().unwrap().clone());
    let asked = input.last().unwrap().clone();
    let unanswered = request(&tools, &json!({"input": input}));
    let (status, error) = s.post(&unanswered).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("input[3]")),
        "{error}"
    );

    let mut no = answer(&asked, false);
    no["reason"] = "not today".into();
    input.push(no);
    let (status, next) = s.post(&request(&tools, &json!({"input": input}))).await;
    assert_eq!(status, 200, "{next}");
    assert_eq!(kinds(&next), ["mcp_list_tools", "message completed"]);
    let said = next["output"][1]["content"][0]["text"].as_str().unwrap();
    assert!(
        said.contains("not approved") && said.contains("not today"),
        "{said}"
    );
    assert_eq!(s.server.seen().calls.len(), 0);

    // The answered request is part of the conversation from now on.
    input.extend(next["output"].as_array().unwrap().clone());
    input.push(json!({"role": "user", "content": "Well."}));
    let before = s.model.requests().len();
    let (status, last) = s.post(&request(&tools, &json!({"input": input}))).await;
    assert_eq!(status, 200, "{last}");
    let messages = s.model.requests()[before].body["messages"].to_string();
    assert!(
        messages.contains("not today") && messages.contains("docs__echo"),
        "{messages}"
    );
}

/// Guards the other door: a decision there goes on with the same response.
#[tokio::test]
async fn a_decision_at_the_door_of_approvals_goes_on_with_the_same_response() {
    let s = Served::start(Manner::Honest, echoes).await;
    let (_, first) = s.post(&request(&[docs(&json!({}))], &json!({}))).await;
    assert_eq!(kinds(&first).last().unwrap(), "mcp_approval_request");
    let run = first["id"].as_str().unwrap().replace("resp_", "");
    let listed = s
        .client
        .get(&format!("/v1/runs/{run}/approvals"))
        .await
        .unwrap();
    let approval = listed.json().unwrap()["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/runs/{run}/approvals/{approval}");
    let decided = s
        .client
        .post(&path, &json!({"decision": "approve"}))
        .await
        .unwrap();
    assert_eq!(decided.status, 200);
    s.client.ended(&run).await.unwrap();
    let ended = s.get(&first["id"], "").await;
    let done = [
        "mcp_list_tools",
        "message completed",
        "mcp_call completed",
        "message completed",
    ];
    assert_eq!(kinds(&ended), done);
    let replayed = s
        .client
        .follow_response(first["id"].as_str().unwrap(), None)
        .await
        .unwrap();
    let replayed = check(&replayed.rest().await.unwrap()).response.unwrap();
    assert_eq!(replayed["output"], ended["output"]);
}
