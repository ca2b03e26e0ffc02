//! From a run's events to whoever waits for them.
//!
//! A relay is pulled: hyper asks the body for its next frame only while the client takes bytes, the
//! body asks the relay, the relay asks the follower. A slow client therefore holds up nobody; what
//! it misses meanwhile is fetched from the stream when it reads on. There is no task per stream.

use baton_nats::{EventFollower, FollowError, Followed};
use baton_protocol::{EventData, EventId, RunId, RunStatus, TenantId};
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

/// What a relay hears next.
pub(crate) enum Heard {
    /// Events, in order, each exactly once over the relay's life.
    Events(Vec<Followed>),
    /// The run waits for a person, who was asked by the last of the events heard. Told once.
    Parked,
    /// Nothing for as long as the heartbeat allows.
    Quiet,
    /// The run has ended, and its last events are nowhere to be had: the ledger knows the rest.
    LogLost,
    /// This process is stopping.
    Stopping,
}

/// One run, followed on behalf of one client.
pub(crate) struct Relay {
    state: AppState,
    tenant: TenantId,
    run: RunId,
    follower: EventFollower,
    stop: CancellationToken,
    /// The run had ended when it was last looked at, and yet its terminal event had not come.
    suspicious: bool,
    worked: bool,
    /// The last event heard asked a person for a decision, which may have come since.
    asked: bool,
}

impl Relay {
    /// Relays until `stop`.
    pub(crate) fn new(
        state: AppState,
        tenant: TenantId,
        run: RunId,
        follower: EventFollower,
        stop: CancellationToken,
    ) -> Self {
        Self {
            state,
            tenant,
            run,
            follower,
            stop,
            suspicious: false,
            worked: false,
            asked: false,
        }
    }

    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Whether the run has done or shown anything so far, withdrawn or not: it has cost something.
    pub(crate) fn has_worked(&self) -> bool {
        self.worked
    }

    /// The next that there is to tell. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Heard, FollowError> {
        if self.asked {
            let parked = self.is_parked().await;
            self.asked = false;
            if parked {
                return Ok(Heard::Parked);
            }
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Heard::Stopping),
            batch = self.follower.next() => {
                self.suspicious = false;
                let batch = batch?;
                self.worked |= batch.iter().any(|followed| is_work(&followed.event.data));
                self.asked = batch.last().is_some_and(|last| {
                    matches!(last.event.data, EventData::ApprovalRequested(_))
                });
                return Ok(Heard::Events(batch));
            }
            () = tokio::time::sleep(self.state.heartbeat) => {}
        }
        Ok(if self.log_is_lost().await {
            Heard::LogLost
        } else {
            Heard::Quiet
        })
    }

    /// Whether the ledger says, twice in a row with a heartbeat between, that the run has ended
    /// with an event that the follower has not found. Whoever ends a run appends its last event,
    /// and a sweep sees to it that somebody does; only a stream that was wiped stays silent.
    async fn log_is_lost(&mut self) -> bool {
        let ended = match self.last_event_of_ended_run().await {
            Ok(last) => last.is_some_and(|last| last > self.follower.last_id()),
            Err(error) => {
                tracing::debug!(%error, run.id = %self.run, "a quiet run could not be looked at");
                return false;
            }
        };
        ended && std::mem::replace(&mut self.suspicious, ended)
    }

    async fn last_event_of_ended_run(&self) -> Result<Option<EventId>, baton_store::StoreError> {
        let mut tx = self.state.store.tenant(self.tenant).await?;
        let run = tx.run(self.run).await?;
        Ok(run
            .filter(|run| run.status.is_terminal())
            .map(|run| run.last_event_id))
    }

    /// Whether the run waits at this moment. If that cannot be told, the stream goes on.
    async fn is_parked(&self) -> bool {
        let found = crate::ledger::find_run(&self.state, self.tenant, self.run).await;
        matches!(found, Ok(Some(run)) if run.status == RunStatus::AwaitingApproval)
    }
}

fn is_work(data: &EventData) -> bool {
    match data {
        EventData::TextDelta(_)
        | EventData::ReasoningDelta(_)
        | EventData::RefusalDelta(_)
        | EventData::ToolCallDelta(_)
        | EventData::ToolStarted(_)
        | EventData::ToolFinished(_)
        | EventData::ApprovalRequested(_)
        | EventData::Usage(_) => true,
        EventData::RunStarted(_)
        | EventData::AttemptReset(_)
        | EventData::RunCompleted(_)
        | EventData::RunFailed(_)
        | EventData::RunCancelled(_)
        | EventData::Unknown(_) => false,
    }
}
