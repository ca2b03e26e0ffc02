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
//!   resumed, nor is the acceptance of a message that the run did not take. Open questions are shown
//!   with their original ids.
//!
//! A cursor is accepted if it is one of those ids, because the events after it are then exactly
//! those that its holder has not seen. In the middle of a turn's deltas that is no longer known.

mod recorded_events;

use baton_protocol::event::{
    AttemptReset, ContextCompacted, InputAccepted, InputApplied, RunStarted, ToolFinished,
    shown_result,
};
use baton_protocol::{Event, EventData, EventId};
use baton_store::{ApprovalRecord, CallState, RunRecord, StepData, StepRecord};
use chrono::{DateTime, Utc};

use recorded_events::{Known, Said, known, last_known};

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
        StepData::Input { id, .. } => Some(EventData::InputApplied(InputApplied {
            id: *id,
            step: step.step,
        })),
        StepData::Compaction { usage } => Some(EventData::ContextCompacted(ContextCompacted {
            usage: *usage,
        })),
        StepData::Call { .. } | StepData::CutTurn { .. } => None,
    }
}

/// Returns the event that shows the acceptance of a message that the run took, and its id.
pub fn accepted_event(step: &StepRecord) -> Option<(EventId, EventData)> {
    match step.data {
        StepData::Input {
            id,
            position,
            accepted_event_id: Some(event),
        } => Some((
            event,
            EventData::InputAccepted(InputAccepted { id, position }),
        )),
        _ => None,
    }
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
        let Known {
            id,
            step,
            at,
            event,
            exact,
        } = known;
        // The first event of a later attempt is its reset. It withdraws nothing that is shown here.
        if id.attempt() > self.last().attempt().max(1) && id.n() > 1 {
            let reset = AttemptReset {
                resume_after: self.last(),
                continues: false,
            };
            let reset_id = EventId::new(id.attempt(), 1);
            self.push(reset_id, 0, at, EventData::AttemptReset(reset), false)?;
        }
        self.push(id, step, at, event, exact)
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

#[cfg(test)]
mod tests;
