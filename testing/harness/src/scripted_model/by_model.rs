//! Replies chosen by the model's name, for scripting the upstream from another process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_openai::{ErrorObject, ToolCall};
use serde_json::json;

use super::{Recorded, Reply, Script};

/// Names that [`Reply::by_model`] understands, as `GET /v1/models` lists them.
pub(super) const NAMES: [&str; 12] = [
    "echo",
    "tokens-20",
    "tokens-100-10ms",
    "stamps-20",
    "status-503",
    "hang",
    "hang-after-3",
    "cut-after-3",
    "error-after-3",
    "bad-json-after-3",
    "no-end-after-3",
    "long-line-10000000",
];

impl Script {
    /// Replies by the model's name, see [`Reply::by_model`].
    pub fn by_model() -> Self {
        let refused = Mutex::new(HashMap::<String, u32>::new());
        Self::new(move |request| {
            if let Some(most) = request.model.strip_prefix("limited-") {
                let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                let so_far = refused.entry(request.model.clone()).or_default();
                if most.parse::<u32>().is_ok_and(|most| *so_far < most) {
                    *so_far += 1;
                    return Reply::status(429).header("retry-after", "0");
                }
            }
            Reply::by_model(request)
        })
    }
}

impl Reply {
    /// Replies as the model's name demands:
    /// `tokens-N[-Pms]`, `stamps-N[-Pms]` (a pause of P ms before each), `status-S`, `hang`,
    /// `hang-after-N`, `cut-after-N`, `error-after-N`, `bad-json-after-N`, `no-end-after-N`,
    /// `long-line-BYTES`, `split-N` (its bytes N at a time), `limited-N` (N times 429 first, under
    /// [`Script::by_model`]), `calculator` (calls it with the user's text, then repeats its
    /// result), `first-tool` (calls the first tool that is offered, then repeats its result); any
    /// other name repeats the user's text.
    pub fn by_model(request: &Recorded) -> Self {
        let said = request.last_text("user").unwrap_or_default();
        let model = request.model.as_str();
        let number = |prefix: &str| model.strip_prefix(prefix)?.parse::<usize>().ok();
        if let Some((n, pause)) = tokens(model, "tokens-") {
            return Self::tokens(n).each_after(pause);
        }
        if let Some((n, pause)) = tokens(model, "stamps-") {
            return Self::stamps(n).each_after(pause);
        }
        if let Some(status) = number("status-").and_then(|status| u16::try_from(status).ok()) {
            return Self::status(status);
        }
        if let Some(n) = number("hang-after-") {
            return Self::tokens(n).hang();
        }
        if let Some(n) = number("cut-after-") {
            return Self::tokens(n).cut();
        }
        if let Some(n) = number("error-after-") {
            let error = ErrorObject::new("server_error", "overloaded", "The model is overloaded.");
            return Self::error_after(n, error);
        }
        if let Some(n) = number("bad-json-after-") {
            return Self::bad_json_after(n);
        }
        if let Some(n) = number("no-end-after-") {
            return Self::tokens(n).unended();
        }
        if let Some(bytes) = number("long-line-") {
            return Self::long_line(bytes);
        }
        if let Some(size) = number("split-") {
            return Self::text("naïve 🦀 süß — 漢字 ").in_pieces_of(size);
        }
        if model == "hang" {
            return Self::hang_before_headers();
        }
        let tool = match model {
            "calculator" => Some(("calculator", json!({"expression": said}))),
            "first-tool" => request.body["tools"][0]["function"]["name"]
                .as_str()
                .map(|name| (name, json!({}))),
            _ => None,
        };
        match (tool, request.last_text("tool")) {
            (Some(_), Some(result)) if request.last_role() == Some("tool") => {
                Self::text(&format!("The result is {result}"))
            }
            (Some((name, arguments)), _) => {
                let id = format!("call_{}", request.index);
                Self::tool_calls([ToolCall::function(id, name, arguments.to_string())])
            }
            (None, _) => Self::text(&format!("You said: {said}")),
        }
    }
}

fn tokens(model: &str, prefix: &str) -> Option<(usize, Duration)> {
    let rest = model.strip_prefix(prefix)?;
    let (n, pause) = rest.split_once('-').unwrap_or((rest, "0ms"));
    let pause = pause.strip_suffix("ms")?.parse().ok()?;
    Some((n.parse().ok()?, Duration::from_millis(pause)))
}
