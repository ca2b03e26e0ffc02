//! Folds a stream's chunks into a message.

mod calls;
mod finish_reason;

use serde_json::Value;

use self::calls::Calls;
pub use self::finish_reason::FinishReason;
use crate::answer_fields::join_piece;
use crate::lenient::{RawField, value_of};
use crate::{ChatChunk, ChunkChoice, Content, ErrorObject, Message, Unknown, Usage};

/// The index of the folded answer. `n > 1` is not offered.
pub const RESULT_CHOICE: u32 = 0;

/// An addition by a chunk, in order: a call's `index` is its position in the finished message, and
/// its first fragment always has its id and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// A piece of the answer.
    Text(String),
    /// A piece of the model's reasoning.
    Reasoning(String),
    /// A piece of a refusal.
    Refusal(String),
    /// A fragment of a call.
    ToolCall {
        /// The call's position among the message's calls.
        index: u32,
        /// The call's id, with its first fragment and only there.
        id: Option<String>,
        /// The tool's name, with the call's first fragment and only there.
        name: Option<String>,
        /// The text to append to the arguments.
        arguments: String,
    },
    /// A field that Baton passes on without interpreting it.
    Field {
        /// The object that it belongs to.
        of: FieldOf,
        /// Its name.
        name: String,
        /// Its value, JSON as the upstream wrote it.
        json: String,
    },
}

impl Delta {
    /// Returns whether it is a part of the answer itself.
    pub const fn is_answer(&self) -> bool {
        !matches!(
            self,
            Self::Field {
                of: FieldOf::Choice | FieldOf::Completion | FieldOf::Usage,
                ..
            }
        )
    }
}

/// The object that a passed-on field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOf {
    /// The message, streamed as its delta: `annotations`, `audio`, `images`.
    Message,
    /// The choice around it: `logprobs`.
    Choice,
    /// The completion around that: `system_fingerprint`, `service_tier`.
    Completion,
    /// The token counts: `prompt_tokens_details`.
    Usage,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedMessage {
    /// The assistant's message. Its `tool_calls` show whether it calls tools, because some
    /// upstreams send `stop` with them.
    pub message: Message,
    /// The reason for its end.
    pub finish_reason: FinishReason,
    /// Token counts, if the upstream sent them.
    pub usage: Option<Usage>,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
}

/// A reason for which the chunks make no message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccumulateError {
    /// The upstream reported an error in place of a chunk.
    #[error("the stream carries an error: {}", .0.message)]
    Reported(ErrorObject),
    /// The model stopped for a reason that is a failure, or is unknown.
    #[error("the answer ended with `{0}`")]
    BadEnd(String),
    /// The stream ended without a finish reason.
    #[error("the stream ended before the answer did")]
    Incomplete,
    /// The answer exceeded the limit.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes of text, arguments and passed-on fields.
        limit: usize,
    },
    /// A fragment contradicts earlier ones.
    #[error("the stream is malformed: {0}")]
    Malformed(&'static str),
}

/// A fold of chunks into a message.
#[derive(Debug)]
pub struct ChatAccumulator {
    limit: usize,
    /// The bytes of everything that is kept, which the limit bounds.
    kept: usize,
    /// The bytes of text and arguments only.
    bytes: usize,
    content: String,
    reasoning: String,
    refusal: String,
    calls: Calls,
    rest: Unknown,
    /// The last value of each passed-on field of the choice and the completion, because most
    /// upstreams repeat them in every chunk.
    repeated: Vec<(FieldOf, String, String)>,
    end: Option<End>,
    /// Whether a finish reason came with a piece of the answer, or before one. Some upstreams send
    /// one with every piece, so it proves no end.
    ends_with_text: bool,
    usage: Option<Usage>,
    model: Option<String>,
}

/// The end of the answer.
#[derive(Debug)]
enum End {
    Good(FinishReason),
    Bad(String),
}

/// The longest finish reason that an error quotes, in bytes.
const MAX_REASON: usize = 100;

impl ChatAccumulator {
    /// Makes a fold that keeps at most `limit` bytes of text, arguments and passed-on fields. A
    /// call without its own id gets one from `call_id_prefix` and its position.
    pub fn new(call_id_prefix: impl Into<String>, limit: usize) -> Self {
        Self {
            limit,
            kept: 0,
            bytes: 0,
            content: String::new(),
            reasoning: String::new(),
            refusal: String::new(),
            calls: Calls::new(call_id_prefix.into()),
            rest: Unknown::new(),
            repeated: Vec::new(),
            end: None,
            ends_with_text: false,
            usage: None,
            model: None,
        }
    }

    /// Returns whether the model sent a finish reason: everything but the usage has arrived.
    pub fn is_complete(&self) -> bool {
        self.end.is_some()
    }

    /// Returns whether the finish reason proves that nothing is missing, even if the connection
    /// breaks after it. Some upstreams send one with every chunk.
    pub fn is_surely_complete(&self) -> bool {
        matches!(self.end, Some(End::Good(_))) && !self.ends_with_text
    }

    /// Returns the model that answers, once the upstream has named it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns the text so far.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// Returns the number of bytes of text and arguments so far.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the token counts, if the upstream has sent them.
    pub const fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Folds one chunk, and appends its additions to `deltas`.
    pub fn fold(
        &mut self,
        chunk: ChatChunk<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        if let Some(error) = chunk.error {
            return Err(AccumulateError::Reported(error));
        }
        if self.model.is_none()
            && let Some(model) = chunk.model.filter(|model| !model.is_empty())
        {
            self.show(
                FieldOf::Completion,
                "model",
                &Value::from(&*model).to_string(),
                deltas,
            )?;
            self.model = Some(model.into_owned());
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        for choice in chunk.choices {
            if choice.index == RESULT_CHOICE {
                self.fold_choice(choice, chunk.is_whole, deltas)?;
            }
        }
        for field in chunk.rest {
            self.pass_on(FieldOf::Completion, &field, deltas)?;
        }
        Ok(())
    }

    fn fold_choice(
        &mut self,
        choice: ChunkChoice<'_>,
        is_whole: bool,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        let mut delta = choice.delta;
        if is_whole {
            // Some upstreams end with the whole answer: text that was already shown is not
            // repeated.
            let shown = |text: &str| !text.is_empty();
            delta.content = delta.content.filter(|_| !shown(&self.content));
            delta.reasoning = delta.reasoning.filter(|_| !shown(&self.reasoning));
            delta.refusal = delta.refusal.filter(|_| !shown(&self.refusal));
            if !self.calls.is_empty() {
                delta.tool_calls.clear();
                delta.function_call = None;
            }
        }
        let before = self.bytes;
        if let Some(text) = delta.reasoning.filter(|text| !text.is_empty()) {
            self.count_answer(text.len())?;
            self.reasoning.push_str(&text);
            deltas.push(Delta::Reasoning(text.into_owned()));
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.count_answer(text.len())?;
            self.content.push_str(&text);
            deltas.push(Delta::Text(text.into_owned()));
        }
        if let Some(text) = delta.refusal.filter(|text| !text.is_empty()) {
            self.count_answer(text.len())?;
            self.refusal.push_str(&text);
            deltas.push(Delta::Refusal(text.into_owned()));
        }
        for fragment in delta.tool_calls {
            self.count_answer(calls::size_of(&fragment))?;
            self.calls.fold(fragment, deltas)?;
        }
        if let Some(call) = delta.function_call {
            self.count_answer(call.arguments.as_ref().map_or(0, |text| text.len()))?;
            self.calls.fold_legacy(call);
        }
        for part in delta.parts {
            self.add(&part.name, &format!("[{}]", part.json.get()), deltas)?;
        }
        for field in delta.rest {
            if !(is_whole && self.rest.contains_key(&*field.name)) {
                self.add(&field.name, field.json.get(), deltas)?;
            }
        }
        let adds = self.bytes > before && !is_whole;
        if adds && (self.end.is_some() || choice.finish_reason.is_some()) {
            self.ends_with_text = true;
        }
        for field in choice.rest {
            if field.name != "usage" {
                self.pass_on(FieldOf::Choice, &field, deltas)?;
            }
        }
        if let Some(reason) = choice.finish_reason
            && !matches!(self.end, Some(End::Bad(_)))
        {
            self.end = Some(if let Some(reason) = FinishReason::read(&reason) {
                End::Good(reason)
            } else {
                let end = reason.floor_char_boundary(MAX_REASON);
                End::Bad(reason[..end].to_owned())
            });
            self.calls.settle_legacy(deltas)?;
        }
        Ok(())
    }

    /// Checks that [`ChatAccumulator::finish`] would return a message: the stream has ended, and
    /// its content is valid.
    pub fn check(&self) -> Result<(), AccumulateError> {
        match &self.end {
            None => Err(AccumulateError::Incomplete),
            Some(End::Bad(reason)) => Err(AccumulateError::BadEnd(reason.clone())),
            Some(End::Good(_)) => self.calls.check(),
        }
    }

    /// Returns the details of the token counts as deltas. Call it once the stream has ended,
    /// because some upstreams count in every chunk.
    pub fn usage_details(&self) -> Vec<Delta> {
        let details = self.usage.iter().flat_map(|usage| &usage.rest);
        details
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| Delta::Field {
                of: FieldOf::Usage,
                name: name.clone(),
                json: value.to_string(),
            })
            .collect()
    }

    /// Returns the message, once the stream has ended.
    pub fn finish(mut self) -> Result<FinishedMessage, AccumulateError> {
        self.check()?;
        let Some(End::Good(finish_reason)) = self.end.take() else {
            return Err(AccumulateError::Incomplete);
        };
        Ok(FinishedMessage {
            finish_reason,
            usage: self.usage.take(),
            model: self.model.take(),
            message: self.into_message(),
        })
    }

    /// Returns the arrived part of an interrupted message: exactly the shown deltas.
    pub fn into_partial(mut self) -> Message {
        self.calls.keep_announced();
        self.into_message()
    }

    fn into_message(self) -> Message {
        let mut rest = self.rest;
        if !self.refusal.is_empty() {
            rest.insert("refusal".to_owned(), Value::String(self.refusal));
        }
        if !self.reasoning.is_empty() {
            rest.insert(
                "reasoning_content".to_owned(),
                Value::String(self.reasoning),
            );
        }
        let calls = self.calls.into_calls();
        let has_calls = !calls.is_empty();
        let has_no_text = self.content.is_empty() && (has_calls || rest.contains_key("refusal"));
        Message {
            role: "assistant".to_owned(),
            content: (!has_no_text).then_some(Content::Text(self.content)),
            tool_calls: has_calls.then_some(calls),
            rest,
            ..Message::default()
        }
    }

    fn count_answer(&mut self, bytes: usize) -> Result<(), AccumulateError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.count(bytes)
    }

    fn count(&mut self, bytes: usize) -> Result<(), AccumulateError> {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > self.limit {
            return Err(AccumulateError::TooLong { limit: self.limit });
        }
        Ok(())
    }

    /// Adds to a field of the message, see [`join_piece`]. A value that no reader understands is left
    /// out.
    fn add(
        &mut self,
        name: &str,
        json: &str,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        let Some((json, value)) = value_of(json) else {
            return Ok(());
        };
        self.show(FieldOf::Message, name, &json, deltas)?;
        join_piece(&mut self.rest, name, value);
        Ok(())
    }

    /// Passes on a field of the choice or the completion, unless it repeats its last value or no
    /// reader understands it.
    fn pass_on(
        &mut self,
        of: FieldOf,
        field: &RawField<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        let json = field.json.get();
        // Lists and log probabilities grow; any other value is replaced.
        let grows = of == FieldOf::Choice && (field.name == "logprobs" || json.starts_with('['));
        if !grows {
            let known = self
                .repeated
                .iter_mut()
                .find(|(place, name, _)| *place == of && *name == field.name);
            match known {
                Some((_, _, last)) if last == json => return Ok(()),
                Some((_, _, last)) => json.clone_into(last),
                None => {
                    let entry = (of, field.name.clone().into_owned(), json.to_owned());
                    self.repeated.push(entry);
                }
            }
        }
        let Some((json, _)) = value_of(json) else {
            return Ok(());
        };
        self.show(of, &field.name, &json, deltas)
    }

    fn show(
        &mut self,
        of: FieldOf,
        name: &str,
        json: &str,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        self.count(name.len() + json.len())?;
        deltas.push(Delta::Field {
            of,
            name: name.to_owned(),
            json: json.to_owned(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
