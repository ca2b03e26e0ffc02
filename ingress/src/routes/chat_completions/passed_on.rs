//! Gathers the fields of an upstream's answer that are passed on uninterpreted from a run's events.

use baton_openai::{AnswerFields, FieldOf};
use baton_protocol::event::{AnswerField, AnswerPart};
use baton_protocol::{Event, EventId};

/// A whole field of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) of: FieldOf,
    pub(crate) name: String,
    /// Its value, in the JSON that the upstream wrote.
    pub(crate) json: String,
}

/// A field that may arrive in several events.
#[derive(Debug, Default)]
pub(crate) struct FieldPieces(String);

impl FieldPieces {
    /// Takes a piece; returns the field if it was the last.
    pub(crate) fn take(&mut self, piece: &AnswerField) -> Option<Field> {
        self.0.push_str(&piece.json);
        if piece.more {
            return None;
        }
        Some(Field {
            of: match piece.of {
                AnswerPart::Message => FieldOf::Message,
                AnswerPart::Choice => FieldOf::Choice,
                AnswerPart::Completion => FieldOf::Completion,
                AnswerPart::Usage => FieldOf::Usage,
            },
            name: piece.name.clone(),
            json: std::mem::take(&mut self.0),
        })
    }

    /// Discards a field that is withdrawn before its last piece.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The fields of each step, with the last event that carried one, so that a step can be withdrawn.
#[derive(Debug, Default)]
pub(crate) struct FieldsOfSteps(Vec<(u32, EventId, AnswerFields)>);

impl FieldsOfSteps {
    pub(crate) fn add(&mut self, event: &Event, field: &Field) {
        let Field { of, name, json } = field;
        match self.0.last_mut() {
            Some((step, id, fields)) if *step == event.step => {
                *id = event.id;
                fields.add(*of, name, json);
            }
            _ => {
                let mut fields = AnswerFields::default();
                fields.add(*of, name, json);
                self.0.push((event.step, event.id, fields));
            }
        }
    }

    pub(crate) fn withdraw_beyond(&mut self, id: EventId) {
        self.0.retain(|(_, last, _)| *last <= id);
    }

    /// Returns the fields of all steps together.
    pub(crate) fn together(&self) -> AnswerFields {
        let mut together = AnswerFields::default();
        for (_, _, fields) in &self.0 {
            together.extend(fields.clone());
        }
        together
    }
}
