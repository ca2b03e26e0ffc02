//! Answers in the dialects of many upstreams, through a worker and an ingress, whole and streamed.

use std::collections::BTreeMap;

use baton_harness::client::Client;
use baton_harness::dialects::{self, Meaning};
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use baton_openai::SseDecoder;
use serde_json::{Value, json};

use crate::fixture::{model, options};

fn chat(dialect: &str, stream: bool) -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let mut body = json!({
        "model": "script", "stream": stream, "tools": [tool("f"), tool("g")],
        "messages": [{"role": "user", "content": dialect}],
    });
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// Compares a choice with its meaning.
fn compare(choice: &Value, meaning: &Meaning, what: &str) {
    let message = &choice["message"];
    let text = |key: &str| message[key].as_str().unwrap_or_default();
    assert_eq!(text("content"), meaning.text, "{what}");
    assert_eq!(text("reasoning_content"), meaning.reasoning, "{what}");
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let calls: Vec<_> = calls
        .map(|call| {
            let function = &call["function"];
            let part = |key: &str| function[key].as_str().unwrap();
            (part("name"), part("arguments"))
        })
        .collect();
    assert_eq!(calls, meaning.calls, "{what}");
    assert_eq!(choice["finish_reason"], meaning.finish_reason, "{what}");
}

/// Joins the pieces of a streamed answer into its choice, or returns the error that ended it.
fn joined(body: &str) -> Result<Value, Value> {
    let mut decoder = SseDecoder::new(16 << 20);
    decoder.push(body.to_owned().into());
    let mut texts = BTreeMap::<_, String>::new();
    let mut calls = BTreeMap::<u64, (String, String)>::new();
    let mut finish_reason = Value::Null;
    let mut done = false;
    while let Some(frame) = decoder.next_event().unwrap() {
        if &frame.data[..] == b"[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_slice(&frame.data).unwrap();
        if let Some(error) = chunk.get("error") {
            return Err(error.clone());
        }
        let choice = &chunk["choices"][0];
        for key in ["content", "reasoning_content"] {
            let piece = choice["delta"][key].as_str().unwrap_or_default();
            texts.entry(key).or_default().push_str(piece);
        }
        for piece in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let call = calls.entry(piece["index"].as_u64().unwrap()).or_default();
            let part = |key: &str| piece["function"][key].as_str().unwrap_or_default();
            call.0.push_str(part("name"));
            call.1.push_str(part("arguments"));
        }
        if !choice["finish_reason"].is_null() {
            finish_reason = choice["finish_reason"].clone();
        }
    }
    assert!(done, "no [DONE]: {body}");
    let calls: Vec<_> = calls
        .values()
        .map(|(name, arguments)| json!({"function": {"name": name, "arguments": arguments}}))
        .collect();
    let mut message = json!(texts);
    message["tool_calls"] = json!(calls);
    Ok(json!({"message": message, "finish_reason": finish_reason}))
}

async fn ask(client: &Client, dialect: &str, stream: bool) -> (u16, String) {
    let body = chat(dialect, stream);
    let answer = client.post("/v1/chat/completions", &body).await.unwrap();
    (answer.status.as_u16(), answer.text().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_is_answered_in_one_dialect_whatever_the_upstream_speaks() {
    let corpus = dialects::all();
    let script = corpus.clone();
    let model = model(move |request| {
        let wanted = request.last_text("user");
        let dialect = script.iter().find(|dialect| Some(dialect.name) == wanted);
        Reply::body_of_kind("text/event-stream", dialect.unwrap().body)
    })
    .await;
    let mut options = options(&model);
    options.config = "[llm]\nturn_retries = 0\nmax_retries = 0\n".to_owned();
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    for dialect in corpus {
        let name = dialect.name;
        let (status, whole) = ask(&client, name, false).await;
        let (_, streamed) = ask(&client, name, true).await;
        let Some(meaning) = dialect.meaning else {
            assert!(
                status >= 500 && whole.contains(dialect.words),
                "{name}: {whole}"
            );
            assert!(streamed.contains(dialect.words), "{name}: {streamed}");
            assert!(!streamed.contains("[DONE]"), "{name}: {streamed}");
            continue;
        };
        assert_eq!(status, 200, "{name}: {whole}");
        let whole: Value = serde_json::from_str(&whole).unwrap();
        compare(&whole["choices"][0], &meaning, &format!("{name}, whole"));
        for (pointer, value) in &meaning.fields {
            assert_eq!(whole.pointer(pointer), Some(value), "{name} at {pointer}");
        }
        let streamed = joined(&streamed).unwrap_or_else(|error| panic!("{name}: {error}"));
        compare(&streamed, &meaning, &format!("{name}, streamed"));
    }
}
