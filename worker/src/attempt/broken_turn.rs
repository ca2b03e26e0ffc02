//! A turn whose answer broke off, stalled or made no sense: it is withdrawn, and the model is asked again.

use baton_protocol::event::AttemptReset;
use baton_protocol::{EventData, Usage};
use serde_json::value::RawValue;

use super::cut_turn::CutOff;
use super::{Attempt, Halt};
use crate::metrics;
use crate::model::ModelError;

/// The tries of the turn at work that broke off.
pub(super) struct BrokenTries {
    step: u32,
    /// How many.
    count: u32,
    /// What they used up together.
    pub(super) usage: Usage,
    /// Tokens of their prompts that the upstream had read before.
    pub(super) cached_tokens: u64,
    /// The model that answered last.
    model: Option<String>,
    /// Why the last of them ended.
    pub(super) error: ModelError,
}

impl BrokenTries {
    /// A turn that has used something up and says nothing.
    fn silent(&self) -> Option<CutOff> {
        let message = RawValue::from_string(NOTHING_SAID.to_owned()).ok()?;
        Some(CutOff {
            step: self.step,
            message,
            answer_fields: None,
            usage: self.usage,
            cached_tokens: self.cached_tokens,
            model: self.model.clone(),
            counted: false,
        })
    }
}

const NOTHING_SAID: &str = r#"{"role":"assistant","content":""}"#;

impl Attempt<'_> {
    /// Withdraws what was shown of a turn that failed and waits a moment, if the model may be asked again;
    /// otherwise yields the error. It may not if a client that cannot take it back was shown some of the
    /// turn, or if the tries or the tokens of the run are used up.
    pub(super) async fn withdraw_turn(
        &mut self,
        step: u32,
        error: ModelError,
    ) -> Result<Option<ModelError>, Halt> {
        let tries = self.broken.as_ref().map_or(0, |broken| broken.count);
        let model = &self.runner.model;
        let Some(pause) = model.pause_before_next_turn(tries + 1, &error) else {
            return Ok(Some(error));
        };
        // One that had not begun was asked again already, unless that might have cost more than was
        // taken for it from the budget, or its first words came together with nonsense.
        let may_begin_again = self.is_budgeted() && !error.costs_nothing()
            || matches!(error, ModelError::Invalid { .. });
        if self.open.is_none() && !may_begin_again || self.publisher.is_at_limit() {
            return Ok(Some(error));
        }
        let shown = self.open.as_ref().is_some_and(|open| open.shown);
        if shown && self.spec.shown_for_good {
            return Ok(Some(error));
        }
        let used = self.used_by_try();
        let total = self.machine.usage() + used;
        let limit = self.spec.limits.max_total_tokens;
        if limit.is_some_and(|most| total.total_tokens >= most) {
            return Ok(Some(error));
        }
        let (mut cached_tokens, mut answered) = (0, None);
        if let Some(open) = self.open.take() {
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
        let earlier = self.broken.take();
        self.broken = Some(BrokenTries {
            step,
            count: tries + 1,
            usage: used,
            cached_tokens: earlier.map_or(0, |broken| broken.cached_tokens) + cached_tokens,
            model: answered,
            error,
        });
        metrics::turn_withdrawn();
        tracing::info!(step, ?pause, "a turn that broke off is asked for again");
        self.publisher.settle().await?;
        tokio::time::sleep(pause).await;
        Ok(None)
    }

    /// What the try at work has used up, and those before it.
    fn used_by_try(&self) -> Usage {
        let before = self.broken.as_ref().map(|broken| broken.usage);
        let used = match &self.open {
            Some(open) => {
                let told = open.stream.usage();
                told.unwrap_or_else(|| self.estimate(open.stream.bytes()))
            }
            None => self.taken_for_turn(),
        };
        before.unwrap_or_default() + used
    }

    /// The tokens of a turn whose upstream did not tell them, and which wrote so many bytes.
    pub(super) fn estimate(&self, written: usize) -> Usage {
        self.usage_from_above(written)
            .unwrap_or_else(|| self.guess(written))
    }

    /// Adds what broken tries of the turn have used up.
    pub(super) fn with_broken_tries(&self, usage: Usage, cached_tokens: u64) -> (Usage, u64) {
        match &self.broken {
            Some(broken) => (
                usage + broken.usage,
                cached_tokens.saturating_add(broken.cached_tokens),
            ),
            None => (usage, cached_tokens),
        }
    }

    /// What is recorded of broken tries alone, if no try is at work.
    pub(super) fn cut_between_tries(&self) -> Option<CutOff> {
        self.broken.as_ref().and_then(BrokenTries::silent)
    }
}
