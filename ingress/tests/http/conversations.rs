//! Conversations over HTTP: threads in OpenAI's words, and responses that go on with them.

use baton_protocol::RunSpec;
use baton_responses::checker::{check_item, check_response};
use serde_json::{Value, json};

use crate::fixture::Fixture;

const PATH: &str = "/v1/conversations";

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": text})
}

fn call(id: &str) -> Value {
    json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})
}

/// Makes a conversation and returns its path.
async fn conversation(f: &Fixture, body: Value) -> String {
    let (status, made) = ask(f, "POST", PATH, body).await;
    assert_eq!(status, 200, "{made}");
    format!("{PATH}/{}", made["id"].as_str().unwrap())
}

/// Returns the items of a conversation, the first one first.
async fn items(f: &Fixture, path: &str) -> Vec<Value> {
    let (status, list) = ask(f, "GET", &format!("{path}/items?order=asc"), Value::Null).await;
    assert_eq!(status, 200, "{list}");
    let items = list["data"].as_array().unwrap().clone();
    for item in &items {
        check_item(item).unwrap();
    }
    items
}

/// Returns an item's type, and its text if it is a message.
fn said(items: &[Value]) -> Vec<String> {
    let said = items.iter().map(|item| {
        let text = item["content"][0]["text"].as_str();
        text.or(item["call_id"].as_str()).unwrap().to_owned()
    });
    said.collect()
}

#[tokio::test]
async fn a_conversation_is_made_changed_read_and_deleted() {
    let f = Fixture::start().await;
    let wish = json!({"metadata": {"user": "ada"}, "items": [user("I like trains.")]});
    let path = conversation(&f, wish).await;
    let (_, read) = ask(&f, "GET", &path, Value::Null).await;
    assert_eq!(
        (&read["object"], &read["metadata"]),
        (&json!("conversation"), &json!({"user": "ada"}))
    );
    assert!(read["created_at"].is_u64(), "{read}");
    let thread = read["id"].as_str().unwrap().strip_prefix("conv_").unwrap();
    let thread = format!("/v1/threads/{thread}");
    let (_, same) = ask(&f, "GET", &thread, Value::Null).await;
    assert_eq!(same["metadata"], json!({"user": "ada"}), "it is a thread");
    for (metadata, shown) in [
        (json!({"k": "v"}), json!({"k": "v"})),
        (Value::Null, json!({})),
    ] {
        let change = json!({"metadata": metadata});
        let (status, changed) = ask(&f, "POST", &path, change).await;
        assert_eq!((status, &changed["metadata"]), (200, &shown), "{changed}");
    }
    let [item] = &*items(&f, &path).await else {
        panic!()
    };
    let item = format!("{path}/items/{}", item["id"].as_str().unwrap());
    let (status, deleted) = ask(&f, "DELETE", &path, Value::Null).await;
    let expected = json!({"id": read["id"], "object": "conversation.deleted", "deleted": true});
    assert_eq!((status, deleted), (200, expected));
    let list = format!("{path}/items");
    for (method, path, body) in [
        ("GET", &path, Value::Null),
        ("POST", &path, json!({"metadata": {}})),
        ("DELETE", &path, Value::Null),
        ("GET", &list, Value::Null),
        ("POST", &list, json!({"items": [user("x")]})),
        ("GET", &item, Value::Null),
        ("DELETE", &item, Value::Null),
    ] {
        let (status, error) = ask(&f, method, path, body).await;
        let code = &error["error"]["code"];
        assert_eq!((status, code), (404, &json!("conversation_not_found")));
    }
    assert_eq!(ask(&f, "GET", &thread, Value::Null).await.0, 404);
}

#[tokio::test]
async fn items_are_added_listed_in_pages_and_deleted_one_by_one() {
    let f = Fixture::start().await;
    let path = conversation(&f, json!({})).await;
    let list = format!("{path}/items");
    let reasoning = json!({"type": "reasoning", "summary": [],
        "content": [{"type": "reasoning_text", "text": "Two cities."}]});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "12"});
    // The turn comes in three requests, and is one message of the thread.
    for (added, expected) in [
        (
            vec![user("Weather?"), reasoning],
            vec!["Weather?", "Two cities."],
        ),
        (vec![call("oslo")], vec!["oslo"]),
        (
            vec![call("rome"), output("oslo"), output("rome")],
            vec!["rome", "oslo", "rome"],
        ),
    ] {
        let (status, shown) = ask(&f, "POST", &list, json!({"items": added})).await;
        assert_eq!(status, 200, "{shown}");
        assert_eq!(said(shown["data"].as_array().unwrap()), expected);
    }
    let all = items(&f, &path).await;
    let whole = ["Weather?", "Two cities.", "oslo", "rome", "oslo", "rome"];
    assert_eq!(said(&all), whole);
    let thread = path.replace("/v1/conversations/conv_", "/v1/threads/");
    let (_, messages) = ask(&f, "GET", &format!("{thread}/messages"), Value::Null).await;
    let messages = messages["data"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|it| &it["message"]["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool"]);

    for (order, limit) in [("asc", 1), ("asc", 2), ("desc", 1), ("desc", 4)] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = format!("{list}?order={order}&limit={limit}{after}");
            let (_, page) = ask(&f, "GET", &page, Value::Null).await;
            seen.extend(page["data"].as_array().unwrap().iter().cloned());
            if page["has_more"] == json!(false) {
                break;
            }
            after = format!("&after={}", page["last_id"].as_str().unwrap());
        }
        if order == "desc" {
            seen.reverse();
        }
        assert_eq!(seen, all, "{order} by {limit}");
    }
    let gone = format!("{list}/{}", all[2]["id"].as_str().unwrap());
    assert_eq!(
        ask(&f, "GET", &gone, Value::Null).await,
        (200, all[2].clone())
    );
    let (status, left) = ask(&f, "DELETE", &gone, Value::Null).await;
    assert_eq!((status, &left["object"]), (200, &json!("conversation")));
    let mut rest = all.clone();
    rest.remove(2);
    assert_eq!(items(&f, &path).await, rest, "the others keep their ids");
    for method in ["GET", "DELETE"] {
        let (status, error) = ask(&f, method, &gone, Value::Null).await;
        let code = &error["error"]["code"];
        assert_eq!((status, code), (404, &json!("item_not_found")));
    }
    for item in &rest {
        let item = format!("{list}/{}", item["id"].as_str().unwrap());
        assert_eq!(ask(&f, "DELETE", &item, Value::Null).await.0, 200);
    }
    assert_eq!(items(&f, &path).await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_bad_request_about_a_conversation_is_refused_by_its_field() {
    let f = Fixture::start().await;
    let path = conversation(&f, json!({})).await;
    let list = format!("{path}/items");
    let many = vec![user("x"); 21];
    for (method, path, body, param) in [
        ("POST", PATH, json!({"colour": 1}), "colour"),
        ("POST", PATH, json!({"items": many}), "items"),
        ("POST", PATH, json!({"metadata": {"a": 1}}), "metadata.a"),
        ("POST", &path, json!({}), "metadata"),
        ("POST", &list, json!({"items": []}), "items"),
        (
            "POST",
            &list,
            json!({"items": [{"type": "web_search_call"}]}),
            "items[0].type",
        ),
        (
            "POST",
            &list,
            json!({"items": [{"type": "mcp_call"}]}),
            "items[0].server_label",
        ),
        ("GET", &format!("{list}?limit=0"), Value::Null, "limit"),
        ("GET", &format!("{list}?order=up"), Value::Null, "order"),
        ("GET", &format!("{list}?after=x"), Value::Null, "after"),
        (
            "GET",
            &format!("{list}?after=msg_01890a5d-ac96-774b-bcce-b302099a8057"),
            Value::Null,
            "after",
        ),
        ("GET", &format!("{list}?include=x"), Value::Null, "include"),
    ] {
        let (status, error) = ask(&f, method, path, body.clone()).await;
        assert_eq!(status, 400, "{method} {path} {body}: {error}");
        assert_eq!(error["error"]["param"], param, "{method} {path} {body}");
    }
    let thread = path.replace("conv_", "");
    for path in [thread, format!("{PATH}/conv_1")] {
        let (status, error) = ask(&f, "GET", &path, Value::Null).await;
        assert_eq!(status, 404);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("begins with `conv_`"), "{message}");
    }
}

#[tokio::test]
async fn responses_go_on_with_a_conversation_that_keeps_no_instructions() {
    let f = Fixture::start().await;
    let path = conversation(&f, json!({"items": [user("I like trains.")]})).await;
    let id = path.rsplit('/').next().unwrap();
    let wish = |input: &str, conversation: Value| {
        json!({"model": "m", "input": input, "background": true, "conversation": conversation,
               "instructions": "Be brief."})
    };
    let (status, first) = ask(&f, "POST", "/v1/responses", wish("To Rome?", json!(id))).await;
    assert_eq!((status, &first["conversation"]), (200, &json!({"id": id})));
    check_response(&first).unwrap();
    let mut worker = f.take_job().await;
    let spec: RunSpec = serde_json::from_str(&f.record(worker.run()).await.spec_json).unwrap();
    let begun: Vec<Value> = serde_json::from_str(spec.messages.get()).unwrap();
    let begun: Vec<_> = begun.iter().map(|it| &it["content"]).collect();
    assert_eq!(begun, ["Be brief.", "I like trains.", "To Rome?"]);
    let input = format!(
        "/v1/responses/{}/input_items",
        first["id"].as_str().unwrap()
    );
    let (_, input) = ask(&f, "GET", &input, Value::Null).await;
    assert_eq!(said(input["data"].as_array().unwrap()), ["To Rome?"]);

    let busy = [
        (
            "POST",
            "/v1/responses".to_owned(),
            wish("x", json!({"id": id})),
        ),
        (
            "POST",
            format!("{path}/items"),
            json!({"items": [user("x")]}),
        ),
        ("DELETE", path.clone(), Value::Null),
    ];
    for (method, path, body) in busy {
        let (status, error) = ask(&f, method, &path, body).await;
        let code = &error["error"]["code"];
        assert_eq!(
            (status, code),
            (409, &json!("thread_busy")),
            "{method} {path}"
        );
    }
    let mut queued = wish("And back?", json!({"id": id}));
    queued["on_busy"] = json!("queue");
    let (status, second) = ask(&f, "POST", "/v1/responses", queued).await;
    assert_eq!(status, 200, "{second}");
    worker.say("By train.").await;
    worker.complete().await;
    let mut worker = f.take_job().await;
    worker.say("The same way.").await;
    worker.complete().await;
    let all = items(&f, &path).await;
    let whole = [
        "I like trains.",
        "To Rome?",
        "By train.",
        "And back?",
        "The same way.",
    ];
    assert_eq!(said(&all), whole);
    assert_eq!(all[2]["content"][0]["type"], "output_text");

    let nowhere = "conv_01890a5d-ac96-774b-bcce-b302099a8057";
    let (status, error) = ask(&f, "POST", "/v1/responses", wish("x", json!(nowhere))).await;
    let error = &error["error"];
    assert_eq!(
        (status, &error["code"], &error["param"]),
        (
            404,
            &json!("conversation_not_found"),
            &json!("conversation")
        )
    );
    let mut both = wish("x", json!(id));
    both["previous_response_id"] = second["id"].clone();
    let (status, error) = ask(&f, "POST", "/v1/responses", both).await;
    assert_eq!(status, 400);
    let message = error["error"]["message"].as_str().unwrap();
    for field in ["`conversation`", "`previous_response_id`"] {
        assert!(message.contains(field), "{message}");
    }
    for rule in ["steer", "wait"] {
        let mut wish = wish("x", json!(id));
        wish["on_busy"] = json!(rule);
        let (status, error) = ask(&f, "POST", "/v1/responses", wish).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!("on_busy")));
    }
}
