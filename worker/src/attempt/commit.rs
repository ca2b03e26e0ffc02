//! The attempt's guarded writes, each tried until the ledger has said yes or no.
//!
//! A database that is away for a moment is no reason to lose a turn: the write is repeated for as
//! long as the lease may hold (the caller drops these futures when it no longer does). Every write
//! is repeatable, because a lost answer does not tell whether it was made.

use std::time::Duration;

use baton_protocol::{EventId, Fence};
use baton_store::{
    CallCommit, FenceError, FinishCommit, Finished, ParkCommit, ParkOutcome, StoreError,
    TurnCommit, TurnGrant, TurnWish,
};

use crate::metrics;
use crate::runner::JobRunner;

const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The ledger's no.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitError {
    /// The attempt no longer holds the run.
    #[error("the ledger holds a newer attempt")]
    Fenced,
    /// The ledger does not take what was to be written, however often it is asked.
    #[error("the ledger refuses a commit")]
    Refused(#[source] StoreError),
}

/// What to do with an answer: go on, try again in a while (`None`), or give up.
async fn judge<T>(answer: Result<T, FenceError>) -> Result<Option<T>, CommitError> {
    match answer {
        Ok(done) => Ok(Some(done)),
        Err(FenceError::Lost) => {
            metrics::fenced_by_ledger();
            Err(CommitError::Fenced)
        }
        Err(FenceError::Store(error)) if error.is_transient() => {
            tracing::warn!(%error, "the ledger did not take a commit yet");
            tokio::time::sleep(RETRY_AFTER).await;
            Ok(None)
        }
        Err(FenceError::Store(error)) => Err(CommitError::Refused(error)),
    }
}

/// A macro, because a closure that lends its captures to the future it returns makes a future that
/// the compiler cannot show to be `Send`.
macro_rules! until_answered {
    ($write:expr) => {
        loop {
            if let Some(done) = judge($write.await).await? {
                return Ok(done);
            }
        }
    };
}

pub(super) async fn turn(
    runner: &JobRunner,
    fence: &Fence,
    commit: &TurnCommit<'_>,
) -> Result<(), CommitError> {
    let system = runner.store.system();
    until_answered!(system.commit_turn(fence, commit))
}

pub(super) async fn begin_turn(
    runner: &JobRunner,
    fence: &Fence,
    step: u32,
    wish: &TurnWish,
) -> Result<TurnGrant, CommitError> {
    let system = runner.store.system();
    until_answered!(system.begin_turn(fence, step, wish))
}

pub(super) async fn await_budget(
    runner: &JobRunner,
    fence: &Fence,
    wish: &TurnWish,
    last_event: EventId,
) -> Result<bool, CommitError> {
    let system = runner.store.system();
    until_answered!(system.await_budget(fence, wish, last_event))
}

pub(super) async fn lower_turn(
    runner: &JobRunner,
    fence: &Fence,
    step: u32,
    tokens: u64,
    nanos: u64,
) -> Result<(), CommitError> {
    let system = runner.store.system();
    until_answered!(system.lower_turn(fence, step, tokens, nanos))
}

pub(super) async fn start_call(
    runner: &JobRunner,
    fence: &Fence,
    step: u32,
) -> Result<(), CommitError> {
    let system = runner.store.system();
    until_answered!(system.start_call(fence, step))
}

pub(super) async fn call(
    runner: &JobRunner,
    fence: &Fence,
    commit: &CallCommit<'_>,
) -> Result<(), CommitError> {
    let system = runner.store.system();
    until_answered!(system.commit_call(fence, commit))
}

pub(super) async fn finish(
    runner: &JobRunner,
    fence: &Fence,
    commit: &FinishCommit<'_>,
) -> Result<Finished, CommitError> {
    let system = runner.store.system();
    until_answered!(system.finish_run(fence, commit))
}

pub(super) async fn park(
    runner: &JobRunner,
    fence: &Fence,
    commit: &ParkCommit<'_>,
) -> Result<ParkOutcome, CommitError> {
    let system = runner.store.system();
    until_answered!(system.park_run(fence, commit))
}

pub(super) async fn hand_over(
    runner: &JobRunner,
    fence: &Fence,
    last_event: EventId,
) -> Result<(), CommitError> {
    let system = runner.store.system();
    until_answered!(system.hand_over(fence, last_event))
}
