//! Appends an attempt's events to the run's log, in order, and notices a successor.
//!
//! The first event is sent at once. Events that are pushed while an append is in flight go out
//! together in the next one. So there is one append in flight, and under load appends grow larger
//! instead of more frequent. Each append names the log's last position, so the broker itself
//! refuses a replaced worker.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use baton_nats::{AppendError, Bus, StoredEvents, StreamSeq};
use baton_protocol::{EventData, EventId, Fence};
use baton_service::Clock;
use baton_store::{ApprovalRecord, StepData, StepRecord};

use crate::append::{EventLogs, Failure, Message, Writer, append};
use crate::event_writer::{Append, EventWriter, Fate, Replaced};
use crate::parked_events::question_event;
use crate::replay::{accepted_event, commit_event};

/// The time between two tries of an append that may still succeed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The divisor of a log's limit for the reserve that ends the run, within bounds. Each active tool
/// call needs a message, the end one, and each further attempt one.
const SPARE_PART: u64 = 20;
const SPARE_LEAST: u64 = 32;
const SPARE_MOST: u64 = 1_000;

/// The reason why events can no longer be appended.
#[derive(Debug, thiserror::Error)]
pub enum PublishEventsError {
    /// A newer attempt has written to the log, so that this one is over.
    #[error(transparent)]
    Replaced(#[from] Replaced),
    /// The log refuses the append for another reason.
    #[error("the run's events cannot be stored")]
    Refused(#[source] AppendError),
}

type Appending = Pin<Box<dyn Future<Output = Result<StreamSeq, PublishEventsError>> + Send>>;

/// The writer of one attempt's events.
pub struct EventPublisher<L = Bus> {
    logs: L,
    clock: Arc<dyn Clock>,
    fence: Fence,
    writer: EventWriter,
    /// The event that the last commit names.
    recorded: EventId,
    /// The number of messages from which on the run must end.
    limit: u64,
    in_flight: Option<Appending>,
}

impl<L: EventLogs> EventPublisher<L> {
    /// Begins an attempt. The first attempt assumes an empty log; a later one reads the log's last
    /// message from the leader: see [`EventWriter::take_over`].
    pub async fn begin(
        logs: L,
        clock: Arc<dyn Clock>,
        fence: Fence,
        resume_after: EventId,
        last_commit: Vec<(u32, EventData)>,
    ) -> Result<Self, PublishEventsError> {
        let mut writer = EventWriter::new(&fence);
        if fence.attempt > 1 {
            let tip = loop {
                match logs.event_tip(fence.tenant, fence.run).await {
                    Ok(tip) => break tip,
                    Err(error) => {
                        tracing::debug!(%error, "the log's tip is not readable yet");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            };
            writer.take_over(tip.as_ref(), resume_after, last_commit)?;
            if tip.is_some() {
                let stored = loop {
                    match logs.count_events(fence.tenant, fence.run).await {
                        Ok(stored) => break stored,
                        Err(error) => {
                            tracing::debug!(%error, "the log is not readable yet");
                            tokio::time::sleep(RETRY_AFTER).await;
                        }
                    }
                };
                writer.count_from(stored);
            }
        }
        Ok(Self {
            logs,
            clock,
            fence,
            writer,
            recorded: resume_after,
            limit: u64::MAX,
            in_flight: None,
        })
    }

    /// Sets the limit for a stream that drops a run's oldest events beyond `most` messages.
    #[must_use]
    pub fn holding(self, most: u32) -> Self {
        let most = u64::from(most);
        let limit = most - (most / SPARE_PART).clamp(SPARE_LEAST, SPARE_MOST).min(most);
        Self { limit, ..self }
    }

    /// Returns whether the log holds so much that the run must end: there is still room for its
    /// end, and for a few more attempts at it.
    pub const fn is_at_limit(&self) -> bool {
        self.writer.messages() >= self.limit
    }

    /// Returns the id of the next pushed event, once nothing waits: see [`Self::settle`].
    pub const fn next_id(&self) -> EventId {
        self.writer.next_id()
    }

    /// Returns the last written event. All up to it are stored if nothing waits: see
    /// [`Self::settle`].
    pub const fn last_id(&self) -> EventId {
        self.writer.last_id()
    }

    /// Returns the last pushed event: see [`EventWriter::last_pushed`].
    pub fn last_pushed(&self) -> EventId {
        self.writer.last_pushed()
    }

    /// Sets the event that the last commit names.
    pub const fn recorded(&mut self, event: EventId) {
        self.recorded = event;
    }

    /// Returns the event that the last commit names.
    pub const fn last_recorded(&self) -> EventId {
        self.recorded
    }

    /// Returns the event after which another attempt may resume, if all events are stored.
    pub fn resume_point(&self) -> EventId {
        self.last_id().max(self.recorded)
    }

    /// Adds an event after the waiting ones: see [`EventWriter::push`].
    pub fn push(&mut self, step: u32, data: EventData) -> EventId {
        self.writer.push(step, data)
    }

    /// Returns whether so much text waits that the source should be read no further.
    pub const fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Returns whether an append is in flight, so that [`Self::advance`] has something to wait for.
    pub const fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Sends the waiting events, unless an append is in flight; then they will follow it.
    pub fn kick(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        if let Some(append) = self.writer.freeze(self.clock.now()) {
            self.in_flight = Some(Box::pin(store(self.logs.clone(), self.fence, append)));
        }
    }

    /// Waits for the append in flight, then sends the waiting events. Returns at once if there is
    /// none. Dropping the future loses nothing.
    pub async fn advance(&mut self) -> Result<(), PublishEventsError> {
        let Some(append) = self.in_flight.as_mut() else {
            return Ok(());
        };
        let result = append.await;
        self.in_flight = None;
        self.writer.stored(result?);
        self.kick();
        Ok(())
    }

    /// Waits until every event pushed so far is stored.
    pub async fn settle(&mut self) -> Result<(), PublishEventsError> {
        self.kick();
        while self.is_sending() {
            self.advance().await?;
        }
        Ok(())
    }
}

/// The holder's writer. It repeats one append until it is known to be stored or refused.
struct HoldersAppend {
    append: Append,
    /// Whether the lack of room was already logged.
    says_full: bool,
}

impl Writer for HoldersAppend {
    type Done = StreamSeq;
    type Error = PublishEventsError;

    fn message(&self) -> Option<Message> {
        Some(Message {
            after: self.append.position(),
            events: self.append.events(),
        })
    }

    /// The answer to an earlier try was lost, or another attempt has written.
    fn decide(
        &mut self,
        tip: Option<&StoredEvents>,
    ) -> ControlFlow<Result<StreamSeq, Self::Error>> {
        match self.append.after_refusal(tip) {
            Fate::Stored(at) => ControlFlow::Break(Ok(at)),
            Fate::Again => ControlFlow::Continue(()),
            Fate::Replaced => ControlFlow::Break(Err(Replaced.into())),
        }
    }

    fn stored(&self, at: StreamSeq) -> StreamSeq {
        at
    }

    fn after_failure(&mut self, failure: Failure) -> Result<Duration, Self::Error> {
        match failure {
            Failure::Append(error @ AppendError::Refused(_)) => {
                return Err(PublishEventsError::Refused(error));
            }
            // An operator makes room. If the run were requeued meanwhile, it would only be paid for
            // again, up to the same append.
            Failure::Append(AppendError::Full(reason)) => {
                if !std::mem::replace(&mut self.says_full, true) {
                    tracing::error!(reason, "the broker has no room for events; the run waits");
                }
            }
            // The scheduler makes a missing stream again.
            Failure::Append(_) | Failure::Tip(_) => {}
        }
        Ok(RETRY_AFTER)
    }
}

async fn store<L: EventLogs>(
    logs: L,
    fence: Fence,
    frozen: Append,
) -> Result<StreamSeq, PublishEventsError> {
    let writer = HoldersAppend {
        append: frozen,
        says_full: false,
    };
    append(&logs, fence.tenant, fence.run, writer).await
}

/// Returns the events that follow the commit which names `last`, the run's last event. A worker may
/// have died before it showed them. `asked` are the questions of all attempts.
pub fn shown_by_commit(
    steps: &[StepRecord],
    asked: &[ApprovalRecord],
    last: EventId,
) -> Vec<(u32, EventData)> {
    let at = |id: EventId| steps.iter().find(|step| step.last_event_id == Some(id));
    let Some(newest) = at(last) else {
        // An attempt does nothing after parking.
        return asked
            .iter()
            .filter(|approval| approval.attempt == last.attempt())
            .map(|approval| (approval.step, question_event(approval)))
            .collect();
    };
    let mut shown = Vec::new();
    let mut next = Some((newest, last));
    while let Some((step, id)) = next {
        shown.extend(commit_event(step).map(|event| (step.step, event)));
        // A commit's own event comes first, then those of the messages that it took.
        let mut before = EventId::from_u64(id.as_u64().saturating_sub(1));
        if let Some((_, accepted)) = accepted_event(step).filter(|(id, _)| *id == before) {
            shown.push((step.step, accepted));
            before = EventId::from_u64(before.as_u64().saturating_sub(1));
        }
        let taken = matches!(step.data, StepData::Input { .. });
        next = at(before).filter(|_| taken).map(|step| (step, before));
    }
    shown.reverse();
    shown
}

#[cfg(test)]
mod broker_tests;
