//! Judges the events of messages to a run (I24): `input.accepted`, then `input.applied`, each once after all
//! resets.

use baton_invariants::Invariant;
use baton_protocol::{Event, EventData, EventId, MessageId, RunStatus};

use super::{SentMessage, TalkRun};
use crate::checker::judgement::Judgement;

/// The events of messages that no reset withdrew.
#[derive(Debug, Default)]
struct Shown {
    accepted: Vec<(EventId, MessageId)>,
    applied: Vec<(EventId, MessageId, u32)>,
}

impl Shown {
    fn of(events: &[Event]) -> Self {
        let mut shown = Self::default();
        for event in events {
            match &event.data {
                EventData::InputAccepted(input) => shown.accepted.push((event.id, input.id)),
                EventData::InputApplied(input) => {
                    shown.applied.push((event.id, input.id, input.step));
                }
                EventData::AttemptReset(reset) => {
                    shown.accepted.retain(|(id, _)| *id <= reset.resume_after);
                    shown.applied.retain(|(id, ..)| *id <= reset.resume_after);
                }
                _ => {}
            }
        }
        shown
    }

    /// Returns what is wrong with the events of a message. A run that ended without an answer may have been
    /// ended by another process, after its last commit and before the events that this commit names.
    fn fault(&self, sent: &SentMessage, status: RunStatus) -> Option<&'static str> {
        let accepted = self.accepted.iter().filter(|(_, id)| *id == sent.id);
        let accepted: Vec<EventId> = accepted.map(|(id, _)| *id).collect();
        let applied = self.applied.iter().filter(|(_, id, _)| *id == sent.id);
        let applied: Vec<(EventId, u32)> = applied.map(|(id, _, step)| (*id, *step)).collect();
        match (&*accepted, &*applied, sent.step) {
            ([], [], Some(0)) | ([] | [_], [], None) => None,
            ([accepted], [(applied, shown)], Some(step)) if step > 0 => {
                let in_order = accepted < applied && *shown == step;
                (!in_order).then_some("is shown as applied first, or at another step")
            }
            ([] | [_], [], Some(_)) if status != RunStatus::Completed => None,
            (_, _, Some(_)) => Some("is applied, and not shown as that once"),
            (_, _, None) => Some("is shown as applied, or accepted twice, and is not applied"),
        }
    }
}

/// Judges the whole log of a run.
pub(super) fn judge(run: &TalkRun, events: &[Event], judgement: &mut Judgement) {
    let shown = Shown::of(events);
    for sent in &run.sent {
        if let Some(found) = shown.fault(sent, run.status) {
            let found = format!("the message `{}` {found}", sent.text);
            judgement.accuse(Invariant::I24, Some(run.id), found);
        }
    }
    let is_sent = |id: &MessageId| run.sent.iter().any(|sent| sent.id == *id);
    for (_, id, _) in shown.applied.iter().filter(|(_, id, _)| !is_sent(id)) {
        let found = format!("shows the message {id} as applied, and was not sent it");
        judgement.accuse(Invariant::I24, Some(run.id), found);
    }
}
