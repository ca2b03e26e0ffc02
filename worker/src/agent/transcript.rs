//! The messages for the model: the input, then those that the run added.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use serde_json::value::RawValue;

/// The message after an answer that was cut off.
const GO_ON: &str = "Your answer was cut off at a limit of this run, which is higher now. Go on \
                     exactly where it ends.";

/// The messages of a run in ledger order. Results of calls come after the turn that made the calls,
/// in the order of the calls, whichever ended first.
#[derive(Debug, Default)]
pub struct Transcript {
    added: BTreeMap<u32, Box<RawValue>>,
    /// The steps with answers that were cut off.
    cut: BTreeSet<u32>,
}

impl Transcript {
    /// Adds a message at its step. The ledger has one message per step.
    pub fn put(&mut self, step: u32, message: Box<RawValue>) {
        self.added.insert(step, message);
    }

    /// Asks the model to continue the answer at this step.
    pub fn ask_to_go_on(&mut self, step: u32) {
        self.cut.insert(step);
    }

    /// Drops all messages but the last ones.
    pub fn keep_last(&mut self, count: usize) {
        while self.added.len() > count {
            self.added.pop_first();
        }
    }

    /// Returns all messages as one JSON array: the instructions, the input, those added, then `last` as the
    /// user's.
    pub fn render(
        &self,
        instructions: Option<&str>,
        input: &RawValue,
        last: Option<&str>,
    ) -> Box<RawValue> {
        let input = input.get().trim();
        // The input was checked to be an array when the run was accepted.
        let inside = input
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .map_or("", str::trim);
        let room: usize = self
            .added
            .values()
            .map(|message| message.get().len() + 1)
            .sum();
        let mut out = String::with_capacity(input.len() + room + 2);
        out.push('[');
        let mut push = |message: &str| {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(message);
        };
        if let Some(text) = instructions {
            push(&json!({"role": "system", "content": text}).to_string());
        }
        if !inside.is_empty() {
            push(inside);
        }
        let user = |text: &str| json!({"role": "user", "content": text}).to_string();
        for (step, message) in &self.added {
            push(message.get());
            if self.cut.contains(step) {
                push(&user(GO_ON));
            }
        }
        if let Some(text) = last {
            push(&user(text));
        }
        out.push(']');
        RawValue::from_string(out).unwrap_or_else(|_| input_unchanged(input))
    }
}

/// Returns the input alone. Never needed, because valid JSON values joined with commas are valid
/// JSON; but if it were, the model would still get the input.
fn input_unchanged(input: &str) -> Box<RawValue> {
    RawValue::from_string(input.to_owned()).unwrap_or_default()
}

/// Returns the message that gives the model the result of a call.
pub fn tool_message(call_id: &str, content: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(
        &json!({"role": "tool", "tool_call_id": call_id, "content": content}),
    )
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.into()).unwrap()
    }

    #[test]
    fn messages_stand_in_ledger_order_whenever_they_came() {
        let mut transcript = Transcript::default();
        transcript.put(2, tool_message("b", "two"));
        transcript.put(0, raw(r#"{"role":"assistant"}"#));
        transcript.put(1, tool_message("a", "one"));
        let all = transcript.render(
            Some("Be kind."),
            &raw(r#" [{"role":"user","content":"hi"}] "#),
            Some("Enough."),
        );
        let all: Vec<serde_json::Value> = serde_json::from_str(all.get()).unwrap();
        let roles: Vec<_> = all
            .iter()
            .map(|message| message["role"].as_str().unwrap())
            .collect();
        assert_eq!(
            roles,
            ["system", "user", "assistant", "tool", "tool", "user"]
        );
        assert_eq!(all[3]["content"], "one");
        transcript.keep_last(1);
        let last = transcript.render(None, &raw("[]"), None);
        assert_eq!(last.get(), format!("[{}]", tool_message("b", "two").get()));
    }

    #[test]
    fn an_answer_that_was_cut_off_is_continued_and_later_prompts_repeat_that() {
        let mut transcript = Transcript::default();
        let input = raw(r#"[{"role":"user","content":"hi"}]"#);
        transcript.put(1, raw(r#"{"role":"assistant","content":"Once upon"}"#));
        transcript.ask_to_go_on(1);
        let first = transcript.render(None, &input, None);
        transcript.put(2, raw(r#"{"role":"assistant","content":" a time"}"#));
        let second = transcript.render(None, &input, None);
        let first = first.get().strip_suffix(']').unwrap();
        assert!(second.get().starts_with(first), "{second}");
        assert!(first.contains("Go on exactly"), "{first}");
    }

    #[test]
    fn an_empty_input_leaves_no_stray_comma() {
        let all = Transcript::default().render(None, &raw("[]"), None);
        assert_eq!(all.get(), "[]");
    }
}
