//! Model turns that are not recorded: a cancel or a failing upstream interrupts them, or their
//! commit is interrupted.
//!
//! An answer that broke off, stalled or was malformed is withdrawn if the model may be called
//! again. Otherwise it is recorded with the run's end exactly as far as it was shown, and
//! separately from the run's output. Tokens that the upstream did not report are estimated, and
//! marked as such.

use std::time::{Duration, Instant};

use baton_protocol::event::AttemptReset;
use baton_protocol::{EventData, EventId, Usage};
use baton_store::TurnTimes;
use serde_json::value::RawValue;

use super::client_calls::ClientCalls;
use super::{Attempt, Halt};
use crate::metrics;
use crate::model::{ModelError, TurnStream};
use crate::world::World;

/// A turn with an answer that is being read.
pub(super) struct OpenTurn {
    pub(super) step: u32,
    pub(super) stream: TurnStream,
    pub(super) client_calls: ClientCalls,
    /// The last event before it.
    pub(super) behind: EventId,
    /// When the model was asked.
    pub(super) asked_at: Instant,
    /// From then to its first output.
    pub(super) first_token: Option<Duration>,
    /// Whether a part of its answer was shown.
    pub(super) shown: bool,
}

impl OpenTurn {
    pub(super) fn new(step: u32, stream: TurnStream, behind: EventId, asked_at: Instant) -> Self {
        Self {
            step,
            stream,
            client_calls: ClientCalls::default(),
            behind,
            asked_at,
            first_token: None,
            shown: false,
        }
    }

    /// Returns how long it took, up to now.
    pub(super) fn times(&self, now: Instant) -> TurnTimes {
        TurnTimes {
            took: Some(now.saturating_duration_since(self.asked_at)),
            first_token: self.first_token,
        }
    }
}

/// The record of an interrupted turn.
#[derive(Clone)]
pub(super) struct InterruptedTurn {
    pub(super) step: u32,
    pub(super) message: Box<RawValue>,
    /// The passed-on fields around the message.
    pub(super) answer_fields: Option<Box<RawValue>>,
    pub(super) usage: Usage,
    /// The part of the prompt tokens that the upstream reported as cached.
    pub(super) cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub(super) model: Option<String>,
    /// Its times.
    pub(super) times: TurnTimes,
    /// Whether the sum of the turns already contains its tokens.
    pub(super) counted: bool,
}

/// The broken-off tries of the active turn.
pub(super) struct BrokenTries {
    step: u32,
    /// Their number.
    count: u32,
    /// Their usage, added up.
    pub(super) usage: Usage,
    /// The part of their prompt tokens that the upstream reported as cached.
    pub(super) cached_tokens: u64,
    /// The model that answered last.
    model: Option<String>,
    /// The error of the last of them.
    pub(super) error: ModelError,
}

impl BrokenTries {
    /// Returns the record of a turn that has a usage and no text.
    fn silent(&self) -> Option<InterruptedTurn> {
        let message = RawValue::from_string(NOTHING_SAID.to_owned()).ok()?;
        Some(InterruptedTurn {
            step: self.step,
            message,
            answer_fields: None,
            usage: self.usage,
            cached_tokens: self.cached_tokens,
            model: self.model.clone(),
            times: TurnTimes::default(),
            counted: false,
        })
    }
}

const NOTHING_SAID: &str = r#"{"role":"assistant","content":""}"#;

/// The active turn, until it is recorded.
#[derive(Default)]
pub(super) struct UnrecordedTurn {
    /// The try with an answer that is being read.
    pub(super) open: Option<OpenTurn>,
    /// The record of a complete or interrupted answer, kept until it is committed.
    pub(super) record: Option<InterruptedTurn>,
    /// The tries that broke off.
    pub(super) broken: Option<BrokenTries>,
}

impl UnrecordedTurn {
    /// Adds the usage of broken-off tries.
    pub(super) fn with_broken_tries(&self, usage: Usage, cached_tokens: u64) -> (Usage, u64) {
        match &self.broken {
            Some(broken) => (
                usage + broken.usage,
                cached_tokens.saturating_add(broken.cached_tokens),
            ),
            None => (usage, cached_tokens),
        }
    }

    /// Returns the record of a turn without an open try.
    fn record(&self) -> Option<InterruptedTurn> {
        let silent = || self.broken.as_ref().and_then(BrokenTries::silent);
        self.record.clone().or_else(silent)
    }
}

impl<W: World> Attempt<'_, W> {
    /// Withdraws the shown part of a failed turn and pauses, if the model may be called again;
    /// otherwise returns the error. It may not be called again if a client that cannot take text
    /// back has received some of the turn, or if the run's tries or tokens are used up.
    pub(super) async fn withdraw_turn(
        &mut self,
        step: u32,
        error: ModelError,
    ) -> Result<Option<ModelError>, Halt> {
        let tries = self.turn.broken.as_ref().map_or(0, |broken| broken.count);
        let models = &self.settings.models;
        let Some(pause) = models.pause_before_next_turn(tries + 1, &error) else {
            return Ok(Some(error));
        };
        // A try that had not begun was already repeated, except if it might have cost more than its
        // reservation, or if its first words arrived together with malformed data.
        let may_begin_again = self.budget.is_metered() && !error.costs_nothing()
            || matches!(error, ModelError::Invalid { .. });
        if self.turn.open.is_none() && !may_begin_again || self.publisher.is_at_limit() {
            return Ok(Some(error));
        }
        let shown = self.turn.open.as_ref().is_some_and(|open| open.shown);
        if shown && self.spec.shown_for_good {
            return Ok(Some(error));
        }
        let used = self.used_by_try();
        let total = self.conversation.usage() + used;
        let limit = self.spec.limits.max_total_tokens;
        if limit.is_some_and(|most| total.total_tokens >= most) {
            return Ok(Some(error));
        }
        let (mut cached_tokens, mut answered) = (0, None);
        if let Some(open) = self.turn.open.take() {
            let behind = open.behind;
            if let (_, Some(partial)) = open.stream.cut() {
                (cached_tokens, answered) = (partial.cached_tokens, partial.model);
            }
            if self.publisher.last_pushed() != behind {
                let reset = AttemptReset {
                    resume_after: behind,
                    continues: false,
                };
                self.publisher.push(step, EventData::AttemptReset(reset));
            }
        }
        let earlier = self.turn.broken.take();
        self.turn.broken = Some(BrokenTries {
            step,
            count: tries + 1,
            usage: used,
            cached_tokens: earlier.map_or(0, |broken| broken.cached_tokens) + cached_tokens,
            model: answered,
            error,
        });
        metrics::turn_withdrawn();
        tracing::info!(?pause, "a turn that broke off is asked for again");
        self.publisher.settle().await?;
        tokio::time::sleep(pause).await;
        Ok(None)
    }

    /// Returns the usage of the active try and of those before it.
    fn used_by_try(&self) -> Usage {
        let before = self.turn.broken.as_ref().map(|broken| broken.usage);
        let used = match &self.turn.open {
            Some(open) => {
                let told = open.stream.usage();
                told.unwrap_or_else(|| self.estimate(open.stream.bytes()))
            }
            None => self.budget.taken_for_turn(),
        };
        before.unwrap_or_default() + used
    }

    /// Estimates a turn's tokens from its bytes, for an upstream that reported none.
    pub(super) fn estimate(&self, written: usize) -> Usage {
        let guess = || self.conversation.guess(&self.spec, written);
        self.budget.usage_from_above(written).unwrap_or_else(guess)
    }

    /// Interrupts the active turn, if there is one, and closes the upstream's connection at once.
    /// Its record is kept until it is committed, because a cancel may interrupt that commit, too. A
    /// turn that was read to its end is also returned if it is not committed.
    pub(super) fn interrupt_turn(&mut self) -> Option<InterruptedTurn> {
        if let Some(open) = self.turn.open.take() {
            self.turn.record = self.cut_off(open);
        }
        self.turn.record()
    }

    fn cut_off(&mut self, open: OpenTurn) -> Option<InterruptedTurn> {
        let times = open.times(self.runner.clock.monotonic());
        let OpenTurn {
            step,
            stream,
            mut client_calls,
            ..
        } = open;
        let (unseen, partial) = stream.cut();
        let partial = partial?;
        for delta in unseen {
            if let Some(data) = client_calls.show(delta, &self.toolbox, &self.spec.model) {
                self.publisher.push(step, data);
            }
        }
        let told = partial.usage;
        let usage = told.unwrap_or_else(|| self.estimate(partial.bytes));
        let (usage, cached_tokens) = self.turn.with_broken_tries(usage, partial.cached_tokens);
        Some(InterruptedTurn {
            step,
            message: partial.message,
            answer_fields: client_calls.fields(),
            usage,
            cached_tokens,
            model: partial.model,
            times,
            counted: false,
        })
    }
}
