//! One turn of the model as an event stream, in the dialects of several families of servers. All of
//! them have the same meaning.

use std::ops::Range;

use serde_json::{Value, json};

use super::outside::{ASKED, GUARDED, Prompt, TOOLS};

/// One turn of the model.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The question.
    pub prompt: Prompt,
    /// Whether its calls are those of the MCP server.
    pub asks: bool,
    /// The tokens that its request is counted as.
    pub asked: u32,
    /// The number of turns before it that called tools.
    pub turn: u64,
    /// The number of words of the answer that were given in turns before it.
    pub shown: u64,
    /// The most tokens that it may have: a word each.
    pub most: u64,
}

impl Reply {
    fn calls_tools(&self) -> bool {
        self.turn < self.prompt.tool_turns
    }

    /// Returns the places of its words in the answer.
    fn words(&self) -> Range<u64> {
        let end = self.shown.saturating_add(self.most);
        self.shown..self.prompt.words.min(end)
    }

    fn is_cut_off(&self) -> bool {
        !self.calls_tools() && self.words().end < self.prompt.words
    }

    /// Returns the tokens that it is counted as.
    fn tokens(&self) -> u64 {
        if self.calls_tools() {
            self.prompt.words.min(self.most)
        } else {
            let words = self.words();
            words.end.saturating_sub(words.start)
        }
    }
}

/// A way to write an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As OpenAI does.
    Reference,
    /// Several calls in one frame, all with index 0, arguments as an object, and the finish reason
    /// `stop`: Ollama, Gemini.
    CallsAtOnce,
    /// The text as a list of parts, and finish reasons in capitals: Mistral, Gemini.
    Parts,
    /// `message` in place of `delta`, without indices: llama.cpp's older servers.
    MessageFrames,
    /// Other line ends, comments, no space behind the colon, and no `[DONE]`: proxies.
    LooseLines,
    /// The usage in the last frame, as floats, and `null` in many places: vLLM's relatives.
    LooseValues,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 6] = [
        Self::Reference,
        Self::CallsAtOnce,
        Self::Parts,
        Self::MessageFrames,
        Self::LooseLines,
        Self::LooseValues,
    ];

    /// Returns one of them by chance.
    pub fn any() -> Self {
        Self::ALL[rand::random_range(0..Self::ALL.len())]
    }

    /// Returns the frames of a turn.
    pub fn frames(self, reply: &Reply) -> Vec<String> {
        let prompt = &reply.prompt;
        let mut frames = vec![self.frame(json!({"role": "assistant", "content": ""}), None)];
        let calls_tools = reply.calls_tools();
        if calls_tools {
            frames.push(self.text(&prompt.preamble(reply.turn)));
            frames.extend(self.calls(&called(reply), prompt, reply.turn));
        } else {
            frames.extend(reply.words().map(|index| self.text(&prompt.word(index))));
        }
        let finish = match self {
            _ if reply.is_cut_off() => "length",
            Self::CallsAtOnce => "stop",
            Self::Parts if !calls_tools => "STOP",
            _ if calls_tools => "tool_calls",
            _ => "stop",
        };
        frames.push(self.frame(json!({}), Some(finish)));
        let (asked, tokens) = (reply.asked, reply.tokens());
        let usage = match self {
            Self::LooseValues => json!({
                "prompt_tokens": f64::from(asked), "completion_tokens": tokens.to_string(),
                "total_tokens": null,
            }),
            _ => json!({
                "prompt_tokens": asked, "completion_tokens": tokens,
                "total_tokens": u64::from(asked) + tokens,
            }),
        };
        let mut last = envelope();
        last["choices"] = json!([]);
        last["usage"] = usage;
        frames.push(self.line(&last));
        if self != Self::LooseLines {
            frames.push("data: [DONE]\n\n".to_owned());
        }
        frames
    }

    fn text(self, text: &str) -> String {
        let content = match self {
            Self::Parts => json!([{"type": "text", "text": text}]),
            _ => json!(text),
        };
        self.frame(json!({"content": content}), None)
    }

    /// Returns the frames with the calls of these tools.
    fn calls(self, called: &[&str], prompt: &Prompt, turn: u64) -> Vec<String> {
        let calls = called.iter().enumerate().map(|(index, name)| {
            let arguments = match self {
                Self::CallsAtOnce => json!({}),
                _ => json!("{}"),
            };
            let index = if self == Self::CallsAtOnce { 0 } else { index };
            json!({
                "index": index, "id": format!("call_{}_{turn}_{name}", prompt.id), "type": "function",
                "function": {"name": name, "arguments": arguments},
            })
        });
        if self == Self::CallsAtOnce {
            let calls: Vec<Value> = calls.collect();
            return vec![self.frame(json!({"tool_calls": calls}), None)];
        }
        calls
            .map(|call| self.frame(json!({"tool_calls": [call]}), None))
            .collect()
    }

    fn frame(self, delta: Value, finish: Option<&str>) -> String {
        let mut choice = json!({"index": 0, "finish_reason": finish});
        match self {
            Self::MessageFrames => {
                choice = json!({"finish_reason": finish, "message": delta});
            }
            Self::LooseValues => {
                choice["index"] = Value::Null;
                choice["delta"] = delta;
                choice["delta"]["function_call"] = Value::Null;
                choice["logprobs"] = Value::Null;
            }
            _ => choice["delta"] = delta,
        }
        let mut frame = envelope();
        frame["choices"] = json!([choice]);
        self.line(&frame)
    }

    fn line(self, frame: &Value) -> String {
        match self {
            Self::LooseLines => format!(": working\r\ndata:{frame}\r\n\r\n"),
            _ => format!("data: {frame}\n\n"),
        }
    }
}

/// Returns the tools that a turn calls. Not each run calls the guarded one, and not each turn one that
/// must not be repeated: its beginning asks the ledger, which a late worker does not survive.
fn called(reply: &Reply) -> Vec<&'static str> {
    if reply.asks {
        return vec![ASKED];
    }
    let called = TOOLS.iter().filter(|(name, idempotent)| match *name {
        GUARDED => reply.prompt.calls_the_guarded_tool(),
        _ => *idempotent || (reply.prompt.id + reply.turn).is_multiple_of(2),
    });
    called.map(|(name, _)| *name).collect()
}

fn envelope() -> Value {
    json!({"id": "chatcmpl-chaos", "object": "chat.completion.chunk", "created": 1, "model": "chaos"})
}

#[cfg(test)]
mod tests {
    use baton_openai::{ChatAccumulator, ChatChunk, SseDecoder};

    use super::*;

    /// Returns the text of a turn and the names of its calls.
    fn meaning(frames: &[String]) -> (String, Vec<String>) {
        let mut decoder = SseDecoder::new(usize::MAX);
        decoder.push(frames.concat().into());
        let mut accumulator = ChatAccumulator::new("call_", usize::MAX);
        let mut deltas = Vec::new();
        while let Some(event) = decoder.next_event().unwrap() {
            if &event.data[..] != b"[DONE]" {
                let chunk: ChatChunk<'_> = serde_json::from_slice(&event.data).unwrap();
                accumulator.fold(chunk, &mut deltas).unwrap();
            }
        }
        let message = accumulator.finish().unwrap().message;
        let message: Value = serde_json::to_value(&message).unwrap();
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        let named = calls.map(|call| {
            assert_eq!(call["function"]["arguments"], "{}", "{message}");
            call["function"]["name"].as_str().unwrap().to_owned()
        });
        let text = message["content"].as_str().unwrap_or_default();
        (text.to_owned(), named.collect())
    }

    #[test]
    fn every_dialect_has_the_same_meaning() {
        let of_run = |id| Prompt {
            id,
            words: 3,
            gap_ms: 1,
            tool_turns: 2,
        };
        let prompts = [of_run(7), of_run(8)].into_iter();
        for (dialect, prompt) in prompts.flat_map(|it| Dialect::ALL.map(|dialect| (dialect, it))) {
            let mut written = String::new();
            // The last turn is cut off, and continued.
            for turn in 0..4 {
                let (shown, most) = [(0, 9), (0, 9), (0, 2), (2, 9)][turn];
                let reply = Reply {
                    prompt,
                    asks: false,
                    asked: 5,
                    turn: turn.min(2) as u64,
                    shown,
                    most,
                };
                let (text, calls) = meaning(&dialect.frames(&reply));
                written.push_str(&text);
                let expected = if turn < 2 {
                    match (prompt.id, turn) {
                        (7, 0) => vec!["tally"],
                        (7, _) => vec!["tally", "strike"],
                        (_, 0) => vec!["tally", "strike", "levy"],
                        _ => vec!["tally", "levy"],
                    }
                } else {
                    vec![]
                };
                assert_eq!(calls, expected, "{dialect:?}");
            }
            assert_eq!(written, prompt.expected(), "{dialect:?}");
        }
    }
}
