//! A model turn that is broken off: by a cancel, or by an upstream that fails in the middle.
//!
//! What had arrived was shown, or is shown now; it is recorded with the run's end exactly as far as
//! it was shown, and apart from what the run said. Tokens that the upstream did not live to report
//! are guessed, and said to be.

use baton_protocol::{EventId, Usage};
use serde_json::value::RawValue;

use super::Attempt;
use super::client_calls::ClientCalls;
use crate::model::TurnStream;

/// Bytes of text that make about one token, over common languages and models.
const BYTES_PER_TOKEN: usize = 4;

/// A turn whose answer is being read.
pub(super) struct OpenTurn {
    pub(super) step: u32,
    pub(super) stream: TurnStream,
    pub(super) client_calls: ClientCalls,
    /// The last event before it.
    pub(super) behind: EventId,
    /// Whether a part of its answer was shown.
    pub(super) shown: bool,
}

impl OpenTurn {
    pub(super) fn new(step: u32, stream: TurnStream, behind: EventId) -> Self {
        Self {
            step,
            stream,
            client_calls: ClientCalls::default(),
            behind,
            shown: false,
        }
    }
}

/// What is recorded of a turn that was broken off.
#[derive(Clone)]
pub(super) struct CutOff {
    pub(super) step: u32,
    pub(super) message: Box<RawValue>,
    /// The passed-on fields around it.
    pub(super) answer_fields: Option<Box<RawValue>>,
    pub(super) usage: Usage,
    /// Tokens of the prompt that the upstream had read before.
    pub(super) cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub(super) model: Option<String>,
    /// Whether the turns' sum has its tokens already.
    pub(super) counted: bool,
}

impl Attempt<'_> {
    /// Breaks off the turn that is at work, if one is: the upstream's connection is closed at once.
    /// What was shown of it stays known until it is recorded: the commit that is to do so may itself be
    /// broken off, by a cancel. One that was read to its end and is not recorded yet is no other.
    pub(super) fn cut_turn(&mut self) -> Option<CutOff> {
        if let Some(open) = self.open.take() {
            self.unrecorded = self.cut_off(open);
        }
        let unrecorded = self.unrecorded.clone();
        unrecorded.or_else(|| self.cut_between_tries())
    }

    fn cut_off(&mut self, open: OpenTurn) -> Option<CutOff> {
        let OpenTurn {
            step,
            stream,
            mut client_calls,
            ..
        } = open;
        let (unseen, partial) = stream.cut();
        let partial = partial?;
        for delta in unseen {
            if let Some(data) = client_calls.show(delta, &self.toolbox, &self.spec.model) {
                self.publisher.push(step, data);
            }
        }
        let told = partial.usage;
        let usage = told.unwrap_or_else(|| self.estimate(partial.bytes));
        let (usage, cached_tokens) = self.with_broken_tries(usage, partial.cached_tokens);
        Some(CutOff {
            step,
            message: partial.message,
            answer_fields: client_calls.fields(),
            usage,
            cached_tokens,
            model: partial.model,
            counted: false,
        })
    }

    /// A guess at the tokens of a turn that wrote so many bytes.
    pub(super) fn guess(&self, written: usize) -> Usage {
        let instructions = self.spec.instructions.as_deref();
        let prompt = self.transcript.render(instructions, &self.spec.messages);
        guess(text_bytes(prompt.get()), written)
    }
}

/// Tokens of so many bytes read and written.
fn guess(read: usize, written: usize) -> Usage {
    let tokens = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
    let (prompt_tokens, completion_tokens) = (tokens(read), tokens(written));
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        estimated: true,
    }
}

/// The length of messages without what is inlined in them: a model reads no picture by its base64.
fn text_bytes(messages: &str) -> usize {
    const INLINED: &str = "\"data:";

    let mut bytes = messages.len();
    let mut rest = messages;
    while let Some(at) = rest.find(INLINED) {
        rest = &rest[at + 1..];
        let end = rest.find('"').unwrap_or(rest.len());
        bytes -= end;
        rest = &rest[end..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_counts_text_and_says_that_it_is_one() {
        let usage = guess(text_bytes("12345678"), 5);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (2, 2));
        assert_eq!(usage.total_tokens, 4);
        assert!(usage.estimated);
    }

    #[test]
    fn a_picture_is_no_text() {
        let picture = format!(
            r#"[{{"url":"data:image/png;base64,{}"}},"x"]"#,
            "A".repeat(999)
        );
        assert_eq!(text_bytes(&picture), r#"[{"url":""},"x"]"#.len());
        assert_eq!(text_bytes(r#""data:"#), 1);
        assert_eq!(text_bytes("database"), 8);
    }
}
