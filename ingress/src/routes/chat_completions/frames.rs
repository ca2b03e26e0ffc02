//! Writes a run's events as OpenAI chunks.
//!
//! A chat client cannot take back tokens. If a new attempt withdraws something that was shown, the
//! stream ends with an error object that names the run; if none of it was shown, the client notices
//! nothing. Calls of server-side tools never appear.

use baton_openai::{AnswerFields, ChunkWriter, ErrorObject, FieldOf};
use baton_protocol::event::AnswerPart;
use baton_protocol::{Event, EventData, EventId, FinishReason, RunError, RunId, Usage};
use bytes::BytesMut;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answer, completion_id, created, to_openai, told_reason};
use super::passed_on::{Field, FieldPieces, FieldsOfSteps};
use crate::error::{code_of_error, openai_type, status_of_error};
use crate::metrics::StreamEnd;

/// The state of one chat stream.
#[derive(Debug)]
pub(crate) struct ChatFrames {
    run: RunId,
    writer: ChunkWriter,
    /// The model that the request named.
    asked: String,
    include_usage: bool,
    /// Whether the client expects calls in their older form.
    older_calls: bool,
    began: bool,
    pieces: FieldPieces,
    /// The fields of the completion and of the token counts.
    fields: FieldsOfSteps,
    /// The last event that showed something to the client.
    last_shown: EventId,
}

impl ChatFrames {
    pub(crate) fn new(run: RunId, model: &str, include_usage: bool) -> Self {
        Self {
            run,
            writer: ChunkWriter::new(&completion_id(run), created(run), model, include_usage),
            asked: model.to_owned(),
            include_usage,
            older_calls: false,
            began: false,
            pieces: FieldPieces::default(),
            fields: FieldsOfSteps::default(),
            last_shown: EventId::ORIGIN,
        }
    }

    /// If `older` is set, writes the first call of an answer as `function_call`, and no others.
    pub(crate) fn with_older_calls(mut self, older: bool) -> Self {
        self.older_calls = older;
        self
    }

    /// Returns whether the client has been shown anything.
    pub(crate) fn began(&self) -> bool {
        self.began
    }

    /// Writes one event's chunks; returns the kind of end if the event ends the stream.
    pub(crate) fn write(&mut self, out: &mut BytesMut, event: &Event) -> Option<StreamEnd> {
        match &event.data {
            EventData::TextDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.text(out, &delta.text);
            }
            EventData::ReasoningDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.reasoning(out, &delta.text);
            }
            EventData::RefusalDelta(delta) if !delta.text.is_empty() => {
                self.shows(out, event.id);
                self.writer.refusal(out, &delta.text);
            }
            EventData::ToolCallDelta(delta) => {
                self.shows(out, event.id);
                let first = delta.id.as_deref().zip(delta.name.as_deref());
                self.call(out, delta.index, first, &delta.arguments);
            }
            EventData::AnswerField(piece) => {
                if let Some(field) = self.pieces.take(piece) {
                    self.field(out, event, &field);
                }
            }
            EventData::AttemptReset(reset) => {
                if !reset.continues && self.last_shown > reset.resume_after {
                    let error = ErrorObject::new(
                        "server_error",
                        "answer_withdrawn",
                        format!(
                            "the answer shown so far was withdrawn, because the server that wrote it \
                             was lost or its model broke off; run {run} goes on: GET /v1/runs/{run}",
                            run = self.run
                        ),
                    );
                    ChunkWriter::error(out, &error);
                    return Some(StreamEnd::Withdrawn);
                }
                if !reset.continues {
                    self.pieces.clear();
                    self.fields.withdraw_beyond(reset.resume_after);
                    self.name_completion(&self.fields.together());
                }
            }
            EventData::RunCompleted(end) => {
                self.finish(out, end.finish_reason, end.usage);
                return Some(StreamEnd::Finished);
            }
            EventData::RunFailed(end) => {
                self.fail(out, &end.error);
                return Some(StreamEnd::Error);
            }
            EventData::RunCancelled(end) => {
                self.cancelled(out, &end.reason);
                return Some(StreamEnd::Error);
            }
            EventData::TextDelta(_)
            | EventData::ReasoningDelta(_)
            | EventData::RefusalDelta(_)
            | EventData::RunStarted(_)
            | EventData::ToolStarted(_)
            | EventData::ToolFinished(_)
            | EventData::ApprovalRequested(_)
            | EventData::BudgetReached(_)
            | EventData::InputAccepted(_)
            | EventData::InputApplied(_)
            | EventData::ContextCompacted(_)
            | EventData::Usage(_)
            | EventData::Unknown(_) => {}
        }
        None
    }

    /// Writes a whole recorded answer as a stream: for a run with lost events, or a run that had
    /// already ended when its client returned.
    pub(crate) fn write_whole(
        &mut self,
        out: &mut BytesMut,
        answer: &Answer,
        finish_reason: FinishReason,
        usage: Usage,
    ) {
        self.name_completion(&answer.fields);
        self.begin(out);
        if !answer.reasoning.is_empty() {
            self.writer.reasoning(out, &answer.reasoning);
        }
        if !answer.text.is_empty() {
            self.writer.text(out, &answer.text);
        }
        if !answer.refusal.is_empty() {
            self.writer.refusal(out, &answer.refusal);
        }
        for (index, call) in (0..).zip(&answer.calls) {
            let first = Some((&*call.id, &*call.name));
            self.call(out, index, first, &call.arguments);
        }
        for (name, value) in &answer.fields.message {
            self.writer.message_field(out, name, &value.to_string());
        }
        for (name, value) in &answer.fields.choice {
            self.writer.choice_field(out, name, &value.to_string());
        }
        for (name, value) in &answer.fields.completion {
            if !is_repeated(name, value) {
                self.writer.completion_field(out, name, &value.to_string());
            }
        }
        self.end(out, finish_reason, usage, &answer.fields);
    }

    pub(crate) fn fail(&self, out: &mut BytesMut, error: &RunError) {
        let mut object = ErrorObject::new(
            openai_type(status_of_error(error)),
            code_of_error(error),
            format!("run {} failed: {}", self.run, error.message),
        );
        let upstream = error.upstream.as_deref();
        object.param = upstream.and_then(|upstream| upstream.param.clone());
        ChunkWriter::error(out, &object);
    }

    pub(crate) fn cancelled(&self, out: &mut BytesMut, reason: &str) {
        let message = format!("run {} was cancelled: {reason}", self.run);
        ChunkWriter::error(
            out,
            &ErrorObject::new("server_error", "run_cancelled", message),
        );
    }

    /// Ends the stream of a run that is still active.
    pub(crate) fn interrupted(&self, out: &mut BytesMut, code: &str, why: &str) {
        let message = format!(
            "{why}; run {run} goes on: GET /v1/runs/{run}",
            run = self.run
        );
        ChunkWriter::error(out, &ErrorObject::new("server_error", code, message));
    }

    fn finish(&mut self, out: &mut BytesMut, finish_reason: FinishReason, usage: Usage) {
        let fields = self.fields.together();
        self.end(out, finish_reason, usage, &fields);
    }

    fn end(
        &mut self,
        out: &mut BytesMut,
        finish_reason: FinishReason,
        usage: Usage,
        fields: &AnswerFields,
    ) {
        self.begin(out);
        let reason = told_reason(finish_reason, self.older_calls);
        self.writer.finish(out, reason);
        if self.include_usage
            && let Some(usage) = to_openai(usage, fields.usage.clone())
        {
            self.writer.usage(out, &usage);
        }
        ChunkWriter::done(out);
    }

    /// Writes a fragment of a call; the first fragment has an id and a name.
    fn call(&self, out: &mut BytesMut, index: u32, first: Option<(&str, &str)>, arguments: &str) {
        let writer = &self.writer;
        match first {
            // An answer has one call in that form. The model repeats the others.
            _ if self.older_calls && index > 0 => {}
            Some((_, name)) if self.older_calls => writer.function_call(out, name, arguments),
            None if self.older_calls => writer.function_call_arguments(out, arguments),
            Some((id, name)) => writer.tool_call(out, index, id, name, arguments),
            None => writer.tool_call_arguments(out, index, arguments),
        }
    }

    /// Passes a field on. A field of the message or the choice is part of what is shown. A field of
    /// the completion is sent with the next chunk that shows something.
    fn field(&mut self, out: &mut BytesMut, event: &Event, field: &Field) {
        if serde_json::from_str::<&RawValue>(&field.json).is_err() {
            return;
        }
        match field.of {
            FieldOf::Message => {
                self.shows(out, event.id);
                self.writer.message_field(out, &field.name, &field.json);
            }
            FieldOf::Choice => {
                self.shows(out, event.id);
                self.writer.choice_field(out, &field.name, &field.json);
            }
            FieldOf::Usage => self.fields.add(event, field),
            FieldOf::Completion => {
                let value = serde_json::from_str(&field.json).unwrap_or_default();
                if is_repeated(&field.name, &value) {
                    self.fields.add(event, field);
                    self.name_completion(&self.fields.together());
                } else {
                    self.shows(out, event.id);
                    self.writer.completion_field(out, &field.name, &field.json);
                }
            }
        }
    }

    fn name_completion(&mut self, fields: &AnswerFields) {
        let repeated = fields.completion.iter();
        let repeated: Vec<_> = repeated
            .filter(|(name, value)| *name != "model" && is_repeated(name, value))
            .map(|(name, value)| (&**name, value.to_string()))
            .collect();
        let repeated = repeated.iter().map(|(name, json)| (*name, &**json));
        let model = fields.model().unwrap_or(&self.asked);
        self.writer.set_completion(model, repeated);
    }

    fn shows(&mut self, out: &mut BytesMut, id: EventId) {
        self.begin(out);
        self.last_shown = id;
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.began, true) {
            self.writer.role(out);
        }
    }
}

/// Returns whether every chunk repeats a field of the completion, as OpenAI's do with short ones. A
/// long field is sent once.
fn is_repeated(name: &str, value: &Value) -> bool {
    const SHORT: usize = 128;

    name == "model"
        || match value {
            Value::String(text) => text.len() <= SHORT,
            Value::Array(_) | Value::Object(_) => false,
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
        }
}

/// Returns whether an event shows something to the client.
pub(crate) fn shows(data: &EventData) -> bool {
    match data {
        EventData::TextDelta(delta)
        | EventData::ReasoningDelta(delta)
        | EventData::RefusalDelta(delta) => !delta.text.is_empty(),
        EventData::ToolCallDelta(_) => true,
        EventData::AnswerField(field) => {
            matches!(field.of, AnswerPart::Message | AnswerPart::Choice)
        }
        _ => false,
    }
}

/// Returns the events of a batch that it does not withdraw itself. A batch read from the log may
/// hold a reset that withdraws others of its events, and those need not be shown first.
pub(crate) fn standing<'a>(batch: &'a [&'a Event]) -> impl Iterator<Item = &'a Event> {
    let resets = |event: &Event| match &event.data {
        EventData::AttemptReset(reset) if !reset.continues => Some(reset.resume_after),
        _ => None,
    };
    // The earliest event that any later reset returns to, from the back.
    let mut back_to: Option<EventId> = None;
    let mut stands = vec![true; batch.len()];
    for (event, stands) in batch.iter().zip(&mut stands).rev() {
        *stands = back_to.is_none_or(|id| event.id <= id)
            || matches!(event.data, EventData::AttemptReset(_));
        if let Some(id) = resets(event) {
            back_to = Some(back_to.map_or(id, |earlier| earlier.min(id)));
        }
    }
    batch
        .iter()
        .zip(stands)
        .filter_map(|(event, stands)| stands.then_some(*event))
}

#[cfg(test)]
mod tests;
