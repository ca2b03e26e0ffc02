//! The demo model's requests and answers in OpenAI's format.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::answer::{Answer, Said, answer};
use super::request::Request;

/// The model's name.
pub(crate) const MODEL: &str = "demo";
/// The name of the model with answers of minutes, for a look at restarts under open streams.
const SLOW_MODEL: &str = "demo-slow";

pub(crate) async fn models() -> Json<Value> {
    let data = [MODEL, SLOW_MODEL]
        .map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": "baton"}));
    Json(json!({"object": "list", "data": data}))
}

/// Returns the pause before each piece of a streamed answer.
fn pause(model: &str) -> Duration {
    if model == SLOW_MODEL {
        Duration::from_secs(3)
    } else {
        Duration::from_millis(25)
    }
}

pub(crate) async fn chat_completions(Json(request): Json<Request>) -> Response {
    let answer = answer(&request);
    let usage = usage(&request, &answer);
    if request.stream {
        let asked = request.stream_options.as_ref();
        let usage = asked.is_some_and(|o| o.include_usage).then_some(usage);
        streamed(&request.model, &answer, usage)
    } else {
        Json(whole(&request.model, &answer, &usage)).into_response()
    }
}

fn usage(request: &Request, answer: &Answer) -> Value {
    // About four characters a token, as a rule of thumb.
    let messages = request.messages.iter();
    let read: usize = messages
        .map(|message| message.content.to_string().len() / 4 + 4)
        .sum();
    let thought = answer.reasoning.as_deref().map_or(0, |r| words(r).count());
    let written: usize = match &answer.said {
        Said::Text(text) => words(text).count(),
        Said::Calls(calls) => calls.iter().map(|c| fragments(&c.arguments).count()).sum(),
    };
    json!({
        "prompt_tokens": read,
        "completion_tokens": thought + written,
        "total_tokens": read + thought + written,
        "completion_tokens_details": {"reasoning_tokens": thought},
    })
}

/// Splits a text into tokens: each is a word with the space after it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

fn fragments(arguments: &str) -> impl Iterator<Item = &str> {
    arguments.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
}

fn call_id(index: usize, arguments: &str) -> String {
    let sum = arguments.bytes().fold(5381_u32, |sum, byte| {
        sum.wrapping_mul(33).wrapping_add(u32::from(byte))
    });
    format!("call_demo_{index}_{sum:08x}")
}

fn whole(model: &str, answer: &Answer, usage: &Value) -> Value {
    let mut message = match &answer.said {
        Said::Text(text) => json!({"role": "assistant", "content": text}),
        Said::Calls(calls) => {
            let calls: Value = calls
                .iter()
                .enumerate()
                .map(|(index, call)| {
                    json!({
                        "id": call_id(index, &call.arguments),
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    })
                })
                .collect();
            json!({"role": "assistant", "content": null, "tool_calls": calls})
        }
    };
    if let Some(reasoning) = &answer.reasoning {
        message["reasoning_content"] = json!(reasoning);
    }
    json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
        "usage": usage,
    })
}

fn streamed(model: &str, answer: &Answer, usage: Option<Value>) -> Response {
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
    let thoughts = answer.reasoning.as_deref().unwrap_or_default();
    let thoughts = words(thoughts).map(|word| chunk(json!({"reasoning_content": word}), None));
    events.extend(thoughts);
    match &answer.said {
        Said::Text(text) => {
            let words = words(text).map(|word| chunk(json!({"content": word}), None));
            events.extend(words);
        }
        Said::Calls(calls) => {
            for (index, call) in calls.iter().enumerate() {
                let begin = json!({
                    "index": index,
                    "id": call_id(index, &call.arguments),
                    "type": "function",
                    "function": {"name": call.name, "arguments": ""},
                });
                events.push(chunk(json!({"tool_calls": [begin]}), None));
                events.extend(fragments(&call.arguments).map(|piece| {
                    let more = json!({"index": index, "function": {"arguments": piece}});
                    chunk(json!({"tool_calls": [more]}), None)
                }));
            }
        }
    }
    events.push(chunk(json!({}), Some(answer.finish_reason)));
    if let Some(usage) = usage {
        let mut last = chunk(json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage;
        events.push(last);
    }
    let frames = events.into_iter().map(|event| format!("data: {event}\n\n"));
    let mut frames: Vec<String> = frames.collect();
    frames.push("data: [DONE]\n\n".to_owned());
    let frames = (frames.into_iter(), pause(model));
    let paced = stream::unfold(frames, async |(mut frames, pause)| {
        let frame = frames.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), (frames, pause)))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(paced),
    )
        .into_response()
}
