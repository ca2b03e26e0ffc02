//! A run's whole answer, gathered from its events or read from the ledger.

use baton_openai::{
    AnswerFields, ChatCompletion, Content, FieldOf, Message, ToolCall, Unknown, Usage,
};
use baton_protocol::event::ToolCallDelta;
use baton_protocol::{Event, EventData, EventId, FinishReason, RunError, RunId, Usage as RunUsage};
use serde_json::Value;

use super::passed_on::{FieldPieces, FieldsOfSteps};

/// The end of a followed run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Completed {
        finish_reason: FinishReason,
        usage: RunUsage,
    },
    Failed(RunError),
    Cancelled(String),
}

/// The answer for the client: the text of all turns, and the calls for the client to execute.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) refusal: String,
    pub(crate) calls: Vec<Call>,
    /// The upstream's other fields.
    pub(crate) fields: AnswerFields,
}

/// A call of a client's tool.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// An answer under construction that supports withdrawals.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    answer: Answer,
    /// For each step that added something: its last event, and the lengths of the answer after it.
    /// A withdrawal always removes whole steps.
    marks: Vec<Mark>,
    pieces: FieldPieces,
    fields: FieldsOfSteps,
}

#[derive(Debug)]
struct Mark {
    step: u32,
    id: EventId,
    lengths: Lengths,
}

#[derive(Debug, Clone, Default)]
struct Lengths {
    text: usize,
    reasoning: usize,
    refusal: usize,
    /// The length of each call's arguments.
    calls: Vec<usize>,
}

impl Gathering {
    /// Takes one event; returns the end if the event is the last.
    pub(crate) fn take(&mut self, event: &Event) -> Option<End> {
        match &event.data {
            EventData::TextDelta(delta) => self.answer.text.push_str(&delta.text),
            EventData::ReasoningDelta(delta) => self.answer.reasoning.push_str(&delta.text),
            EventData::RefusalDelta(delta) => self.answer.refusal.push_str(&delta.text),
            EventData::ToolCallDelta(delta) => self.answer.add_call_fragment(delta),
            EventData::AnswerField(piece) => {
                if let Some(field) = self.pieces.take(piece) {
                    self.fields.add(event, &field);
                }
            }
            EventData::AttemptReset(reset) => {
                if !reset.continues {
                    self.withdraw_beyond(reset.resume_after);
                }
                return None;
            }
            EventData::RunCompleted(end) => {
                return Some(End::Completed {
                    finish_reason: end.finish_reason,
                    usage: end.usage,
                });
            }
            EventData::RunFailed(end) => return Some(End::Failed(end.error.clone())),
            EventData::RunCancelled(end) => return Some(End::Cancelled(end.reason.clone())),
            EventData::RunStarted(_)
            | EventData::ToolStarted(_)
            | EventData::ToolFinished(_)
            | EventData::ApprovalRequested(_)
            | EventData::BudgetReached(_)
            | EventData::InputAccepted(_)
            | EventData::InputApplied(_)
            | EventData::ContextCompacted(_)
            | EventData::Usage(_)
            | EventData::Unknown(_) => return None,
        }
        let lengths = self.answer.lengths();
        match self.marks.last_mut().filter(|mark| mark.step == event.step) {
            Some(mark) => (mark.id, mark.lengths) = (event.id, lengths),
            None => self.marks.push(Mark {
                step: event.step,
                id: event.id,
                lengths,
            }),
        }
        None
    }

    fn withdraw_beyond(&mut self, id: EventId) {
        self.marks.retain(|mark| mark.id <= id);
        let lengths = self
            .marks
            .last()
            .map(|mark| mark.lengths.clone())
            .unwrap_or_default();
        self.answer.cut(&lengths);
        self.pieces.clear();
        self.fields.withdraw_beyond(id);
    }

    pub(crate) fn into_answer(self) -> Answer {
        Answer {
            fields: self.fields.together(),
            ..self.answer
        }
    }
}

impl Answer {
    /// Returns the answer from the run's recorded messages, in order. The client has calls to
    /// execute only if the run ended with them, and then they are in the last message.
    pub(crate) fn from_messages(
        messages: &[Message],
        finish: FinishReason,
        client_tools: &[String],
    ) -> Self {
        let mut answer = Self::default();
        let assistants = || {
            messages
                .iter()
                .filter(|message| message.role == "assistant")
        };
        for message in assistants() {
            answer.text.push_str(&message.plain_text());
            for (key, value) in &message.rest {
                match (&**key, value) {
                    ("reasoning_content", Value::String(text)) => answer.reasoning.push_str(text),
                    ("refusal", Value::String(text)) => answer.refusal.push_str(text),
                    _ => answer.fields.add(FieldOf::Message, key, &value.to_string()),
                }
            }
        }
        if finish == FinishReason::ToolCalls {
            let last = assistants().next_back();
            let calls = last
                .and_then(|message| message.tool_calls.as_deref())
                .unwrap_or_default();
            answer.calls = calls
                .iter()
                .filter(|call| client_tools.iter().any(|name| name == call.name()))
                .map(|call| Call {
                    id: call.id.clone(),
                    name: call.name().to_owned(),
                    arguments: call.arguments().to_owned(),
                })
                .collect();
        }
        answer
    }

    fn add_call_fragment(&mut self, delta: &ToolCallDelta) {
        let index = delta.index as usize;
        // Indexes are dense. A gap would be the worker's error, and must not cost memory here.
        if index > self.calls.len() {
            return;
        }
        if index == self.calls.len() {
            self.calls.push(Call::default());
        }
        let call = &mut self.calls[index];
        if let Some(id) = &delta.id {
            call.id.clone_from(id);
        }
        if let Some(name) = &delta.name {
            call.name.clone_from(name);
        }
        call.arguments.push_str(&delta.arguments);
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            text: self.text.len(),
            reasoning: self.reasoning.len(),
            refusal: self.refusal.len(),
            calls: self.calls.iter().map(|call| call.arguments.len()).collect(),
        }
    }

    fn cut(&mut self, to: &Lengths) {
        self.text.truncate(to.text);
        self.reasoning.truncate(to.reasoning);
        self.refusal.truncate(to.refusal);
        self.calls.truncate(to.calls.len());
        for (call, length) in self.calls.iter_mut().zip(&to.calls) {
            call.arguments.truncate(*length);
        }
    }

    /// Returns the answer as OpenAI's completion object. `asked` is the requested model.
    pub(crate) fn into_completion(
        mut self,
        run: RunId,
        created: i64,
        asked: &str,
        finish_reason: FinishReason,
        usage: RunUsage,
    ) -> ChatCompletion {
        // As in OpenAI's API: no content along with calls, unless there was text.
        let content = (!self.text.is_empty() || self.calls.is_empty() && self.refusal.is_empty())
            .then_some(Content::Text(self.text));
        let calls: Vec<_> = self
            .calls
            .into_iter()
            .map(|call| ToolCall::function(call.id, call.name, call.arguments))
            .collect();
        let mut message = Message {
            role: "assistant".to_owned(),
            content,
            tool_calls: (!calls.is_empty()).then_some(calls),
            ..Message::default()
        };
        let refusal = if self.refusal.is_empty() {
            Value::Null
        } else {
            self.refusal.into()
        };
        message.rest.insert("refusal".to_owned(), refusal);
        if !self.reasoning.is_empty() {
            message
                .rest
                .insert("reasoning_content".to_owned(), self.reasoning.into());
        }
        message.rest.extend(self.fields.message);
        let usage = to_openai(usage, self.fields.usage);
        let model = match self.fields.completion.remove("model") {
            Some(Value::String(answered)) => answered,
            _ => asked.to_owned(),
        };
        let mut completion = ChatCompletion::new(
            completion_id(run),
            created,
            model,
            message,
            finish_reason.as_chat(),
            usage,
        );
        completion.rest = self.fields.completion;
        for choice in &mut completion.choices {
            choice.logprobs = self.fields.choice.remove("logprobs");
            choice.rest = std::mem::take(&mut self.fields.choice);
        }
        completion
    }
}

/// Returns the completion with its first call in the older form.
pub(crate) fn with_older_call(mut completion: ChatCompletion) -> ChatCompletion {
    for choice in &mut completion.choices {
        let Some(calls) = choice.message.tool_calls.take() else {
            continue;
        };
        let first = calls.into_iter().find_map(|call| call.function);
        if let Some(function) = first.and_then(|call| serde_json::to_value(call).ok()) {
            let rest = &mut choice.message.rest;
            rest.insert("function_call".to_owned(), function);
            choice.finish_reason = Some(told_reason(FinishReason::ToolCalls, true).to_owned());
        }
    }
    completion
}

/// Returns a finish reason in the form that the client expects.
pub(crate) fn told_reason(reason: FinishReason, older_calls: bool) -> &'static str {
    match reason {
        FinishReason::ToolCalls if older_calls => "function_call",
        reason => reason.as_chat(),
    }
}

/// Returns the run's id in the form of OpenAI routes.
pub(crate) fn completion_id(run: RunId) -> String {
    format!("chatcmpl-{run}")
}

/// Returns the time at which the run was created, in seconds since 1970. It is a part of the run's
/// id, so every server and every replay returns the same.
pub(crate) fn created(run: RunId) -> i64 {
    run.unix_millis()
        .and_then(|millis| i64::try_from(millis / 1_000).ok())
        .unwrap_or_default()
}

/// Returns a run's token counts with the upstream's other counts; `None` if there are none. Partly
/// estimated counts are marked by a separate field.
pub(crate) fn to_openai(usage: RunUsage, details: Unknown) -> Option<Usage> {
    let RunUsage {
        prompt_tokens,
        completion_tokens,
        total_tokens,
        estimated,
    } = usage;
    if (prompt_tokens, completion_tokens, total_tokens) == (0, 0, 0) {
        return None;
    }
    let mut rest = details;
    if estimated {
        rest.insert("estimated".to_owned(), true.into());
    }
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens,
        rest,
    })
}

#[cfg(test)]
mod tests;
