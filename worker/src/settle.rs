//! What the ledger's answer to a claim means for the job's message. Pure.

use std::time::Duration;

use baton_store::{ClaimOutcome, ClaimedRun, EndedRun, ParkedRun};

/// How long behind the end of another worker's lease a job comes again.
const BEHIND_LEASE: Duration = Duration::from_secs(1);

/// What to do with a job, once the ledger has answered the claim.
#[derive(Debug)]
pub enum Duty {
    /// Work on the run, and settle the message by what becomes of it.
    Work(Box<ClaimedRun>),
    /// Make sure that the run's terminal event is stored; only then acknowledge.
    TellEnd(EndedRun),
    /// Make sure that what a person is asked is stored; only then acknowledge.
    TellParked(ParkedRun),
    /// Let the message come again after a while: it is the run's only one, and its holder may be
    /// dead.
    ComeAgain(Duration),
    /// Acknowledge: nobody needs this message.
    Acknowledge,
}

impl From<ClaimOutcome> for Duty {
    fn from(outcome: ClaimOutcome) -> Self {
        match outcome {
            ClaimOutcome::Claimed(claimed) => Self::Work(claimed),
            ClaimOutcome::Ended(ended) => Self::TellEnd(ended),
            ClaimOutcome::Parked(parked) => Self::TellParked(parked),
            ClaimOutcome::Leased {
                remaining,
                same_job: true,
            } => Self::ComeAgain(remaining + BEHIND_LEASE),
            // A job of Baton's own names a row: without one there is nothing left to do. Or it is a
            // stray copy: the holder has a message of its own. Or the run waits for its thread:
            // whoever ends that wait publishes it.
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
            Duty::from(ClaimOutcome::Leased {
                remaining: Duration::from_secs(7),
                same_job,
            })
        };
        assert!(matches!(leased(true), Duty::ComeAgain(wait) if wait > Duration::from_secs(7)));
        assert!(matches!(leased(false), Duty::Acknowledge));
    }
}
