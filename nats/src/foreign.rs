//! Drops, counts and occasionally logs messages that reached a consumer but were not for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics;

/// The time between two log lines about them.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// A part of the process that receives messages.
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
    /// Workers' hellos.
    Hellos,
    /// Questions of other ingresses.
    Attachments,
    /// Revoked credentials.
    Revocations,
    /// Servers' answers to the system account.
    System,
    /// Servers' questions about new connections.
    Connects,
    /// Submissions that operators take out of DEAD.
    Resubmissions,
    /// Changes of the log filter, and the answers to them.
    LogLevels,
    /// Ingresses' questions for descriptions of tools.
    Tools,
}

impl Consumer {
    /// The names of all of them.
    pub(crate) const NAMES: &[&str] = &[
        Self::Events.as_str(),
        Self::Log.as_str(),
        Self::Jobs.as_str(),
        Self::Nudges.as_str(),
        Self::Hellos.as_str(),
        Self::Attachments.as_str(),
        Self::Revocations.as_str(),
        Self::System.as_str(),
        Self::Connects.as_str(),
        Self::Resubmissions.as_str(),
        Self::LogLevels.as_str(),
        Self::Tools.as_str(),
    ];

    pub(crate) const fn as_str(self) -> &'static str {
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
            Self::LogLevels => "log_levels",
            Self::Tools => "tools",
        }
    }
}

/// The counter and log of one connection's foreign messages.
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
    /// Counts a message that came on this subject.
    pub(crate) fn drop_message(&self, consumer: Consumer, subject: &str) {
        self.drop_because(
            consumer,
            subject,
            "it came on a subject that was not subscribed to",
        );
    }

    /// Counts a message that is foreign for another reason.
    pub(crate) fn drop_because(&self, consumer: Consumer, subject: &str, reason: &'static str) {
        metrics::foreign(consumer);
        let Some(unlogged) = self.is_due(Instant::now()) else {
            return;
        };
        // A stranger may have written the subject: Debug escapes control characters for terminals.
        let shown = &subject[..subject.floor_char_boundary(128)];
        tracing::warn!(
            consumer = consumer.as_str(),
            subject = ?shown,
            reason,
            unlogged,
            "dropped a message that was not for this consumer"
        );
    }

    /// Returns the number of unlogged messages since the last line, if another line is due.
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
