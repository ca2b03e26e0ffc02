//! Compactions: a summary in place of the conversation before it.
//!
//! A worker makes one between two turns, and a response that goes on from a run begins with it. Both
//! take the messages from here, so that the model reads the same after a takeover and in a later run.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

/// The first words of the message that a summary becomes for the model.
pub const SUMMARY: &str = "This is a summary of the conversation so far. Go on from it:\n\n";

/// The last message of a request for a summary.
pub const SUMMARY_PROMPT: &str = "Summarise the conversation so far, so that it can go on from your summary alone. Keep \
    the goals and wishes of the user, decisions, facts, names, numbers and identifiers, results of calls, and \
    everything that is still to be done. Write nothing but the summary.";

/// The rule by which a run compacts its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionRule {
    /// The tokens of the turn before, read and written, from which on a turn comes after a summary.
    pub threshold: u64,
    /// The tokens of the last turn of the response that the run goes on from.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier_tokens: u64,
    /// The number of the input's messages before those of the request itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier_messages: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A message, as far as this module reads it.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(default)]
    content: Option<serde_json::Value>,
}

impl<'a> Said<'a> {
    fn read(message: &'a RawValue) -> Option<Self> {
        serde_json::from_str(message.get()).ok()
    }

    /// Rules hold for as long as the conversation, so that no summary replaces them.
    fn is_rule(&self) -> bool {
        matches!(&*self.role, "system" | "developer")
    }
}

/// Returns the text of the message in which a model wrote a summary.
pub fn summary_text(message: &RawValue) -> String {
    let content = Said::read(message).and_then(|said| said.content);
    let text = content.and_then(|content| content.as_str().map(str::to_owned));
    text.unwrap_or_default()
}

/// Returns an input after a compaction: the rules before the request's own messages, the summary, and the
/// request's own messages, which the model may still have to answer.
pub fn compacted_input(
    input: &RawValue,
    rule: &CompactionRule,
    summary: &RawValue,
) -> serde_json::Result<Box<RawValue>> {
    let messages: Vec<&RawValue> = serde_json::from_str(input.get())?;
    let earlier = usize::try_from(rule.earlier_messages).unwrap_or(usize::MAX);
    let (earlier, own) = messages.split_at(earlier.min(messages.len()));
    let text = format!("{SUMMARY}{}", summary_text(summary));
    let summary = to_raw_value(&json!({"role": "user", "content": text}))?;
    let is_rule = |message: &&&RawValue| Said::read(message).is_some_and(|said| said.is_rule());
    let mut kept: Vec<&RawValue> = earlier.iter().filter(is_rule).copied().collect();
    kept.push(&summary);
    kept.extend(own);
    to_raw_value(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn rules_and_the_requests_own_messages_stay_as_they_were() {
        let input = raw(
            r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"one"},
                {"role":"assistant","content":"two"},{"role":"developer","content":"No jokes."},
                {"role":"user","content": "three" , "x":1.10}]"#,
        );
        let rule = CompactionRule {
            threshold: 1_000,
            earlier_tokens: 1_000,
            earlier_messages: 4,
        };
        let summary = raw(r#"{"role":"assistant","content":"They count."}"#);
        let compacted = compacted_input(&input, &rule, &summary).unwrap();
        let messages: Vec<&RawValue> = serde_json::from_str(compacted.get()).unwrap();
        let texts: Vec<&str> = messages.iter().map(|message| message.get()).collect();
        assert_eq!(texts.len(), 4);
        assert_eq!(texts[0], r#"{"role":"system","content":"Be brief."}"#);
        assert_eq!(texts[1], r#"{"role":"developer","content":"No jokes."}"#);
        assert!(
            texts[2].contains("Go on from it:\\n\\nThey count."),
            "{texts:?}"
        );
        assert_eq!(texts[3], r#"{"role":"user","content": "three" , "x":1.10}"#);
        let all_own = CompactionRule {
            earlier_messages: 0,
            ..rule
        };
        let compacted = compacted_input(&input, &all_own, &summary).unwrap();
        let messages: Vec<&RawValue> = serde_json::from_str(compacted.get()).unwrap();
        assert_eq!(messages.len(), 6, "the summary comes first");
        assert!(messages[0].get().contains("They count."));
    }

    #[test]
    fn a_rule_is_written_with_what_it_has() {
        let rule: CompactionRule = serde_json::from_str(r#"{"threshold":1000}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&rule).unwrap(),
            r#"{"threshold":1000}"#
        );
    }
}
