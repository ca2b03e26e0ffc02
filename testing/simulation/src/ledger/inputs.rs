//! Messages to runs that work: accepted, taken by a commit, or left to a run that has ended.

use baton_protocol::{EventId, Fence, MessageId, RunId};
use baton_store::{MOST_WAITING_INPUTS, StepData, StepRecord, WaitingInput};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Ledger, Row, State};
use crate::guard::Guard;
use crate::time::{Millis, date};

/// A message that a client sent to a run.
#[derive(Debug)]
pub(crate) struct SentInput {
    pub(crate) id: MessageId,
    /// The step that it became; 0 if it joined the input of a run that had not begun.
    pub(crate) step: Option<u32>,
    accepted_event: Option<EventId>,
}

impl SentInput {
    /// Returns the message.
    pub(crate) fn message(&self) -> Box<RawValue> {
        let message = json!({"role": "user", "content": self.id});
        to_raw_value(&message).unwrap_or_default()
    }
}

/// Returns the place of the message at this index.
fn position(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

impl Row {
    pub(super) fn waits_for_inputs(&self) -> bool {
        self.inputs.iter().any(|sent| sent.step.is_none())
    }

    /// Returns the waiting messages, as a renewal does.
    pub(super) fn waiting_inputs(&self) -> Vec<WaitingInput> {
        let sent = self.inputs.iter().enumerate();
        let waiting = sent.filter(|(_, sent)| sent.step.is_none());
        waiting
            .map(|(index, sent)| WaitingInput {
                id: sent.id,
                position: position(index),
                accepted_event_id: sent.accepted_event,
            })
            .collect()
    }

    /// Puts the waiting messages after the input of a run that begins.
    pub(super) fn begin_with_inputs(&mut self) {
        for sent in &mut self.inputs {
            sent.step = Some(0);
            self.input.push(sent.message());
        }
    }

    /// Forgets the events of waiting messages that a new attempt withdraws.
    pub(super) fn forget_withdrawn_inputs(&mut self, resume_after: EventId) {
        for sent in self.inputs.iter_mut().filter(|sent| sent.step.is_none()) {
            sent.accepted_event = sent.accepted_event.filter(|event| *event <= resume_after);
        }
    }

    /// Records the waiting messages as steps from `from` on, after the event of the commit. Returns
    /// them, and the last of their events. A repeated commit takes nothing else.
    pub(super) fn take_inputs(
        &mut self,
        from: Option<u32>,
        (attempt, committed): (u32, EventId),
        without: Option<Guard>,
        now: Millis,
    ) -> (Vec<StepRecord>, EventId) {
        let Some(from) = from else {
            return (Vec::new(), committed);
        };
        let mut last = committed;
        if self.inputs_step != Some(from) && self.waits_for_inputs() {
            self.inputs_step = Some(from);
            let mut step = from;
            let mut records = Vec::new();
            for (index, sent) in self.inputs.iter_mut().enumerate() {
                if sent.step.is_some() {
                    continue;
                }
                if sent.accepted_event.is_none() {
                    last = last.next();
                    sent.accepted_event = Some(last);
                }
                last = last.next();
                records.push(StepRecord {
                    step,
                    attempt,
                    data: StepData::Input {
                        id: sent.id,
                        position: position(index),
                        accepted_event_id: sent.accepted_event,
                    },
                    message: Some(sent.message()),
                    cut_message: None,
                    answer_fields: None,
                    started_event_id: None,
                    last_event_id: Some(last),
                    created_at: date(now),
                    finished_at: Some(date(now)),
                });
                if without != Some(Guard::InputTaken) {
                    sent.step = Some(step);
                }
                step += 1;
            }
            for record in records {
                self.insert(record, now);
            }
        }
        let is_taken = |record: &&StepRecord| {
            record.step >= from && matches!(record.data, StepData::Input { .. })
        };
        let taken: Vec<_> = self.steps.iter().filter(is_taken).cloned().collect();
        if self.inputs_step == Some(from) {
            (taken, last)
        } else {
            (Vec::new(), last)
        }
    }
}

impl Ledger {
    /// Accepts a message. Returns whether the run has it, which an ended run does not.
    pub(crate) fn send_input(&mut self, run: RunId, id: MessageId) -> bool {
        let Some(row) = self.rows.get_mut(&run) else {
            return false;
        };
        if row.inputs.iter().any(|sent| sent.id == id) {
            return true;
        }
        let waiting = row.inputs.iter().filter(|sent| sent.step.is_none()).count();
        let is_over = matches!(row.state, State::Ended(_)) || row.cancel.is_some();
        if is_over || waiting >= MOST_WAITING_INPUTS as usize {
            return false;
        }
        row.version += 1;
        row.inputs.push(SentInput {
            id,
            step: None,
            accepted_event: None,
        });
        true
    }

    /// Returns the worker that holds a run.
    pub(crate) fn holder(&self, run: RunId) -> Option<baton_protocol::WorkerId> {
        let row = self.rows.get(&run)?;
        row.worker
            .filter(|_| matches!(row.state, State::Running { .. }))
    }

    /// Notes the event that shows that a message was accepted.
    pub(crate) fn note_accepted(&mut self, fence: &Fence, at: u32, event: EventId) {
        let without = self.setup.without;
        let Ok((row, _)) = self.held(fence) else {
            return;
        };
        let index = at.saturating_sub(1) as usize;
        if let Some(sent) = row.inputs.get_mut(index)
            && sent.step.is_none()
            && sent.accepted_event.unwrap_or_default() < event
            && without != Some(Guard::AcceptedNote)
        {
            sent.accepted_event = Some(event);
        }
    }
}
