//! The action that the ledger's answer to a claim asks for. Pure.

use std::time::Duration;

use baton_store::{ClaimOutcome, ClaimedRun, EndedRun, ParkedRun};

/// The time from the end of another worker's lease to the job's next delivery.
const AFTER_LEASE: Duration = Duration::from_secs(1);

/// The next action for a job after the ledger has answered its claim.
#[derive(Debug)]
pub enum JobAction {
    /// Work on the run, and settle the message by its ending.
    Work(Box<ClaimedRun>),
    /// Make sure that the run's terminal event is stored; only then acknowledge.
    RepairEnd(EndedRun),
    /// Make sure that the questions to a person are stored; only then acknowledge.
    RepairQuestions(ParkedRun),
    /// Let the message come again after a while: it is the run's only one, and its holder may be
    /// dead.
    ComeAgain(Duration),
    /// Acknowledge: nobody needs this message.
    Acknowledge,
}

impl From<ClaimOutcome> for JobAction {
    fn from(outcome: ClaimOutcome) -> Self {
        match outcome {
            ClaimOutcome::Claimed(claimed) => Self::Work(claimed),
            ClaimOutcome::Ended(ended) => Self::RepairEnd(ended),
            ClaimOutcome::Parked(parked) => Self::RepairQuestions(parked),
            ClaimOutcome::Leased {
                remaining,
                same_job: true,
            } => Self::ComeAgain(remaining + AFTER_LEASE),
            // Baton's own jobs name a row, so a job without one needs nothing more. Or the job is a
            // stray copy: the holder has a message of its own. Or the run waits for its thread, and
            // the end of that wait publishes its job.
            ClaimOutcome::Gone
            | ClaimOutcome::Leased {
                same_job: false, ..
            }
            | ClaimOutcome::Waiting => Self::Acknowledge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_that_the_holder_works_on_comes_again() {
        let leased = |same_job| {
            JobAction::from(ClaimOutcome::Leased {
                remaining: Duration::from_secs(7),
                same_job,
            })
        };
        assert!(
            matches!(leased(true), JobAction::ComeAgain(wait) if wait > Duration::from_secs(7))
        );
        assert!(matches!(leased(false), JobAction::Acknowledge));
    }
}
