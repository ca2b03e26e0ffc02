//! The attempt's guarded writes, each repeated until the ledger has accepted or refused it.
//!
//! A short outage of the database must not lose a turn: the write is repeated for as long as the
//! lease may hold (the caller drops these futures when it no longer does). Every write is
//! repeatable, because a lost answer leaves open whether the write was made.

use std::time::Duration;

use baton_protocol::{EventId, Fence, Nanos, TurnRoute};
use baton_run_log::RecordedRuns as _;
use baton_store::{
    ApprovalRecord, AwaitOutcome, CallCommit, CompactionCommit, FenceError, FinishCommit, Finished,
    GivenCallsCommit, ParkCommit, ParkOutcome, PauseCommit, StepRecord, StoreError, TurnCommit,
    TurnGrant, TurnWish,
};
use chrono::{DateTime, Utc};

use crate::metrics;
use crate::runner::JobRunner;
use crate::world::{Ledger as _, World};

const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The ledger's refusal.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitError {
    /// The attempt no longer holds the run.
    #[error("the ledger holds a newer attempt")]
    Fenced,
    /// A message waits that the run must take before it ends.
    #[error("a message waits for the run")]
    InputsWait,
    /// The ledger refuses the write, however often it is repeated.
    #[error("the ledger refuses a commit")]
    Refused(#[source] StoreError),
}

/// Returns the result of a write; `None`, after a pause, if the write must be repeated.
async fn judge<T>(answer: Result<T, FenceError>) -> Result<Option<T>, CommitError> {
    match answer {
        Ok(done) => Ok(Some(done)),
        Err(FenceError::Lost) => {
            metrics::fenced_by_ledger();
            Err(CommitError::Fenced)
        }
        Err(FenceError::InputsWait) => Err(CommitError::InputsWait),
        Err(FenceError::Store(error)) if error.is_transient() => {
            tracing::warn!(%error, "the ledger did not take a commit yet");
            tokio::time::sleep(RETRY_AFTER).await;
            Ok(None)
        }
        Err(FenceError::Store(error)) => Err(CommitError::Refused(error)),
    }
}

/// A macro, because with a closure that lends its captures to the future that it returns, the
/// compiler cannot prove the future `Send`.
macro_rules! until_answered {
    ($write:expr) => {
        loop {
            if let Some(done) = judge($write.await).await? {
                return Ok(done);
            }
        }
    };
}

/// The ledger with the guard of one attempt.
pub(super) struct GuardedLedger<'a, W: World> {
    ledger: &'a W::Ledger,
    /// The attempt that guards each write.
    pub(super) fence: Fence,
    /// Whether the commit that ends or parks the run has begun.
    pub(super) is_ending: bool,
}

impl<'a, W: World> GuardedLedger<'a, W> {
    pub(super) const fn new(runner: &'a JobRunner<W>, fence: Fence) -> Self {
        Self {
            ledger: &runner.store,
            fence,
            is_ending: false,
        }
    }

    pub(super) async fn turn(
        &self,
        commit: &TurnCommit<'_>,
    ) -> Result<Vec<StepRecord>, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.commit_turn(fence, commit))
    }

    pub(super) async fn compaction(
        &self,
        commit: &CompactionCommit<'_>,
    ) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.commit_compaction(fence, commit))
    }

    pub(super) async fn begin_turn(
        &self,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.begin_turn(fence, step, wish))
    }

    pub(super) async fn await_budget(
        &self,
        wish: &TurnWish,
        last_event: EventId,
    ) -> Result<bool, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.await_budget(fence, wish, last_event))
    }

    pub(super) async fn lower_turn(
        &self,
        step: u32,
        tokens: u64,
        nanos: u64,
    ) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.lower_turn(fence, step, tokens, nanos))
    }

    pub(super) async fn route(&self, step: u32, route: &TurnRoute) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.record_route(fence, step, route))
    }

    /// Returns the cost of the run's recorded turns.
    pub(super) async fn run_cost(&self, accepted_at: DateTime<Utc>) -> Result<Nanos, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        loop {
            let cost = ledger.run_cost(fence.tenant, fence.run, accepted_at).await;
            if let Some(cost) = judge(cost.map_err(FenceError::Store)).await? {
                return Ok(cost);
            }
        }
    }

    /// Returns the questions that the run has asked.
    pub(super) async fn questions(&self) -> Result<Vec<ApprovalRecord>, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        loop {
            let asked = ledger.run_approvals(fence.tenant, fence.run).await;
            if let Some(asked) = judge(asked.map_err(FenceError::Store)).await? {
                return Ok(asked);
            }
        }
    }

    /// Returns the tools with a grant that holds in the run.
    pub(super) async fn granted_tools(&self) -> Result<Vec<String>, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        loop {
            let tools = ledger.granted_tools(fence.tenant, fence.run).await;
            if let Some(tools) = judge(tools.map_err(FenceError::Store)).await? {
                return Ok(tools);
            }
        }
    }

    /// Notes the event that shows that a message to the run was accepted.
    pub(super) async fn note_accepted(
        &self,
        position: u32,
        event: EventId,
    ) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        loop {
            let noted = ledger.note_accepted(fence, position, event).await;
            if judge(noted.map_err(FenceError::Store)).await?.is_some() {
                return Ok(());
            }
        }
    }

    pub(super) async fn begin_given_calls(
        &self,
        commit: &GivenCallsCommit<'_>,
    ) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.begin_given_calls(fence, commit))
    }

    pub(super) async fn start_call(&self, step: u32) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.start_call(fence, step))
    }

    pub(super) async fn pause_call(&self, commit: &PauseCommit<'_>) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.pause_call(fence, commit))
    }

    pub(super) async fn call(
        &self,
        commit: &CallCommit<'_>,
    ) -> Result<Vec<StepRecord>, CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.commit_call(fence, commit))
    }

    /// Ends the run; returns nothing, with nothing written, if a message waits that it must take before.
    pub(super) async fn finish(
        &mut self,
        commit: &FinishCommit<'_>,
    ) -> Result<Option<Finished>, CommitError> {
        self.is_ending = true;
        let (ledger, fence) = (self.ledger, &self.fence);
        loop {
            match judge(ledger.finish_run(fence, commit).await).await {
                Ok(Some(finished)) => return Ok(Some(finished)),
                Ok(None) => {}
                Err(CommitError::InputsWait) => {
                    self.is_ending = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn park(
        &mut self,
        commit: &ParkCommit<'_>,
    ) -> Result<ParkOutcome, CommitError> {
        self.is_ending = true;
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.park_run(fence, commit))
    }

    pub(super) async fn await_tasks(
        &mut self,
        last_event: EventId,
    ) -> Result<AwaitOutcome, CommitError> {
        self.is_ending = true;
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.await_tasks(fence, last_event))
    }

    pub(super) async fn hand_over(&self, last_event: EventId) -> Result<(), CommitError> {
        let (ledger, fence) = (self.ledger, &self.fence);
        until_answered!(ledger.hand_over(fence, last_event))
    }
}
