//! `POST /v1/responses/compact`, and its summaries as input.

use baton_protocol::{CompactionRule, RunId, RunSpec, TenantId};
use baton_responses::checker::{StreamChecker, check_item};
use baton_service::{Clock as _, SystemClock};
use reqwest::Response;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Sse, answer, run_of, soon};

const PATH: &str = "/v1/responses/compact";
const RESPONSES: &str = "/v1/responses";

/// Compacts a conversation; the model writes this summary.
async fn compact(f: &Fixture, body: &Value, summary: &str) -> Response {
    let (response, ()) = tokio::join!(soon(f.post(PATH, body).send()), async {
        let mut worker = f.take_job().await;
        worker.say(summary).await;
        worker.complete().await;
    });
    response.unwrap()
}

async fn spec_of(f: &Fixture, run: RunId) -> RunSpec {
    serde_json::from_str(&f.record(run).await.spec_json).unwrap()
}

fn said(spec: &RunSpec) -> Vec<(String, String)> {
    let messages: Vec<Value> = serde_json::from_str(spec.messages.get()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let said = messages
        .iter()
        .map(|message| (text(&message["role"]), text(&message["content"])));
    said.collect()
}

fn talk() -> Value {
    json!({"model": "m", "instructions": "Be brief.", "input": [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is 2 + 2?"},
    ]})
}

#[tokio::test]
async fn a_conversation_is_compacted_and_goes_on_from_its_summary() {
    let f = Fixture::start().await;
    let response = compact(&f, &talk(), "Ada asks for 2 + 2.").await;
    let run = run_of(&response);
    let spec = spec_of(&f, run).await;
    let params: Value = serde_json::from_str(spec.params.as_raw().get()).unwrap();
    assert_eq!(params, json!({"tool_choice": "none"}));
    let asked = said(&spec);
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[0], ("system".into(), "Be brief.".into()));
    assert!(asked[4].1.starts_with("Summarise"), "{asked:?}");
    let (status, compacted) = answer(response).await;
    assert_eq!(
        (status, &compacted["object"]),
        (200, &json!("response.compaction"))
    );
    assert_eq!(compacted["id"], format!("resp_{run}"));
    assert_eq!(compacted["usage"]["total_tokens"], 15);
    let output = compacted["output"].as_array().unwrap();
    for item in output {
        check_item(item).unwrap();
    }
    let texts = output[..2].iter().map(|item| &item["content"][0]["text"]);
    assert_eq!(
        texts.collect::<Vec<_>>(),
        ["My name is Ada.", "What is 2 + 2?"]
    );
    assert_eq!(output[2]["type"], "compaction");
    assert!(!compacted.to_string().contains("Ada asks"), "it is sealed");
    let path = format!("{RESPONSES}/resp_{run}");
    assert_eq!(f.ask(&f.key, "GET", &path, Value::Null).await.0, 404);

    // On another server, and after the run of the summary is gone.
    assert!(f.store.system().delete_run(f.tenant, run).await.unwrap());
    let (other, _shutdown) = f.another_ingress().await;
    let mut input = output.clone();
    input.push(json!({"role": "user", "content": "And 3 + 3?"}));
    let body = json!({"model": "m", "input": input, "background": true});
    let response = soon(f.post_to(&other, RESPONSES, &body).send())
        .await
        .unwrap();
    let next = run_of(&response);
    let (status, next_response) = answer(response).await;
    assert_eq!(status, 200, "{next_response}");
    let asked = said(&spec_of(&f, next).await);
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[2].0, "user");
    assert!(asked[2].1.ends_with("Ada asks for 2 + 2."), "{asked:?}");
    let mut worker = f.take_job().await;
    worker.say("6").await;
    worker.complete().await;

    // A response with a summary in its input is compacted together with it.
    let body = json!({"model": "m", "previous_response_id": next_response["id"]});
    let (status, again) = answer(compact(&f, &body, "And 3 + 3 is 6.").await).await;
    assert_eq!(status, 200, "{again}");
    let output = again["output"].as_array().unwrap();
    let texts: Vec<_> = output[..output.len() - 1]
        .iter()
        .map(|item| item["content"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts,
        ["My name is Ada.", "What is 2 + 2?", "And 3 + 3?"],
        "the earlier summary is part of the new one"
    );
}

fn rule(threshold: u64) -> Value {
    json!([{"type": "compaction", "compact_threshold": threshold}])
}

/// Guards the summary that a worker makes for a response.
#[tokio::test]
async fn a_response_shows_its_summary_and_the_next_one_begins_with_it() {
    let f = Fixture::start().await;
    let mut first = talk();
    first["background"] = true.into();
    let (_, first) = f.ask(&f.key, "POST", RESPONSES, first).await;
    let mut worker = f.take_job().await;
    worker.say("4").await;
    worker.complete().await;

    let body = json!({"model": "m", "instructions": "Be kind.", "previous_response_id": first["id"],
        "input": "And 3 + 3?", "background": true, "context_management": rule(1_000)});
    let response = soon(f.post(RESPONSES, &body).send()).await.unwrap();
    let run = run_of(&response);
    let (status, queued) = answer(response).await;
    assert_eq!(status, 200, "{queued}");
    let spec = spec_of(&f, run).await;
    let expected = CompactionRule {
        threshold: 1_000,
        // Of the one turn of the first response.
        earlier_tokens: 15,
        earlier_messages: 5,
    };
    assert_eq!(spec.compaction, Some(expected));
    let mut worker = f.take_job().await;
    worker.compact("Ada asks for sums.").await;
    worker.say("6").await;
    worker.complete().await;

    let path = format!("{RESPONSES}/resp_{run}");
    let (status, read) = f.ask(&f.key, "GET", &path, Value::Null).await;
    assert_eq!(status, 200, "{read}");
    let output = read["output"].as_array().unwrap();
    assert_eq!(
        (output.len(), &output[0]["type"]),
        (2, &json!("compaction"))
    );
    assert_eq!(output[0]["id"], format!("cmp_{run}_1"));
    for item in output {
        check_item(item).unwrap();
    }
    assert!(!read.to_string().contains("Ada asks"), "it is sealed");
    let (other, _shutdown) = f.another_ingress().await;
    let elsewhere = soon(f.get_from(&other, &path).send()).await.unwrap();
    assert_eq!(answer(elsewhere).await.1["output"], read["output"]);
    let stream = soon(f.get(&format!("{path}?stream=true")).send())
        .await
        .unwrap();
    let frames = Sse::of(stream).rest().await;
    let mut checker = StreamChecker::default();
    for frame in &frames {
        let data = serde_json::from_str(&frame.data).unwrap();
        checker
            .take(frame.event.as_deref().unwrap(), &data)
            .unwrap();
    }
    checker.finish().unwrap();
    assert_eq!(checker.response.unwrap()["output"], read["output"]);

    // The native view has the summary itself, and no message of it.
    let (_, native) = f
        .ask(&f.key, "GET", &format!("/v1/runs/{run}"), Value::Null)
        .await;
    assert_eq!(native["steps"][0]["kind"], "compaction");
    assert_eq!(native["steps"][0]["summary"], "Ada asks for sums.");
    assert_eq!(native["output"].as_array().unwrap().len(), 1);

    let body = json!({"model": "m", "previous_response_id": read["id"], "input": "And 4 + 4?",
        "background": true, "context_management": rule(1_000)});
    let response = soon(f.post(RESPONSES, &body).send()).await.unwrap();
    let child = spec_of(&f, run_of(&response)).await;
    let asked = said(&child);
    let texts: Vec<_> = asked.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts.len(), 4, "{asked:?}");
    assert!(texts[0].ends_with("Ada asks for sums."), "{asked:?}");
    assert_eq!(texts[1..], ["And 3 + 3?", "6", "And 4 + 4?"]);
    let rule = child.compaction.unwrap();
    assert_eq!((rule.earlier_tokens, rule.earlier_messages), (15, 3));

    // The item alone replaces what was before it.
    let input = json!([output[0], {"role": "user", "content": "And 5 + 5?"}]);
    let body = json!({"model": "m", "input": input, "background": true});
    let response = soon(f.post(RESPONSES, &body).send()).await.unwrap();
    let asked = said(&spec_of(&f, run_of(&response)).await);
    assert!(asked[0].1.ends_with("Ada asks for sums."), "{asked:?}");
    let theirs = f.key_of_another_tenant(78).await;
    let (status, error) = f.ask(&theirs, "POST", RESPONSES, body).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("invalid_compaction"))
    );
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_is_refused_by_its_name() {
    let f = Fixture::start().await;
    let threshold = "context_management[0].compact_threshold";
    for (rule, param) in [
        (json!(7), "context_management"),
        (json!([7]), "context_management[0]"),
        (
            json!([{"compact_threshold": 1_000}]),
            "context_management[0].type",
        ),
        (
            json!([{"type": "truncation", "compact_threshold": 1_000}]),
            "context_management[0].type",
        ),
        (json!([{"type": "compaction"}]), threshold),
        (rule(999), threshold),
        (
            json!([{"type": "compaction", "compact_threshold": 1e3}]),
            threshold,
        ),
        (
            json!([{"type": "compaction", "compact_threshold": "1000"}]),
            threshold,
        ),
        (
            json!([{"type": "compaction", "compact_threshold": 1_000, "keep": 2}]),
            "context_management[0].keep",
        ),
        (
            json!([rule(1_000)[0], rule(2_000)[0]]),
            "context_management[1]",
        ),
    ] {
        let body = json!({"model": "m", "input": "x", "context_management": rule});
        let (status, error) = f.ask(&f.key, "POST", RESPONSES, body).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{error}"
        );
    }
    let (_, conversation) = f.ask(&f.key, "POST", "/v1/conversations", json!({})).await;
    let body = json!({"model": "m", "input": "x", "conversation": conversation["id"],
        "context_management": rule(1_000)});
    let (status, error) = f.ask(&f.key, "POST", RESPONSES, body).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("context_management")),
        "{error}"
    );
    for path in [PATH, "/v1/responses/input_tokens"] {
        let body = json!({"model": "m", "input": "x", "context_management": rule(1_000)});
        let (status, error) = f.ask(&f.key, "POST", path, body).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!("context_management")),
            "{path}: {error}"
        );
    }
}

#[tokio::test]
async fn a_foreign_or_changed_summary_is_refused() {
    let f = Fixture::start().await;
    let (_, compacted) = answer(compact(&f, &talk(), "Ada asks.").await).await;
    let item = &compacted["output"][2];
    let body = |item: &Value| {
        let input = json!([{"role": "user", "content": "x"}, item]);
        json!({"model": "m", "input": input, "background": true})
    };
    let refused = async |key: &str, path: &str, item: &Value| {
        let mut body = body(item);
        if path != RESPONSES {
            body.as_object_mut().unwrap().remove("background");
        }
        let (status, error) = f.ask(key, "POST", path, body).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!("input[1].encrypted_content")),
            "{path}: {error}"
        );
        assert_eq!(error["error"]["code"], "invalid_compaction");
    };
    let theirs = f.key_of_another_tenant(77).await;
    let mut changed = item.clone();
    let content = item["encrypted_content"].as_str().unwrap();
    let first = if content.starts_with('A') { "B" } else { "A" };
    changed["encrypted_content"] = json!(format!("{first}{}", &content[1..]));
    for path in [RESPONSES, "/v1/responses/input_tokens", PATH] {
        refused(&theirs, path, item).await;
        refused(&f.key, path, &changed).await;
    }
    let other = TenantId::new(SystemClock.now());
    let other = f.store.system().ensure_tenant(other, "another").await;
    let mut tx = f.store.tenant(other.unwrap().id).await.unwrap();
    assert!(
        tx.sealing_key().await.unwrap().is_none(),
        "a refusal makes no key"
    );
    tx.make_sealing_key([9; 32]).await.unwrap();
    tx.commit().await.unwrap();
    refused(&theirs, RESPONSES, item).await;
    let (status, error) = f
        .ask(
            &f.key,
            "POST",
            "/v1/conversations",
            json!({"items": [item]}),
        )
        .await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("items[0].type"))
    );
    let (status, response) = f.ask(&f.key, "POST", RESPONSES, body(item)).await;
    assert_eq!(status, 200, "{response}");
}

#[tokio::test]
async fn a_summary_that_is_not_whole_is_an_error() {
    let f = Fixture::start().await;
    let (status, error) = answer(compact(&f, &talk(), "").await).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (502, &json!("no_summary"))
    );
    let failed = async { f.take_job().await.fail("upstream_timeout").await };
    let (response, ()) = tokio::join!(soon(f.post(PATH, &talk()).send()), failed);
    let (status, error) = answer(response.unwrap()).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (504, &json!("upstream_timeout"))
    );
    for (body, param) in [
        (json!({"model": "m"}), "input"),
        (json!({"model": "m", "instructions": "x"}), "input"),
        (json!({"input": "x"}), "model"),
        (json!({"model": "m", "input": "x", "tools": []}), "tools"),
        (
            json!({"model": "m", "input": "x", "stream": false}),
            "stream",
        ),
        (
            json!({"model": "m", "input": "x", "conversation": "conv_1"}),
            "conversation",
        ),
        (
            json!({"model": "m", "input": [{"type": "compaction"}]}),
            "input[0].encrypted_content",
        ),
    ] {
        let (status, error) = f.ask(&f.key, "POST", PATH, body).await;
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{error}"
        );
    }
}
