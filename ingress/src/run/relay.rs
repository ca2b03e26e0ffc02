//! From a run's events to whoever waits for them.
//!
//! A relay is pulled: hyper asks the body for its next frame only while the client takes bytes, the
//! body asks the relay, the relay asks the follower. A slow client therefore holds up nobody; what
//! it misses meanwhile is fetched from the stream when it reads on. There is no task per stream.

use std::time::{Duration, Instant};

use baton_nats::{EventFollower, FollowError, Followed};
use baton_protocol::{EventData, EventId, RunId, RunStatus, TenantId};
use baton_run_log::repair_end;
use baton_store::EndedRun;
use tokio_util::sync::CancellationToken;

use crate::access::Guard;
use crate::run::ledger::find_run;
use crate::state::AppState;

/// A follower that hears nothing looks at the log's last message every five seconds: twice that is
/// long enough to have found it, whatever the heartbeat.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

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
    /// The credential that it was opened with is not good any more.
    Revoked,
}

/// One run, followed on behalf of one client.
pub(crate) struct Relay {
    state: AppState,
    tenant: TenantId,
    run: RunId,
    follower: EventFollower,
    stop: CancellationToken,
    credential: Guard,
    /// When the run's terminal event was last known to be stored, and yet had not come.
    told_at: Option<Instant>,
    worked: bool,
    /// The last event heard asked a person for a decision, which may have come since.
    asked: bool,
}

impl Relay {
    /// Relays until `stop`, or until the credential is not good any more.
    pub(crate) fn new(
        state: AppState,
        tenant: TenantId,
        run: RunId,
        follower: EventFollower,
        stop: CancellationToken,
        credential: Guard,
    ) -> Self {
        Self {
            state,
            tenant,
            run,
            follower,
            stop,
            credential,
            told_at: None,
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

    /// The last event that was passed on, or the cursor that was resumed from.
    pub(crate) fn last_id(&self) -> EventId {
        self.follower.last_id()
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
            () = self.credential.ended() => return Ok(Heard::Revoked),
            batch = self.follower.next() => {
                self.told_at = None;
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

    /// Whether the run has ended with an event that the follower cannot find. Normally its worker
    /// is about to append it; one that died before is stood in for here, so that no follower has
    /// to wait for a sweep or for the broker's patience. What the follower does not find then,
    /// although it looks at the log every few seconds, is lost.
    async fn log_is_lost(&mut self) -> bool {
        let ended = match find_run(&self.state, self.tenant, self.run).await {
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
        let now = self.state.clock.monotonic();
        if let Some(told_at) = self.told_at {
            return now.duration_since(told_at) >= FOUND_WITHIN;
        }
        if tell_end(&self.state, self.tenant, self.run, &ended).await {
            self.told_at = Some(now);
        }
        false
    }

    /// Whether the run waits at this moment. If that cannot be told, the stream goes on.
    async fn is_parked(&self) -> bool {
        let found = find_run(&self.state, self.tenant, self.run).await;
        matches!(found, Ok(Some(run)) if run.status == RunStatus::AwaitingApproval)
    }
}

/// Sees to it that the last event of a run that has ended is stored; says whether it is.
pub(crate) async fn tell_end(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    ended: &EndedRun,
) -> bool {
    let now = state.clock.now();
    match repair_end(&state.bus, &state.store, now, tenant, run, ended).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, run.id = %run, "a run's end could not be told yet");
            false
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
        | EventData::Usage(_) => true,
        EventData::RunStarted(_)
        | EventData::AttemptReset(_)
        | EventData::RunCompleted(_)
        | EventData::RunFailed(_)
        | EventData::RunCancelled(_)
        | EventData::Unknown(_) => false,
    }
}
