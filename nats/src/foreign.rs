//! Messages that reached a consumer and were not for it: dropped, counted, and logged once in a
//! while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, describe_counter};
use tokio::time::Instant;

/// Messages that were dropped because they came on another subject, or are about another run or an
/// attempt that the ledger does not know; label `consumer`.
pub const FOREIGN: &str = "baton_bus_foreign_messages_total";
/// The time between two lines of the log about it.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// A part of the process that takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    /// Followers of runs.
    Events,
    /// Readers of stored events.
    Log,
    /// A lane's jobs.
    Jobs,
    /// A worker's nudges.
    Nudges,
    /// Workers that say hello.
    Hellos,
    /// Questions of other ingresses.
    Attachments,
    /// Credentials that ended.
    Revocations,
    /// Answers of servers to the system account.
    System,
    /// Questions of servers about who connects.
    Connects,
    /// Submissions that operators take out of DEAD.
    Resubmissions,
}

impl Consumer {
    const ALL: [Self; 10] = [
        Self::Events,
        Self::Log,
        Self::Jobs,
        Self::Nudges,
        Self::Hellos,
        Self::Attachments,
        Self::Revocations,
        Self::System,
        Self::Connects,
        Self::Resubmissions,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Log => "log",
            Self::Jobs => "jobs",
            Self::Nudges => "nudges",
            Self::Hellos => "hellos",
            Self::Attachments => "attachments",
            Self::Revocations => "revocations",
            Self::System => "system",
            Self::Connects => "connects",
            Self::Resubmissions => "resubmissions",
        }
    }
}

/// Counts and logs the foreign messages of one connection.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    logged: Mutex<Logged>,
}

#[derive(Debug, Default)]
struct Logged {
    at: Option<Instant>,
    unlogged: u64,
}

impl Foreign {
    /// Counts one that came on this subject.
    pub(crate) fn drop_message(&self, consumer: Consumer, subject: &str) {
        self.drop_because(
            consumer,
            subject,
            "it came on a subject that was not subscribed to",
        );
    }

    /// Counts one that is foreign for another reason.
    pub(crate) fn drop_because(&self, consumer: Consumer, subject: &str, reason: &'static str) {
        counter!(FOREIGN, "consumer" => consumer.as_str()).increment(1);
        let Some(unlogged) = self.is_due(Instant::now()) else {
            return;
        };
        // A stranger may have written the subject: Debug escapes what a terminal would obey.
        let shown = &subject[..subject.floor_char_boundary(128)];
        tracing::warn!(
            consumer = consumer.as_str(),
            subject = ?shown,
            reason,
            unlogged,
            "dropped a message that was not for this consumer"
        );
    }

    /// Returns the number of those that were not logged before this one, if it is time to log again.
    fn is_due(&self, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.at.is_some_and(|at| now < at + LOG_EVERY) {
            logged.unlogged += 1;
            return None;
        }
        logged.at = Some(now);
        Some(std::mem::take(&mut logged.unlogged))
    }
}

/// Attaches help, and creates every series with 0.
pub(crate) fn describe() {
    describe_counter!(
        FOREIGN,
        "Messages dropped because they were not for the consumer that they reached"
    );
    for consumer in Consumer::ALL {
        counter!(FOREIGN, "consumer" => consumer.as_str()).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_once_a_minute_with_its_number() {
        let foreign = Foreign::default();
        let start = Instant::now();
        assert_eq!(foreign.is_due(start), Some(0));
        for _ in 0..5 {
            assert_eq!(foreign.is_due(start + LOG_EVERY / 2), None);
        }
        assert_eq!(foreign.is_due(start + LOG_EVERY), Some(5));
    }
}
