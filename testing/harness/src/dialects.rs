//! A corpus of upstreams' dialects with the meaning of each, written by hand from public reports
//! and documentation: none of them is a recording.
//!
//! The first line of a stream names its family and its peculiarity. The worker's tests replay the
//! corpus through its reader.

use serde_json::{Value, json};

/// An answer as one family of upstreams sends it.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Its file's name.
    pub name: &'static str,
    /// The answer's body.
    pub body: &'static str,
    /// Its meaning; `None` if it is a failed answer.
    pub meaning: Option<Meaning>,
    /// Words that the error of a failed answer must contain.
    pub words: &'static str,
}

/// The meaning of a good answer.
#[derive(Debug, Clone, Default)]
pub struct Meaning {
    /// Its text.
    pub text: &'static str,
    /// The model's reasoning.
    pub reasoning: &'static str,
    /// The calls, as names and arguments.
    pub calls: Vec<(&'static str, &'static str)>,
    /// The reason why it stopped, in OpenAI's words.
    pub finish_reason: &'static str,
    /// Fields that a client finds in its whole answer, by JSON pointer.
    pub fields: Vec<(&'static str, Value)>,
}

impl Dialect {
    /// Returns whether it is an event stream.
    pub fn is_stream(&self) -> bool {
        !self.body.starts_with('{')
    }
}

macro_rules! dialects {
    ($($name:literal => $meaning:expr, $words:expr;)*) => {
        vec![$(Dialect {
            name: $name,
            body: include_str!(concat!("../dialects/", $name)),
            meaning: $meaning,
            words: $words,
        }),*]
    };
}

fn hello() -> Meaning {
    Meaning {
        text: "Hello",
        finish_reason: "stop",
        ..Meaning::default()
    }
}

fn hello_with(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Meaning {
    Meaning {
        fields: fields.into_iter().collect(),
        ..hello()
    }
}

/// Returns the corpus.
pub fn all() -> Vec<Dialect> {
    let call = ("f", r#"{"x":1}"#);
    dialects! {
        "openai.sse" => Some(hello_with([
            ("/system_fingerprint", json!("fp_44")),
            ("/service_tier", json!("default")),
            ("/choices/0/logprobs/content/1/token", json!("lo")),
            ("/choices/0/logprobs/content/1/logprob", json!(-0.5)),
            ("/choices/0/message/annotations/0/type", json!("url_citation")),
            ("/usage/prompt_tokens_details/cached_tokens", json!(4)),
            ("/usage/completion_tokens_details/reasoning_tokens", json!(1)),
        ])), "";
        "azure.sse" => Some(hello_with([
            ("/prompt_filter_results/0/prompt_index", json!(0)),
            ("/choices/0/content_filter_results", json!({})),
        ])), "";
        "vllm.sse" => Some(Meaning {
            reasoning: "hm",
            calls: vec![call, ("f", r#"{"x":2}"#)],
            finish_reason: "tool_calls",
            ..Meaning::default()
        }), "";
        "vllm-error.sse" => None, "the engine is dead";
        "vllm-abort.sse" => None, "abort";
        "sglang.sse" => Some(hello_with([("/choices/0/matched_stop", json!(2))])), "";
        "llama-cpp.sse" => Some(hello_with([
            ("/system_fingerprint", json!("b5000-abc")),
            ("/timings/prompt_n", json!(7)),
        ])), "";
        "ollama.sse" => Some(Meaning {
            calls: vec![call, ("g", r#"{"y":2}"#)],
            finish_reason: "tool_calls",
            ..Meaning::default()
        }), "";
        "tgi.sse" => Some(hello_with([("/model", json!("org/m"))])), "";
        "mistral.sse" => Some(Meaning {
            text: "Hello",
            reasoning: "hm",
            calls: vec![call],
            finish_reason: "tool_calls",
            ..Meaning::default()
        }), "";
        "mistral-length.sse" => Some(Meaning { finish_reason: "length", ..hello() }), "";
        "deepseek.sse" => Some(Meaning {
            reasoning: "hm",
            ..hello_with([("/usage/prompt_cache_hit_tokens", json!(4))])
        }), "";
        "deepseek-busy.sse" => None, "insufficient_system_resource";
        "gemini.sse" => Some(Meaning {
            text: "Hello",
            calls: vec![call, ("f", r#"{"x":2}"#)],
            finish_reason: "tool_calls",
            fields: vec![("/model", json!("gemini-m"))],
            ..Meaning::default()
        }), "";
        "gemini-safety.sse" => Some(Meaning {
            text: "Hel",
            finish_reason: "content_filter",
            ..Meaning::default()
        }), "";
        "anthropic.sse" => Some(hello_with([
            ("/model", json!("claude-m")),
            ("/usage/total_tokens", json!(9)),
        ])), "";
        "anthropic-overloaded.sse" => None, "Overloaded";
        "openrouter.sse" => Some(Meaning {
            reasoning: "hm",
            ..hello_with([
                ("/provider", json!("P")),
                ("/choices/0/native_finish_reason", json!("STOP")),
                ("/choices/0/message/reasoning_details/0/text", json!("hm")),
                ("/choices/0/message/images/0/image_url/url", json!("data:image/png;base64,AAAA")),
                ("/usage/cost", json!(0.00012)),
            ])
        }), "";
        "openrouter-error.sse" => None, "Provider disconnected";
        "groq.sse" => Some(hello_with([
            ("/x_groq/id", json!("req_1")),
            ("/usage/total_tokens", json!(9)),
        ])), "";
        "groq-tool-error.sse" => None, "Failed to call a function.";
        "older-calls.sse" => Some(Meaning {
            calls: vec![call],
            finish_reason: "tool_calls",
            ..Meaning::default()
        }), "";
        "message-frames.sse" => Some(hello()), "";
        "whole-behind-pieces.sse" => Some(hello()), "";
        "audio.sse" => Some(Meaning {
            finish_reason: "stop",
            fields: vec![
                ("/choices/0/message/audio/transcript", json!("Hello")),
                ("/choices/0/message/audio/data", json!("QUJDREVG")),
            ],
            ..Meaning::default()
        }), "";
        "whole.json" => Some(hello_with([("/system_fingerprint", json!("fp_44"))])), "";
        "lines.json" => Some(hello()), "";
    }
}
