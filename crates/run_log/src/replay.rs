//! Rebuilds the events of an ended or parked run from the ledger, for followers that come after the
//! stream's retention, or after its loss.
//!
//! The ledger has no events, but their sums, and the ids at which each step ends. So a replay shows
//! the same text, calls and end, in fewer pieces:
//!
//! - Each single event (a call's start and end, a turn's tokens, the run's end) has its original id.
//!   Deltas are joined, and the last of a turn has the id of the original last one. Ids strictly
//!   increase, and each event names its predecessor in the replay.
//! - Withdrawn events are not shown at all, nor are decided approval requests of a run that has
//!   resumed. Open questions are shown with their original ids.
//!
//! A cursor is accepted if it is one of those ids, because the events after it are then exactly
//! those that its holder has not seen. In the middle of a turn's deltas that is no longer known.

use baton_openai::AnswerFields;
use baton_protocol::event::{
    AnswerField, AnswerPart, AttemptReset, ContextCompacted, InputApplied, MAX_TEXT, RunStarted,
    Text, ToolCallDelta, ToolFinished, ToolStarted, shown_arguments, shown_result,
};
use baton_protocol::{Event, EventData, EventId, RunSpec, RunStatus};
use baton_store::{ApprovalRecord, CallState, ParkedRun, RunRecord, StepData, StepRecord};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::parked_events::{question_event, questions};
use crate::terminal_event::terminal_event;

/// A reason for which there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The run has neither ended nor parked: its events are still to come.
    #[error("the run has not ended, and waits for nobody")]
    NotEnded,
    /// The ledger does not know the cursor: it is within a step, or never was an event.
    #[error("the ledger does not know the event {0}")]
    CursorUnknown(EventId),
    /// A recorded message or request cannot be read.
    #[error("the ledger holds something that cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// The recorded ids leave too few for the recorded content between them.
    #[error("the recorded event {0} leaves no room for those before it")]
    NoRoom(EventId),
}

/// Returns the events of an ended run, from after `after` to the terminal one.
pub fn replay(
    run: &RunRecord,
    steps: &[StepRecord],
    after: EventId,
) -> Result<Vec<Event>, ReplayError> {
    behind(Replay::new(run, steps, None)?, after)
}

/// Returns the events of a parked run, from after `after` to its last question; `asked` are all
/// questions of the run, in order. Later events come from the stream.
pub fn replay_parked(
    run: &RunRecord,
    steps: &[StepRecord],
    asked: &[ApprovalRecord],
    after: EventId,
) -> Result<Vec<Event>, ReplayError> {
    behind(Replay::new(run, steps, Some(asked))?, after)
}

fn behind(mut replay: Replay<'_>, after: EventId) -> Result<Vec<Event>, ReplayError> {
    if after == EventId::ORIGIN {
        return Ok(replay.events);
    }
    let at = replay
        .events
        .iter()
        .position(|event| event.id == after)
        .filter(|at| replay.exact[*at])
        .ok_or(ReplayError::CursorUnknown(after))?;
    Ok(replay.events.split_off(at + 1))
}

/// Returns the event that follows the commit of a finished step; `None` for a turn that ended its
/// run.
pub fn commit_event(step: &StepRecord) -> Option<EventData> {
    match &step.data {
        StepData::Turn { usage, .. } => Some(EventData::Usage(*usage)),
        StepData::Call {
            call_id,
            name,
            state: CallState::Finished {
                ok, duration_ms, ..
            },
            ..
        } => {
            let message: Said = step
                .message
                .as_deref()
                .and_then(|message| serde_json::from_str(message.get()).ok())
                .unwrap_or_default();
            Some(EventData::ToolFinished(ToolFinished {
                call_id: call_id.clone(),
                name: name.clone(),
                ok: *ok,
                result: shown_result(message.text()).to_owned(),
                duration_ms: *duration_ms,
            }))
        }
        StepData::Input { id } => Some(EventData::InputApplied(InputApplied {
            id: *id,
            step: step.step,
        })),
        StepData::Compaction { usage } => Some(EventData::ContextCompacted(ContextCompacted {
            usage: *usage,
        })),
        StepData::Call { .. } | StepData::CutTurn { .. } => None,
    }
}

/// The visible parts of a recorded message.
#[derive(Debug, Default, Deserialize)]
struct Said {
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
    fn text(&self) -> &str {
        self.content.as_str().unwrap_or_default()
    }
}

/// An event or a group of deltas with an id that the ledger knows.
struct Known {
    id: EventId,
    step: u32,
    at: DateTime<Utc>,
    what: What,
}

enum What {
    /// The event itself.
    Event(EventData),
    /// The end of a turn; the last delta has this id.
    LastDelta(Vec<EventData>),
    /// The commit event of a turn; its deltas end just before it.
    BehindDeltas(Vec<EventData>, EventData),
}

/// A replay under construction.
struct Replay<'a> {
    run: &'a RunRecord,
    events: Vec<Event>,
    /// Whether each event's id identifies exactly the events that were seen.
    exact: Vec<bool>,
}

impl<'a> Replay<'a> {
    fn new(
        run: &'a RunRecord,
        steps: &[StepRecord],
        asked: Option<&[ApprovalRecord]>,
    ) -> Result<Self, ReplayError> {
        let mut known = known(run, steps)?;
        known.extend(last_known(run, steps, asked)?);
        known.sort_by_key(|known| known.id);
        let mut replay = Self {
            run,
            events: Vec::with_capacity(known.len() * 2),
            exact: Vec::with_capacity(known.len() * 2),
        };
        if let Some(first) = known.first()
            && first.id.attempt() == 1
            && first.id.n() > 1
        {
            let (model, agent) = (run.model.clone(), run.agent.name.clone());
            let at = run.started_at.unwrap_or(run.created_at);
            let started = EventData::RunStarted(RunStarted { model, agent });
            replay.push(EventId::new(1, 1), 0, at, started, true)?;
        }
        for known in known {
            replay.take(known)?;
        }
        Ok(replay)
    }

    fn last(&self) -> EventId {
        self.events.last().map_or(EventId::ORIGIN, |last| last.id)
    }

    fn take(&mut self, known: Known) -> Result<(), ReplayError> {
        let Known { id, step, at, what } = known;
        // The first event of a later attempt is its reset. It withdraws nothing that is shown here.
        if id.attempt() > self.last().attempt().max(1) && id.n() > 1 {
            let reset = AttemptReset {
                resume_after: self.last(),
                continues: false,
            };
            let reset_id = EventId::new(id.attempt(), 1);
            self.push(reset_id, 0, at, EventData::AttemptReset(reset), false)?;
        }
        match what {
            What::Event(event) => self.push(id, step, at, event, true),
            What::LastDelta(deltas) => self.deltas(id, step, at, deltas),
            What::BehindDeltas(deltas, event) => {
                if !deltas.is_empty() {
                    let last = EventId::from_u64(id.as_u64() - 1);
                    self.deltas(last, step, at, deltas)?;
                }
                self.push(id, step, at, event, true)
            }
        }
    }

    /// Pushes deltas: the last one gets this id, the others the ids just before it.
    fn deltas(
        &mut self,
        last: EventId,
        step: u32,
        at: DateTime<Utc>,
        deltas: Vec<EventData>,
    ) -> Result<(), ReplayError> {
        let mut left = u64::try_from(deltas.len()).unwrap_or(u64::MAX);
        for delta in deltas {
            left -= 1;
            let id = EventId::from_u64(last.as_u64().saturating_sub(left));
            self.push(id, step, at, delta, left == 0)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        id: EventId,
        step: u32,
        at: DateTime<Utc>,
        data: EventData,
        exact: bool,
    ) -> Result<(), ReplayError> {
        let prev = self.last();
        if id <= prev {
            return Err(ReplayError::NoRoom(id));
        }
        self.events.push(Event {
            id,
            prev,
            run_id: self.run.id,
            step,
            at,
            data,
        });
        self.exact.push(exact);
        Ok(())
    }
}

/// Returns everything with an id that the ledger knows, in no order.
fn known(run: &RunRecord, steps: &[StepRecord]) -> Result<Vec<Known>, ReplayError> {
    let client_tools = client_tools(run)?;
    let mut known = Vec::with_capacity(steps.len() * 2 + 1);
    let last_step = steps.last().map_or(0, |last| last.step);
    for step in steps {
        let Some(id) = step.last_event_id else {
            continue;
        };
        let at = step.finished_at.unwrap_or(step.created_at);
        let mut push = |id, what| {
            known.push(Known {
                id,
                step: step.step,
                at,
                what,
            });
        };
        match &step.data {
            // Only a turn with calls, or one that a message follows, does not end its run.
            StepData::Turn { usage, .. } if step.step != last_step => {
                let deltas = deltas(step, step.message.as_deref(), &client_tools)?;
                push(id, What::BehindDeltas(deltas, EventData::Usage(*usage)));
            }
            StepData::Turn { .. } | StepData::CutTurn { .. } => {
                let message = step.message.as_deref().or(step.cut_message.as_deref());
                let deltas = deltas(step, message, &client_tools)?;
                if !deltas.is_empty() {
                    push(id, What::LastDelta(deltas));
                }
            }
            StepData::Input { .. } | StepData::Compaction { .. } => {
                if let Some(event) = commit_event(step) {
                    push(id, What::Event(event));
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
                    push(started, What::Event(EventData::ToolStarted(event)));
                }
                if let Some(event) = commit_event(step) {
                    push(id, What::Event(event));
                }
            }
        }
    }
    Ok(known)
}

/// Returns the events after all steps: the run's end, or its open questions.
fn last_known(
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
            what: What::Event(end),
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
        what: What::Event(question_event(approval)),
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

#[cfg(test)]
mod tests;
