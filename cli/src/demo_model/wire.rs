//! The demo model's side of the OpenAI wire.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::answer::{Answer, Request, answer};

/// The model's name.
pub(crate) const MODEL: &str = "demo";
/// Between two tokens.
const TOKEN_EVERY: Duration = Duration::from_millis(25);

pub(crate) async fn models() -> Json<Value> {
    Json(json!({
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "baton"}],
    }))
}

pub(crate) async fn chat_completions(Json(request): Json<Request>) -> Response {
    let answer = answer(&request);
    // About four characters a token, as a rule of thumb.
    let read: usize = request
        .messages
        .iter()
        .map(|message| message.content.to_string().len() / 4 + 4)
        .sum();
    let written = pieces(&answer).len();
    let usage = json!({
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    });
    if request.stream {
        streamed(&request.model, &answer, &usage)
    } else {
        Json(whole(&request.model, &answer, &usage)).into_response()
    }
}

/// What arrives at a time: words with the space behind them, or bits of arguments.
fn pieces(answer: &Answer) -> Vec<&str> {
    match answer {
        Answer::Text(text) => text.split_inclusive(' ').collect(),
        Answer::Call { arguments, .. } => arguments
            .split_inclusive(|c: char| !c.is_ascii_alphanumeric())
            .collect(),
    }
}

fn call_id(arguments: &str) -> String {
    let sum = arguments.bytes().fold(5381_u32, |sum, byte| {
        sum.wrapping_mul(33).wrapping_add(u32::from(byte))
    });
    format!("call_demo_{sum:08x}")
}

fn whole(model: &str, answer: &Answer, usage: &Value) -> Value {
    let (message, finish_reason) = match answer {
        Answer::Text(text) => (json!({"role": "assistant", "content": text}), "stop"),
        Answer::Call { name, arguments } => {
            let call = json!({
                "id": call_id(arguments),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            });
            (
                json!({"role": "assistant", "content": null, "tool_calls": [call]}),
                "tool_calls",
            )
        }
    };
    json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage,
    })
}

fn streamed(model: &str, answer: &Answer, usage: &Value) -> Response {
    let chunk = |delta: Value, finish_reason: Option<&str>| {
        json!({
            "id": "chatcmpl-demo",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        })
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    match answer {
        Answer::Text(_) => {
            events.extend(
                pieces(answer)
                    .into_iter()
                    .map(|word| chunk(json!({"content": word}), None)),
            );
            events.push(chunk(json!({}), Some("stop")));
        }
        Answer::Call { name, arguments } => {
            let begin = json!({
                "index": 0,
                "id": call_id(arguments),
                "type": "function",
                "function": {"name": name, "arguments": ""},
            });
            events.push(chunk(json!({"tool_calls": [begin]}), None));
            events.extend(pieces(answer).into_iter().map(|piece| {
                let more = json!({"index": 0, "function": {"arguments": piece}});
                chunk(json!({"tool_calls": [more]}), None)
            }));
            events.push(chunk(json!({}), Some("tool_calls")));
        }
    }
    let mut last = chunk(json!({}), None);
    last["choices"] = json!([]);
    last["usage"] = usage.clone();
    let mut frames: Vec<String> = events
        .into_iter()
        .chain([last])
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    frames.push("data: [DONE]\n\n".to_owned());
    let paced = stream::unfold(frames.into_iter(), async |mut frames| {
        let frame = frames.next()?;
        tokio::time::sleep(TOKEN_EVERY).await;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), frames))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(paced),
    )
        .into_response()
}
