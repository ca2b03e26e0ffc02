//! The log line of a run that has ended.

use std::time::Duration;

use baton_protocol::{Charge, Outcome, Usage};
use baton_service::Clock;
use baton_store::ClaimedRun;
use chrono::{DateTime, Utc};

/// The work of one attempt, for the run's log line.
#[derive(Debug)]
pub(super) struct Tally {
    created_at: DateTime<Utc>,
    queue_wait: Duration,
    turns: u32,
    tool_calls: u32,
    cost_nanos: u64,
    first_token: Option<Duration>,
}

impl Tally {
    pub(super) fn of(claimed: &ClaimedRun) -> Self {
        Self {
            created_at: claimed.created_at,
            queue_wait: (claimed.started_at - claimed.queued_at)
                .to_std()
                .unwrap_or_default(),
            turns: 0,
            tool_calls: 0,
            cost_nanos: 0,
            first_token: None,
        }
    }

    /// Counts a turn and its cost, whether its answer is complete or not.
    pub(super) fn turn(&mut self, charge: &Charge) {
        self.turns += 1;
        self.cost_nanos += charge.cost.map_or(0, |cost| cost.0);
    }

    pub(super) const fn tool_call(&mut self) {
        self.tool_calls += 1;
    }

    /// Keeps the time of the first token.
    pub(super) fn first_token(&mut self, after: Duration) {
        self.first_token.get_or_insert(after);
    }

    /// Returns the time since the run was accepted.
    pub(super) fn lived(&self, clock: &dyn Clock) -> Duration {
        (clock.now() - self.created_at).to_std().unwrap_or_default()
    }

    /// Writes the run's log line.
    pub(super) fn log(&self, outcome: &Outcome, usage: Usage, clock: &dyn Clock) {
        let lived = self.lived(clock);
        tracing::info!(
            status = outcome.status().as_str(),
            code = match outcome {
                Outcome::Failed(error) => Some(&*error.code),
                Outcome::Completed(_) | Outcome::Cancelled(_) => None,
            },
            turns = self.turns,
            tool_calls = self.tool_calls,
            input_tokens = usage.prompt_tokens,
            output_tokens = usage.completion_tokens,
            cost_nanos = self.cost_nanos,
            queue_wait_ms = milliseconds(self.queue_wait),
            first_token_ms = self.first_token.map(milliseconds),
            duration_ms = milliseconds(lived),
            "run ended"
        );
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
