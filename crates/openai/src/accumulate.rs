//! Folding a stream's chunks into the message that they make.

use serde_json::Value;

use crate::{ChatChunk, ChunkToolCall, Content, ErrorObject, Message, ToolCall, Unknown, Usage};

/// The index of the answer that is folded; `n > 1` is not offered.
pub const RESULT_CHOICE: u32 = 0;

/// What a chunk added, put in order: a call's `index` is its place in the finished message, and its
/// id and name are never missing in its first fragment.
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
        /// The call's place among the message's calls.
        index: u32,
        /// The call's id, with its first fragment and only there.
        id: Option<String>,
        /// The tool's name, with the call's first fragment and only there.
        name: Option<String>,
        /// What to append to the arguments.
        arguments: String,
    },
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedMessage {
    /// The assistant's message. Whether it calls tools is seen by its `tool_calls`: some upstreams
    /// say `stop` with them.
    pub message: Message,
    /// Why the model stopped, in the upstream's words.
    pub finish_reason: String,
    /// Token counts, if the upstream sent them.
    pub usage: Option<Usage>,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
}

/// The chunks do not make a message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccumulateError {
    /// The upstream reported an error in place of a chunk.
    #[error("the stream carries an error: {}", .0.message)]
    Reported(ErrorObject),
    /// The stream ended before the model said why it stopped.
    #[error("the stream ended before the answer did")]
    Incomplete,
    /// The answer passed the limit.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes of text and arguments.
        limit: usize,
    },
    /// A fragment contradicts what came before.
    #[error("the stream is malformed: {0}")]
    Malformed(&'static str),
}

/// Folds chunks into a message.
#[derive(Debug)]
pub struct ChatAccumulator {
    call_id_prefix: String,
    limit: usize,
    bytes: usize,
    content: String,
    reasoning: String,
    refusal: String,
    calls: Vec<Call>,
    rest: Unknown,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    model: Option<String>,
}

#[derive(Debug)]
struct Call {
    /// The upstream's index: the key that fragments are joined by.
    upstream_index: Option<u32>,
    kind: Option<String>,
    made: ToolCall,
    announced: bool,
}

/// More calls than any model asks for at once: a stream that opens more is broken or hostile.
const MAX_CALLS: usize = 256;

impl ChatAccumulator {
    /// A fold whose text and arguments may reach `limit` bytes. A call without an id of its own is
    /// named after `call_id_prefix` and its place.
    pub fn new(call_id_prefix: impl Into<String>, limit: usize) -> Self {
        Self {
            call_id_prefix: call_id_prefix.into(),
            limit,
            bytes: 0,
            content: String::new(),
            reasoning: String::new(),
            refusal: String::new(),
            calls: Vec::new(),
            rest: Unknown::new(),
            finish_reason: None,
            usage: None,
            model: None,
        }
    }

    /// Whether the model has said why it stopped: everything but the usage has arrived.
    pub fn is_complete(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// The text so far.
    pub fn content(&self) -> &str {
        &self.content
    }

    /// How many bytes of text and arguments have arrived.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Token counts, if the upstream has sent them.
    pub const fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Folds one chunk, and appends what it added to `deltas`.
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
            self.model = Some(model.into_owned());
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        for choice in chunk.choices {
            if choice.index != RESULT_CHOICE {
                continue;
            }
            let delta = choice.delta;
            if let Some(text) = delta.reasoning.filter(|text| !text.is_empty()) {
                self.count(text.len())?;
                self.reasoning.push_str(&text);
                deltas.push(Delta::Reasoning(text.into_owned()));
            }
            if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
                self.count(text.len())?;
                self.content.push_str(&text);
                deltas.push(Delta::Text(text.into_owned()));
            }
            if let Some(text) = delta.refusal.filter(|text| !text.is_empty()) {
                self.count(text.len())?;
                self.refusal.push_str(&text);
                deltas.push(Delta::Refusal(text.into_owned()));
            }
            for fragment in delta.tool_calls {
                self.fold_call(fragment, deltas)?;
            }
            if !delta.rest.is_empty() {
                self.fold_rest(delta.rest)?;
            }
            if let Some(reason) = choice.finish_reason {
                self.finish_reason = Some(reason.into_owned());
            }
        }
        Ok(())
    }

    /// Whether [`ChatAccumulator::finish`] would yield a message: the stream has ended, and what it
    /// carried is one.
    pub fn check(&self) -> Result<(), AccumulateError> {
        if self.finish_reason.is_none() {
            return Err(AccumulateError::Incomplete);
        }
        if self
            .calls
            .iter()
            .any(|call| call.made.function.is_some() && call.made.name().is_empty())
        {
            return Err(AccumulateError::Malformed("a tool call names no function"));
        }
        Ok(())
    }

    /// The message, once the stream has ended.
    pub fn finish(mut self) -> Result<FinishedMessage, AccumulateError> {
        self.check()?;
        let finish_reason = self.finish_reason.take().unwrap_or_default();
        Ok(FinishedMessage {
            finish_reason,
            usage: self.usage.take(),
            model: self.model.take(),
            message: self.into_message(),
        })
    }

    /// What has arrived of a message that nobody will finish: exactly what its deltas showed.
    pub fn into_partial(mut self) -> Message {
        self.calls.retain(|call| call.announced);
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
        let has_calls = !self.calls.is_empty();
        let has_no_text = self.content.is_empty() && (has_calls || rest.contains_key("refusal"));
        Message {
            role: "assistant".to_owned(),
            content: (!has_no_text).then_some(Content::Text(self.content)),
            tool_calls: has_calls.then(|| self.calls.into_iter().map(|call| call.made).collect()),
            rest,
            ..Message::default()
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), AccumulateError> {
        self.bytes += bytes;
        if self.bytes > self.limit {
            return Err(AccumulateError::TooLong { limit: self.limit });
        }
        Ok(())
    }

    /// Fields that Baton does not know: lists grow, of the rest the newer stays.
    fn fold_rest(&mut self, fields: Unknown) -> Result<(), AccumulateError> {
        for (key, value) in fields {
            if value.is_null() {
                continue;
            }
            self.count(value.to_string().len())?;
            match (self.rest.get_mut(&key), value) {
                (Some(Value::Array(present)), Value::Array(more)) => present.extend(more),
                (_, value) => {
                    self.rest.insert(key, value);
                }
            }
        }
        Ok(())
    }

    fn fold_call(
        &mut self,
        fragment: ChunkToolCall<'_>,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), AccumulateError> {
        let id = fragment.id.filter(|id| !id.is_empty());
        let place = match fragment.index {
            Some(index) => self
                .calls
                .iter()
                .position(|call| call.upstream_index == Some(index)),
            // Without an index, a new id opens a call and everything else belongs to the last one.
            None => match &id {
                Some(id) => self.calls.iter().position(|call| call.made.id == **id),
                None => self.calls.len().checked_sub(1),
            },
        };
        let place = match place {
            Some(place) => place,
            None => self.open_call(fragment.index)?,
        };
        let index = u32::try_from(place).unwrap_or(u32::MAX);

        let (name, arguments) = fragment
            .function
            .map(|function| (function.name, function.arguments))
            .unwrap_or_default();
        let arguments = arguments.unwrap_or_default();
        self.count(arguments.len())?;
        if !fragment.rest.is_empty() {
            self.count(Value::Object(fragment.rest.clone()).to_string().len())?;
        }
        let slot = &mut self.calls[place];
        // What was shown as a call of a function stays one.
        if let Some(kind) = fragment.kind.filter(|kind| !kind.is_empty())
            && slot.kind.is_none()
            && !slot.announced
        {
            slot.made.kind = kind.to_string();
            slot.kind = Some(kind.into_owned());
        }
        slot.made.rest.extend(
            fragment
                .rest
                .into_iter()
                .filter(|(_, value)| !value.is_null()),
        );
        if let Some(id) = id
            && slot.made.id.is_empty()
        {
            slot.made.id = id.into_owned();
        }
        if slot.made.kind != "function" {
            slot.made.function = None;
            return Ok(());
        }
        let function = slot.made.function.get_or_insert_default();
        if let Some(name) = name
            && function.name.is_empty()
        {
            function.name = name.into_owned();
        }
        function.arguments.push_str(&arguments);
        if slot.announced {
            if !arguments.is_empty() {
                deltas.push(Delta::ToolCall {
                    index,
                    id: None,
                    name: None,
                    arguments: arguments.into_owned(),
                });
            }
        } else if !function.name.is_empty() {
            slot.announced = true;
            if slot.made.id.is_empty() {
                slot.made.id = format!("{}{index}", self.call_id_prefix);
            }
            deltas.push(Delta::ToolCall {
                index,
                id: Some(slot.made.id.clone()),
                name: Some(function.name.clone()),
                arguments: function.arguments.clone(),
            });
        }
        Ok(())
    }

    fn open_call(&mut self, upstream_index: Option<u32>) -> Result<usize, AccumulateError> {
        if self.calls.len() == MAX_CALLS {
            return Err(AccumulateError::Malformed("too many tool calls at once"));
        }
        self.calls.push(Call {
            upstream_index,
            kind: None,
            made: ToolCall::function("", "", ""),
            announced: false,
        });
        Ok(self.calls.len() - 1)
    }
}

#[cfg(test)]
mod tests;
