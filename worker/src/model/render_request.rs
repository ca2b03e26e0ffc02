//! The body of an upstream request.

use baton_admission::metering::ANSWER_LIMITS;
use baton_protocol::RunSpec;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;
use serde_json::value::RawValue;

/// Fields of a request that Baton decides itself, whatever the client wrote.
const DECIDED: [&str; 5] = ["model", "messages", "tools", "stream", "stream_options"];

/// Fields that mean something to Baton and nothing to an upstream.
const BATON_ONLY: [&str; 7] = [
    "agent",
    "lane",
    "thread_id",
    "on_busy",
    "run_id",
    "input",
    "params",
];

/// Fields that an upstream refuses in a request without tools.
const ABOUT_TOOLS: [&str; 2] = ["tool_choice", "parallel_tool_calls"];

/// The client's fields, known or not, around the messages and tools of this turn.
pub(super) fn render_request(
    spec: &RunSpec,
    messages: &RawValue,
    tools: Option<&RawValue>,
    first_turn: bool,
    answer_limit: Option<(&'static str, u64)>,
) -> Bytes {
    let request = Request {
        spec,
        messages,
        tools,
        first_turn,
        answer_limit,
    };
    let mut body =
        Vec::with_capacity(512 + messages.get().len() + tools.map_or(0, |tools| tools.get().len()));
    serde_json::to_writer(&mut body, &request)
        .expect("texts, JSON values and valid raw JSON under text keys serialise into memory");
    body.into()
}

struct Request<'a> {
    spec: &'a RunSpec,
    messages: &'a RawValue,
    tools: Option<&'a RawValue>,
    first_turn: bool,
    /// The most tokens that the answer may have, and the field to say so where the client has none.
    answer_limit: Option<(&'static str, u64)>,
}

impl Serialize for Request<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut limit = self.answer_limit;
        for (key, value) in self.spec.params.fields() {
            let key = &*key;
            let dropped = DECIDED.contains(&key)
                || BATON_ONLY.contains(&key)
                || (self.tools.is_none() && ABOUT_TOOLS.contains(&key))
                // "Call a tool" is meant once: with each turn it would never let the run end.
                || (key == "tool_choice" && !self.first_turn && !is_mild(value));
            if dropped {
                continue;
            }
            match self.answer_limit {
                Some((_, most)) if ANSWER_LIMITS.contains(&key) => {
                    let Ok(wish) = serde_json::from_str::<u64>(value.get()) else {
                        continue;
                    };
                    map.serialize_entry(key, &wish.min(most))?;
                    limit = None;
                }
                _ => map.serialize_entry(key, value)?,
            }
        }
        if let Some((field, most)) = limit {
            map.serialize_entry(field, &most)?;
        }
        map.serialize_entry("model", &self.spec.model)?;
        map.serialize_entry("messages", self.messages)?;
        if let Some(tools) = self.tools {
            map.serialize_entry("tools", tools)?;
        }
        map.serialize_entry("stream", &true)?;
        map.serialize_entry("stream_options", &json!({"include_usage": true}))?;
        map.end()
    }
}

/// A choice that leaves the model free to answer.
fn is_mild(tool_choice: &RawValue) -> bool {
    matches!(tool_choice.get(), r#""auto""# | r#""none""#)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn spec(params: &Value) -> RunSpec {
        serde_json::from_str(
            &json!({
                "v": 1, "agent": {"name": "default", "version": 0}, "model": "gpt-x",
                "messages": [], "params": params, "limits": {"max_turns": 4},
            })
            .to_string(),
        )
        .unwrap()
    }

    #[test]
    fn unknown_fields_travel_and_batons_own_do_not() {
        let spec = spec(&json!({
            "temperature": 0.2, "brand_new": {"a": [1]}, "tool_choice": "auto", "lane": "background",
            "stream": false, "stream_options": {"x": 1}, "model": "other", "messages": "no",
        }));
        let messages = raw(&json!([{"role": "user", "content": "é"}]));
        let tools = raw(&json!([{"type": "function", "function": {"name": "f"}}]));
        let body: Value =
            serde_json::from_slice(&render_request(&spec, &messages, Some(&tools), true, None))
                .unwrap();
        assert_eq!(
            body,
            json!({
                "temperature": 0.2, "brand_new": {"a": [1]}, "tool_choice": "auto",
                "model": "gpt-x", "messages": [{"role": "user", "content": "é"}],
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "stream": true, "stream_options": {"include_usage": true},
            }),
        );
    }

    #[test]
    fn without_tools_nothing_is_said_about_them() {
        let spec = spec(&json!({"tool_choice": "none", "parallel_tool_calls": false}));
        let body: Value =
            serde_json::from_slice(&render_request(&spec, &raw(&json!([])), None, true, None))
                .unwrap();
        let keys: Vec<_> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["messages", "model", "stream", "stream_options"]);
    }

    #[test]
    fn a_tool_is_forced_in_the_first_turn_only() {
        let tools = raw(&json!([{"type": "function", "function": {"name": "f"}}]));
        for (choice, later) in [("required", false), ("auto", true), ("none", true)] {
            let spec = spec(&json!({"tool_choice": choice}));
            let rendered = |first_turn| -> Value {
                let body = render_request(&spec, &spec.messages, Some(&tools), first_turn, None);
                serde_json::from_slice(&body).unwrap()
            };
            assert_eq!(rendered(true)["tool_choice"], choice);
            assert_eq!(
                rendered(false).get("tool_choice").is_some(),
                later,
                "{choice}"
            );
        }
    }

    #[test]
    fn a_limited_answer_is_never_longer_whatever_the_client_wants() {
        let rendered = |params: Value| -> Value {
            let spec = spec(&params);
            let limit = Some(("max_tokens", 50));
            let body = render_request(&spec, &spec.messages, None, true, limit);
            serde_json::from_slice(&body).unwrap()
        };
        let body = rendered(json!({}));
        assert_eq!(body["max_tokens"], 50);
        for (wish, limit) in [(json!(20), 20), (json!(50), 50), (json!(99), 50)] {
            let body = rendered(json!({"max_completion_tokens": wish}));
            assert_eq!(body["max_completion_tokens"], limit);
            assert_eq!(body.get("max_tokens"), None, "an upstream takes one");
        }
        for wish in [json!(null), json!("99"), json!(-1)] {
            let body = rendered(json!({"max_completion_tokens": wish}));
            assert_eq!(body["max_tokens"], 50);
            assert_eq!(body.get("max_completion_tokens"), None);
        }
    }
}
