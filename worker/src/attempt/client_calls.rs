//! Converts a model's answer into events for the client.

use baton_openai::AnswerFields;
use baton_protocol::EventData;
use baton_protocol::event::{AnswerField, AnswerPart, Text, ToolCallDelta};
use serde_json::value::{RawValue, to_raw_value};

use super::toolbox::Toolbox;
use crate::agent::CallSide;
use crate::model::{Delta, FieldOf};

/// The longest name of a field that is passed on, in bytes.
const MAX_NAME: usize = 256;

/// The calls and fields that a turn has shown: only calls of client tools, counted from zero.
pub(super) struct ClientCalls {
    /// The requested model.
    asked: String,
    /// By the upstream's index: the client's index, or nothing for a server-side call.
    seen: Vec<(u32, Option<u32>)>,
    shown: u32,
    /// The fields around the message; fields of the message are recorded with it.
    fields: AnswerFields,
}

impl ClientCalls {
    /// Makes the record of a turn that has shown nothing yet. `asked` is the requested model.
    pub(super) fn new(asked: &str) -> Self {
        Self {
            asked: asked.to_owned(),
            seen: Vec::new(),
            shown: 0,
            fields: AnswerFields::default(),
        }
    }

    /// Returns the event that shows a delta.
    pub(super) fn show(&mut self, delta: Delta, toolbox: &Toolbox) -> Option<EventData> {
        match delta {
            Delta::Text(text) => Some(EventData::TextDelta(Text { text })),
            Delta::Reasoning(text) => Some(EventData::ReasoningDelta(Text { text })),
            Delta::Refusal(text) => Some(EventData::RefusalDelta(Text { text })),
            Delta::Field { of, name, json } => self.pass_on(of, name, json),
            Delta::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                let known = self.seen.iter().find(|(upstream, _)| *upstream == index);
                let shown = if let Some((_, shown)) = known {
                    *shown
                } else {
                    let client = name
                        .as_deref()
                        .is_some_and(|name| toolbox.side(name) == CallSide::Client);
                    let shown = client.then_some(self.shown);
                    self.shown += u32::from(client);
                    self.seen.push((index, shown));
                    shown
                };
                let index = shown?;
                Some(EventData::ToolCallDelta(ToolCallDelta {
                    index,
                    id,
                    name,
                    arguments,
                }))
            }
        }
    }

    fn pass_on(&mut self, of: FieldOf, name: String, json: String) -> Option<EventData> {
        let is_known = of == FieldOf::Completion
            && name == "model"
            && serde_json::from_str::<String>(&json).is_ok_and(|model| model == self.asked);
        if is_known || name.len() > MAX_NAME {
            return None;
        }
        if of != FieldOf::Message {
            self.fields.add(of, &name, &json);
        }
        let of = match of {
            FieldOf::Message => AnswerPart::Message,
            FieldOf::Choice => AnswerPart::Choice,
            FieldOf::Completion => AnswerPart::Completion,
            FieldOf::Usage => AnswerPart::Usage,
        };
        Some(EventData::AnswerField(AnswerField {
            of,
            name,
            json,
            more: false,
        }))
    }

    /// Returns the shown fields around the message, to be recorded.
    pub(super) fn fields(&self) -> Option<Box<RawValue>> {
        (!self.fields.is_empty())
            .then(|| to_raw_value(&self.fields).ok())
            .flatten()
    }
}

/// Returns whether an event shows a part of the answer itself.
pub(super) fn is_answer(data: &EventData) -> bool {
    match data {
        EventData::TextDelta(_)
        | EventData::ReasoningDelta(_)
        | EventData::RefusalDelta(_)
        | EventData::ToolCallDelta(_) => true,
        EventData::AnswerField(field) => {
            matches!(field.of, AnswerPart::Message | AnswerPart::Choice)
        }
        _ => false,
    }
}
