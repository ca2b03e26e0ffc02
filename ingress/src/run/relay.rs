//! Relays a run's events to one client.
//!
//! A relay is pulled: hyper asks the body for its next frame only while the client takes bytes, the
//! body asks the relay, the relay asks the follower. A slow client therefore delays nobody; the
//! events that it misses meanwhile are read from the stream later. There is no task per stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_nats::{EventFollower, FollowError, Followed};
use baton_protocol::{Event, EventData, EventId, RunId, RunStatus, TenantId};
use tokio_util::sync::CancellationToken;

use crate::access::Guard;
use crate::run::ledger::find_run;
use crate::run::reader::RunReader;

/// The time after which an event that is known to be stored counts as lost. A quiet follower reads
/// the log's last message every five seconds, whatever the heartbeat; this is twice that.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// The next item from a relay.
pub(crate) enum Heard {
    /// Events, in order, each exactly once over the relay's life.
    Events(Vec<Followed>),
    /// No event for one heartbeat interval.
    Quiet,
}

/// A reason for which a relay has no next event, although the run may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The next events are lost. If the run has ended, the ledger has its result.
    Lost,
    /// The run waits for a person: the last event asked the last question. The relay continues.
    Parked,
    /// This process is stopping.
    Stopping,
    /// The client's credential is no longer good.
    Revoked,
    /// The events cannot be read.
    Unreadable,
}

/// A follower of one run, on behalf of one client.
pub(crate) struct Relay {
    runs: Arc<RunReader>,
    tenant: TenantId,
    run: RunId,
    follower: EventFollower,
    stop: CancellationToken,
    credential: Guard,
    heartbeat: Duration,
    /// The time at which the run's terminal event was known to be stored without having arrived.
    told_at: Option<Instant>,
    worked: bool,
    /// The last event asked a person for a decision, which may have come since.
    asked: bool,
}

impl Relay {
    /// Creates a relay that ends with `stop`, or when the credential is no longer good.
    pub(super) fn new(
        runs: Arc<RunReader>,
        (tenant, run): (TenantId, RunId),
        follower: EventFollower,
        stop: CancellationToken,
        credential: Guard,
        heartbeat: Duration,
    ) -> Self {
        Self {
            runs,
            tenant,
            run,
            follower,
            stop,
            credential,
            heartbeat,
            told_at: None,
            worked: false,
            asked: false,
        }
    }

    pub(crate) fn runs(&self) -> &RunReader {
        &self.runs
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Returns the id of the last event passed on, or else the cursor.
    pub(crate) fn last_id(&self) -> EventId {
        self.follower.last_id()
    }

    /// Returns whether the run has done or shown anything so far, withdrawn or not, and so has a
    /// cost.
    pub(crate) fn has_worked(&self) -> bool {
        self.worked
    }

    /// Returns the next item. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Heard, Interruption> {
        if self.asked {
            // Boxed, as below: thousands of relays wait, and hardly one reads the ledger.
            let parked = Box::pin(self.is_parked()).await;
            self.asked = false;
            if parked {
                return Err(Interruption::Parked);
            }
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Interruption::Stopping),
            () = self.credential.ended() => return Err(Interruption::Revoked),
            batch = self.follower.next() => {
                self.told_at = None;
                let batch = batch.map_err(|error| interruption(&error))?;
                self.worked |= batch.iter().any(|followed| is_work(&followed.event.data));
                self.asked = batch.last().is_some_and(|last| {
                    matches!(
                        last.event.data,
                        EventData::ApprovalRequested(_) | EventData::BudgetReached(_)
                    )
                });
                return Ok(Heard::Events(batch));
            }
            () = tokio::time::sleep(self.heartbeat) => {}
        }
        if Box::pin(self.log_is_lost()).await {
            Err(Interruption::Lost)
        } else {
            Ok(Heard::Quiet)
        }
    }

    /// Passes events to `take` until it returns something.
    pub(crate) async fn find<T>(
        &mut self,
        mut take: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Interruption> {
        loop {
            if let Heard::Events(batch) = self.next().await?
                && let Some(found) = batch.iter().find_map(|followed| take(&followed.event))
            {
                return Ok(found);
            }
        }
    }

    /// Waits for the run's last event.
    pub(crate) async fn wait_for_end(&mut self) -> Result<(), Interruption> {
        self.find(|event| event.data.is_terminal().then_some(()))
            .await
    }

    /// Returns whether the run has ended with an event that the follower cannot find. Normally its
    /// worker is about to append it. If the worker died, this method appends it instead, so that no
    /// follower waits for a sweep or for the broker. The follower reads the log every few seconds,
    /// so an event that it does not find after that is lost.
    async fn log_is_lost(&mut self) -> bool {
        let ended = match find_run(&self.runs.store, self.tenant, self.run).await {
            Ok(record) => record.and_then(|record| record.ended()),
            Err(error) => {
                tracing::debug!(%error, run.id = %self.run, "a quiet run could not be looked at");
                return false;
            }
        };
        let Some(ended) = ended.filter(|ended| ended.last_event_id > self.follower.last_id())
        else {
            self.told_at = None;
            return false;
        };
        let now = self.runs.clock.monotonic();
        if let Some(told_at) = self.told_at {
            return now.duration_since(told_at) >= FOUND_WITHIN;
        }
        let (tenant, run) = (self.tenant, self.run);
        if self.runs.append_end(tenant, run, &ended).await {
            self.told_at = Some(now);
        }
        false
    }

    /// Returns whether the run is parked at this moment, and all of its questions have been passed on.
    /// If the ledger cannot be read, it counts as not parked, and the stream continues.
    async fn is_parked(&self) -> bool {
        let found = find_run(&self.runs.store, self.tenant, self.run).await;
        matches!(found, Ok(Some(run)) if run.status == RunStatus::AwaitingApproval
            && run.last_event_id <= self.last_id())
    }
}

fn interruption(error: &FollowError) -> Interruption {
    match error {
        FollowError::Expired { .. } => Interruption::Lost,
        FollowError::Unreadable(_) | FollowError::Closed => {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a run was lost sight of"
            );
            Interruption::Unreadable
        }
    }
}

fn is_work(data: &EventData) -> bool {
    match data {
        EventData::TextDelta(_)
        | EventData::ReasoningDelta(_)
        | EventData::RefusalDelta(_)
        | EventData::ToolCallDelta(_)
        | EventData::AnswerField(_)
        | EventData::ToolStarted(_)
        | EventData::ToolFinished(_)
        | EventData::ApprovalRequested(_)
        | EventData::BudgetReached(_)
        | EventData::InputAccepted(_)
        | EventData::InputApplied(_)
        | EventData::ContextCompacted(_)
        | EventData::Usage(_) => true,
        EventData::RunStarted(_)
        | EventData::AttemptReset(_)
        | EventData::RunCompleted(_)
        | EventData::RunFailed(_)
        | EventData::RunCancelled(_)
        | EventData::Unknown(_) => false,
    }
}
