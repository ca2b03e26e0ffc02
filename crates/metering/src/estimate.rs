//! The most that a turn of the model may consume, estimated before the model is asked.
//!
//! Only an upstream's tokenizer can count exactly, but a text has at most as many tokens as bytes:
//! a token covers at least one byte, and the tokens that an upstream adds around a message are
//! fewer than the bytes of the JSON around it. Anything other than text counts as configured.

use std::borrow::Cow;
use std::collections::HashMap;

use baton_protocol::{OfferedTool, Price, RawFields, RunSpec};
use baton_store::TurnWish;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// More bytes than a request has around its texts: field names, the options of streaming, and the
/// limit of the answer.
const AROUND: usize = 256;
/// More bytes than each built-in tool's definition has.
/// That of `http_request` is without the hosts that its description lists.
pub const BUILT_IN_TOOL_SIZES: [(&str, usize); 4] = [
    ("calculator", 768),
    ("current_time", 448),
    ("web_search", 640),
    ("http_request", 1_280),
];

/// The largest definition of an MCP server's tool, in bytes as the model gets it. Admission does not know
/// these definitions, so that it reserves this much for each; a worker offers no larger one.
pub const MCP_TOOL_SIZE: usize = 8 * 1024;

/// The sizes of the server's tool definitions, in bytes as the model gets them.
#[derive(Debug, Clone)]
pub struct ToolSizes(HashMap<String, usize>);

impl ToolSizes {
    /// Makes the sizes of the operator's tools and the built-in ones.
    pub fn new(configured: impl IntoIterator<Item = (String, usize)>) -> Self {
        let built_in = BUILT_IN_TOOL_SIZES.map(|(name, size)| (name.to_owned(), size));
        Self(built_in.into_iter().chain(configured).collect())
    }

    /// Returns the bytes of all of these, with a comma each.
    fn of(&self, tools: &[OfferedTool]) -> usize {
        let sizes = tools.iter().filter_map(|tool| self.0.get(&tool.name));
        sizes.map(|size| size + 1).sum()
    }
}

/// The least tokens of an answer; the model is not asked for fewer.
const LEAST_ANSWER: u64 = 16;

/// The assumptions for parts that a request does not specify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metering {
    /// The most tokens of an answer, if the request sets no limit.
    pub answer_tokens: u64,
    /// Tokens of a picture, a sound or a file in a message.
    pub attachment_tokens: u64,
}

impl Metering {
    /// Estimates the first turn of a run. It is no less than its worker will ask for, so that an
    /// accepted run can have it.
    pub fn first_turn(&self, spec: &RunSpec, tools: &ToolSizes, price: Option<&Price>) -> TurnWish {
        fn written(value: &impl Serialize) -> usize {
            serde_json::to_string(value).map_or(0, |text| text.len())
        }
        let bytes = spec.messages.get().len()
            + spec.tools.as_ref().map_or(0, |tools| tools.get().len())
            + spec.instructions.as_ref().map_or(0, written)
            + spec.params.as_raw().get().len()
            + written(&spec.model)
            + tools.of(&spec.server_tools)
            + AROUND;
        self.turn(bytes, &spec.messages, &spec.params, price)
    }

    /// Estimates a turn with a request of this many bytes and these messages.
    pub fn turn(
        &self,
        bytes: usize,
        messages: &RawValue,
        params: &RawFields,
        price: Option<&Price>,
    ) -> TurnWish {
        let answer_tokens = answer_limit(params).unwrap_or(self.answer_tokens);
        TurnWish {
            prompt_tokens: self.prompt_tokens(bytes, messages),
            answer_tokens,
            least_answer: answer_tokens.min(LEAST_ANSWER),
            price: price.copied(),
            ..TurnWish::default()
        }
    }

    /// Estimates the prompt. A picture is scaled down before it is read, regardless of its bytes; a
    /// sound or a file may contain a whole book.
    fn prompt_tokens(&self, bytes: usize, messages: &RawValue) -> u64 {
        let mut tokens = bytes as u64;
        for attachment in attachments(messages) {
            let own = attachment.bytes as u64;
            tokens = tokens.saturating_sub(own);
            tokens = tokens.saturating_add(if attachment.is_picture {
                self.attachment_tokens
            } else {
                self.attachment_tokens.max(own)
            });
        }
        tokens
    }
}

/// The fields that limit an answer's length.
pub const ANSWER_LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Returns the request's limit of an answer.
fn answer_limit(params: &RawFields) -> Option<u64> {
    let limits = ANSWER_LIMITS.iter();
    limits.filter_map(|name| whole_number(params, name)).min()
}

/// Reads a whole number in any of JSON's forms: `100000`, `1e5`, `100000.0`.
fn whole_number(params: &RawFields, name: &str) -> Option<u64> {
    /// Every whole number below this has an exact floating-point form.
    const EXACT: f64 = 9_007_199_254_740_992.0;

    params.read(name).or_else(|| {
        let number: f64 = params.read(name)?;
        let is_whole = (0.0..EXACT).contains(&number) && number.fract() == 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, not negative and small enough"
        )]
        is_whole.then_some(number as u64)
    })
}

/// A part of a message other than text.
struct Attachment {
    bytes: usize,
    is_picture: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
}

/// Returns the attachments. Unrecognised parts count as text, byte by byte.
fn attachments(messages: &RawValue) -> Vec<Attachment> {
    let messages: Vec<Message<'_>> = serde_json::from_str(messages.get()).unwrap_or_default();
    let contents = messages.iter().filter_map(|message| message.content);
    let parts = contents.filter_map(|content| {
        // A string is not a list.
        serde_json::from_str::<Vec<&RawValue>>(content.get()).ok()
    });
    parts
        .flatten()
        .filter_map(|part| {
            let kind = serde_json::from_str::<Part<'_>>(part.get()).ok()?.kind?;
            let is_picture = match &*kind {
                "image_url" | "input_image" => true,
                "input_audio" | "audio_url" | "video_url" | "file" | "input_file" => false,
                _ => return None,
            };
            Some(Attachment {
                bytes: part.get().len(),
                is_picture,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const METERING: Metering = Metering {
        answer_tokens: 1_000,
        attachment_tokens: 500,
    };

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn prompt(messages: &Value) -> u64 {
        let messages = raw(messages);
        let params = RawFields::default();
        METERING
            .turn(messages.get().len(), &messages, &params, None)
            .prompt_tokens
    }

    #[test]
    fn text_is_counted_by_its_bytes_whatever_it_pretends_to_be() {
        let text = "data:image/png;base64,".to_owned() + &"A".repeat(10_000);
        for content in [
            json!(text),
            json!([{"type": "text", "text": text}]),
            json!([{"type": "unheard_of", "text": text}]),
            json!([{"text": text}]),
        ] {
            let tokens = prompt(&json!([{"role": "user", "content": content}]));
            assert!(tokens > 10_000, "{tokens}");
        }
    }

    #[test]
    fn a_picture_counts_the_same_however_large_and_a_file_at_least_its_bytes() {
        let part = |kind: &str, size: usize| {
            let data = format!("data:x;base64,{}", "A".repeat(size));
            prompt(&json!([{"role": "user", "content": [{"type": kind, kind: {"url": data}}]}]))
        };
        let wrapping = r#"[{"role":"user","content":[]}]"#.len() as u64;
        assert_eq!(part("image_url", 1), wrapping + 500);
        assert_eq!(part("image_url", 100_000), wrapping + 500);
        assert_eq!(part("file", 1), wrapping + 500);
        assert!(part("file", 100_000) > 100_000);
    }

    #[test]
    fn an_answer_is_as_long_as_the_request_lets_it_be() {
        let wish = |params: Value| {
            let messages = raw(&json!([]));
            let params = serde_json::from_value(params).unwrap();
            let wish = METERING.turn(2, &messages, &params, None);
            (wish.answer_tokens, wish.least_answer)
        };
        assert_eq!(wish(json!({})), (1_000, 16));
        assert_eq!(wish(json!({"max_tokens": 8})), (8, 8));
        assert_eq!(wish(json!({"max_completion_tokens": 99_999})), (99_999, 16));
        assert_eq!(
            wish(json!({"max_tokens": 70, "max_completion_tokens": 60})),
            (60, 16)
        );
        assert_eq!(wish(json!({"max_tokens": 70.0})), (70, 16));
        for none in [json!(null), json!("7"), json!(-1), json!(1.5), json!(1e300)] {
            assert_eq!(wish(json!({"max_tokens": none})), (1_000, 16));
        }
    }

    #[test]
    fn all_of_a_request_is_read() {
        let spec: RunSpec = serde_json::from_value(json!({
            "v": 1, "agent": {"name": "default", "version": 0}, "model": "m",
            "instructions": "i".repeat(100), "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "t".repeat(200)}}],
            "params": {"response_format": "r".repeat(400)}, "limits": {"max_turns": 1},
        }))
        .unwrap();
        let wish = METERING.first_turn(&spec, &ToolSizes::new([]), None);
        assert!(wish.prompt_tokens > 700, "{wish:?}");
    }
}
