//! The events that the ledger's records of a run contain, each with its id.

use std::collections::BTreeMap;

use baton_openai::AnswerFields;
use baton_protocol::event::{
    AnswerField, AnswerPart, MAX_TEXT, Text, ToolCallDelta, ToolStarted, shown_arguments,
};
use baton_protocol::{EventData, EventId, RunSpec, RunStatus};
use baton_store::{ApprovalRecord, ParkedRun, RunRecord, StepData, StepRecord};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{ReplayError, accepted_event, commit_event};
use crate::parked_events::{question_event, questions};
use crate::terminal_event::terminal_event;

/// An event of the replay.
pub(super) struct Known {
    pub(super) id: EventId,
    pub(super) step: u32,
    pub(super) at: DateTime<Utc>,
    pub(super) event: EventData,
    /// Whether its id identifies exactly the events that were seen.
    pub(super) exact: bool,
}

/// Returns the events of the recorded steps, in no order.
pub(super) fn known(run: &RunRecord, steps: &[StepRecord]) -> Result<Vec<Known>, ReplayError> {
    let client_tools = client_tools(run)?;
    let mut known = KnownSteps {
        events: Vec::with_capacity(steps.len() * 2 + 1),
        last: EventId::ORIGIN,
        accepted: steps.iter().filter_map(accepted_event).collect(),
        turns: Vec::new(),
    };
    let last_step = steps.last().map_or(0, |last| last.step);
    for step in steps {
        let Some(id) = step.last_event_id else {
            continue;
        };
        match &step.data {
            // Only a turn with calls, or one that a message follows, does not end its run.
            StepData::Turn { usage, .. } if step.step != last_step => {
                let deltas = deltas(step, step.message.as_deref(), &client_tools)?;
                let last = EventId::from_u64(id.as_u64() - 1);
                known.deltas(step, last, deltas)?;
                known.push(step, id, EventData::Usage(*usage));
            }
            StepData::Turn { .. } | StepData::CutTurn { .. } => {
                let message = step.message.as_deref().or(step.cut_message.as_deref());
                let deltas = deltas(step, message, &client_tools)?;
                known.deltas(step, id, deltas)?;
            }
            StepData::Input { .. } | StepData::Compaction { .. } => {
                if let Some(event) = commit_event(step) {
                    known.push(step, id, event);
                }
            }
            StepData::Call {
                call_id,
                name,
                arguments,
                edited_arguments,
                ..
            } => {
                if let Some(started) = step.started_event_id {
                    let made_with = edited_arguments.as_ref().unwrap_or(arguments);
                    let event = ToolStarted {
                        call_id: call_id.clone(),
                        name: name.clone(),
                        arguments: shown_arguments(made_with).to_owned(),
                        edited: edited_arguments.is_some(),
                    };
                    known.push(step, started, EventData::ToolStarted(event));
                }
                if let Some(event) = commit_event(step) {
                    known.push(step, id, event);
                }
            }
        }
    }
    for step in steps {
        if let Some((id, event)) = accepted_event(step) {
            let exact = !known.is_within_turn(id);
            let step_then = known.step_at(id);
            known.events.push(Known {
                id,
                step: step_then,
                at: step.created_at,
                event,
                exact,
            });
        }
    }
    Ok(known.events)
}

/// The events of recorded steps, under construction.
struct KnownSteps {
    events: Vec<Known>,
    /// The last of them.
    last: EventId,
    /// The acceptances of messages, which may lie between the deltas of a turn.
    accepted: BTreeMap<EventId, EventData>,
    /// The first possible and the last delta of each turn that has some.
    turns: Vec<(EventId, EventId)>,
}

impl KnownSteps {
    fn push(&mut self, step: &StepRecord, id: EventId, event: EventData) {
        self.last = self.last.max(id);
        self.events.push(Known {
            id,
            step: step.step,
            at: step.finished_at.unwrap_or(step.created_at),
            event,
            exact: true,
        });
    }

    /// Pushes the deltas of a turn: the last one gets the id `last`, the others those just before it,
    /// except for those of other events.
    fn deltas(
        &mut self,
        step: &StepRecord,
        last: EventId,
        deltas: Vec<EventData>,
    ) -> Result<(), ReplayError> {
        let first = self.last.next();
        let mut id = last.next();
        let mut exact = true;
        for event in deltas.into_iter().rev() {
            id = EventId::from_u64(id.as_u64().saturating_sub(1));
            while self.accepted.contains_key(&id) {
                id = EventId::from_u64(id.as_u64().saturating_sub(1));
            }
            if id < first || id.n() < 2 {
                return Err(ReplayError::NoRoom(last));
            }
            if exact {
                self.turns.push((first, id));
            }
            self.push(step, id, event);
            if let Some(pushed) = self.events.last_mut() {
                pushed.exact = exact;
            }
            exact = false;
        }
        Ok(())
    }

    /// Returns whether an event lies between the deltas of a turn, which the replay joins.
    fn is_within_turn(&self, id: EventId) -> bool {
        let mut turns = self.turns.iter();
        turns.any(|(first, last)| (*first..*last).contains(&id))
    }

    /// Returns the step of the event after this one.
    fn step_at(&self, id: EventId) -> u32 {
        let later = self.events.iter().filter(|known| known.id > id);
        let next = later.min_by_key(|known| known.id);
        next.map_or(0, |known| known.step)
    }
}

/// Returns the events after all steps: the run's end, or its open questions.
pub(super) fn last_known(
    run: &RunRecord,
    steps: &[StepRecord],
    asked: Option<&[ApprovalRecord]>,
) -> Result<Vec<Known>, ReplayError> {
    if let Some(outcome) = &run.outcome {
        let end = terminal_event(outcome, run.usage, run.cancel_latency);
        return Ok(vec![Known {
            id: run.last_event_id,
            step: end_step(steps),
            at: run.finished_at.unwrap_or(run.created_at),
            event: end,
            exact: true,
        }]);
    }
    let Some(asked) = asked.filter(|_| run.status == RunStatus::AwaitingApproval) else {
        return Err(ReplayError::NotEnded);
    };
    let parked = ParkedRun {
        attempt: run.attempt,
        last_event_id: run.last_event_id,
    };
    let question = |(id, approval): (EventId, &ApprovalRecord)| Known {
        id,
        step: approval.step,
        at: approval.created_at,
        event: question_event(approval),
        exact: true,
    };
    Ok(questions(parked, asked).map(question).collect())
}

/// Returns the step of a run's end: its last turn if nothing follows that, else the step after the
/// last.
fn end_step(steps: &[StepRecord]) -> u32 {
    match steps.last() {
        Some(last)
            if last.last_event_id.is_some()
                && matches!(last.data, StepData::Turn { .. } | StepData::CutTurn { .. }) =>
        {
            last.step
        }
        last => last.map_or(0, |last| last.step) + 1,
    }
}

fn client_tools(run: &RunRecord) -> Result<Vec<String>, serde_json::Error> {
    let spec: RunSpec = serde_json::from_str(&run.spec_json)?;
    Ok(spec.client_tools())
}

/// Returns a turn with this message as few deltas, without calls of the server's tools.
fn deltas(
    step: &StepRecord,
    message: Option<&RawValue>,
    client_tools: &[String],
) -> Result<Vec<EventData>, serde_json::Error> {
    let Some(message) = message else {
        return Ok(Vec::new());
    };
    let said: Said = serde_json::from_str(message.get())?;
    let around: AnswerFields = match step.answer_fields.as_deref() {
        Some(fields) => serde_json::from_str(fields.get())?,
        None => AnswerFields::default(),
    };
    let mut deltas = Vec::new();
    fields(&mut deltas, AnswerPart::Completion, around.completion);
    let mut texts = |text: &str, delta: fn(Text) -> EventData| {
        deltas.extend(pieces(text).map(|text| delta(Text { text: text.into() })));
    };
    let reasoning = said.reasoning_content.as_deref();
    texts(reasoning.unwrap_or_default(), EventData::ReasoningDelta);
    texts(said.text(), EventData::TextDelta);
    let refusal = said.refusal.as_deref();
    texts(refusal.unwrap_or_default(), EventData::RefusalDelta);
    let calls = said.tool_calls.into_iter().flatten();
    let calls = calls.filter_map(|call| Some((call.id, call.function?)));
    let shown = calls.filter(|(_, function)| client_tools.contains(&function.name));
    for (index, (id, function)) in (0..).zip(shown) {
        let mut arguments = pieces(&function.arguments);
        let mut fragment = |id, name, arguments: &str| {
            deltas.push(EventData::ToolCallDelta(ToolCallDelta {
                index,
                id,
                name,
                arguments: arguments.to_owned(),
            }));
        };
        let first = arguments.next().unwrap_or_default();
        fragment(Some(id), Some(function.name.clone()), first);
        for more in arguments {
            fragment(None, None, more);
        }
    }
    let mut passed_on = said.rest;
    passed_on.remove("role");
    fields(&mut deltas, AnswerPart::Message, passed_on);
    fields(&mut deltas, AnswerPart::Choice, around.choice);
    fields(&mut deltas, AnswerPart::Usage, around.usage);
    Ok(deltas)
}

/// Pushes fields that are passed on, each in as many events as it needs.
fn fields(deltas: &mut Vec<EventData>, of: AnswerPart, fields: Map<String, Value>) {
    for (name, value) in fields {
        let json = value.to_string();
        let mut pieces = pieces(&json).peekable();
        while let Some(piece) = pieces.next() {
            deltas.push(EventData::AnswerField(AnswerField {
                of,
                name: name.clone(),
                json: piece.to_owned(),
                more: pieces.peek().is_some(),
            }));
        }
    }
}

/// Splits a text into pieces that fit an event; an empty text has no piece.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(MAX_TEXT));
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The visible parts of a recorded message.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    content: Value,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<SaidCall>>,
    /// The role, and the fields that are passed on unread.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct SaidCall {
    #[serde(default)]
    id: String,
    function: Option<SaidFunction>,
}

#[derive(Debug, Deserialize)]
struct SaidFunction {
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: String,
}

impl Said {
    pub(super) fn text(&self) -> &str {
        self.content.as_str().unwrap_or_default()
    }
}
