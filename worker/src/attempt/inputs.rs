//! Messages that clients send to the run while it works. The worker shows that they were accepted when
//! a renewal of the lease finds them. A commit takes them, and the worker shows that they are applied.
//!
//! The ledger notes the event that shows the acceptance, so that a later attempt shows it again only
//! if it was withdrawn. A commit may take a message that the worker has not heard of; then the ledger
//! has ids for both events, after that of the commit.

use std::collections::BTreeMap;

use baton_protocol::event::{InputAccepted, InputApplied};
use baton_protocol::{EventData, EventId, MessageId};
use baton_run_log::EventPublisher;
use baton_store::{StepData, StepRecord, WaitingInput};
use tokio::sync::watch;

use super::commit::{CommitError, GuardedLedger};
use super::conversation::Conversation;
use crate::metrics;
use crate::world::World;

/// The messages to the run, and the events that show their acceptance.
pub(super) struct Inputs {
    /// Those that waited at the last renewal of the lease.
    waiting: watch::Receiver<Vec<WaitingInput>>,
    /// The event that the attempt resumes after.
    resume_after: EventId,
    /// The events of this attempt that are not withdrawn.
    shown: BTreeMap<MessageId, EventId>,
}

impl Inputs {
    pub(super) const fn new(
        waiting: watch::Receiver<Vec<WaitingInput>>,
        resume_after: EventId,
    ) -> Self {
        Self {
            waiting,
            resume_after,
            shown: BTreeMap::new(),
        }
    }

    /// Waits for other messages than before. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        if self.waiting.changed().await.is_err() {
            // The keeper has let go of the lease: it stops the work.
            std::future::pending::<()>().await;
        }
    }

    /// Forgets the events after `resume_after`, which are withdrawn.
    pub(super) fn withdraw(&mut self, resume_after: EventId) {
        self.shown.retain(|_, event| *event <= resume_after);
    }

    /// Shows that the waiting messages were accepted, each of them once, as events of `step`. A log at its
    /// limit has no room for them: the run ends, and a commit that takes one shows it.
    pub(super) async fn show_accepted<W: World>(
        &mut self,
        step: u32,
        ledger: &GuardedLedger<'_, W>,
        publisher: &mut EventPublisher<W::Broker>,
    ) -> Result<(), CommitError> {
        let waiting = self.waiting.borrow_and_update().clone();
        for input in waiting {
            if publisher.is_at_limit() {
                break;
            }
            // An event of an earlier attempt is withdrawn if it comes after the one that this
            // attempt resumes after. Those of this attempt are in `shown`.
            let kept = input
                .accepted_event_id
                .is_some_and(|event| event <= self.resume_after);
            if kept || self.shown.contains_key(&input.id) {
                continue;
            }
            let event = publisher.push(step, accepted(input.id, input.position));
            self.shown.insert(input.id, event);
            publisher.kick();
            // Before any commit that records a later event: that commit makes this one stay.
            ledger.note_accepted(input.position, event).await?;
        }
        Ok(())
    }

    /// Adds the messages that a commit took to the conversation, and shows them after `last_event`,
    /// the event of the commit.
    pub(super) fn take<W: World>(
        &mut self,
        taken: Vec<StepRecord>,
        last_event: EventId,
        conversation: &mut Conversation,
        publisher: &mut EventPublisher<W::Broker>,
    ) {
        for input in taken {
            let StepData::Input {
                id,
                position,
                accepted_event_id,
            } = input.data
            else {
                continue;
            };
            let Some(message) = input.message else {
                continue;
            };
            let step = input.step;
            if accepted_event_id.is_some_and(|event| event > last_event) {
                let event = publisher.push(step, accepted(id, position));
                self.shown.insert(id, event);
            }
            conversation.put_input(step, message);
            let shown = EventData::InputApplied(InputApplied { id, step });
            let event = publisher.push(step, shown);
            publisher.recorded(event);
            metrics::input_applied();
            tracing::info!(message.id = %id, step, "a message to the run was applied");
        }
    }
}

const fn accepted(id: MessageId, position: u32) -> EventData {
    EventData::InputAccepted(InputAccepted { id, position })
}
