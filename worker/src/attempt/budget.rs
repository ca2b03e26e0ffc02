//! The reservations of a run with a monthly budget on its key. Before each turn the run reserves
//! the most that the turn may use, and the model's answer is limited to that. The reservation is
//! settled with the run: see `baton_store`'s reservations.

use baton_protocol::{Charge, Fence, FinishReason, Outcome, Price, RunError, Usage};
use baton_routing::Target;
use baton_store::{KeyStanding, TurnGrant, TurnWish};
use serde_json::value::RawValue;

use super::turn::TurnFailure;
use super::{Attempt, Ending, Halt, publish_queued};
use crate::metrics;
use crate::model::ModelError;
use crate::runner::JobRunner;
use crate::world::{Ledger as _, World};

/// The budgets of a run's key, and the run's reservation.
pub(super) struct Budget {
    /// Whether the key has a budget.
    limited: bool,
    /// Whether the key has a budget in money.
    cost: bool,
    /// The reservation of the active turn, until the turn is recorded.
    open: Option<TakenTurn>,
}

/// The reservation for a turn.
#[derive(Clone, Copy)]
struct TakenTurn {
    step: u32,
    prompt_tokens: u64,
    /// The most tokens that its answer may have.
    answer_tokens: u64,
    /// Whether that is less than the request allows.
    shortened: bool,
    /// The price at which it was taken.
    price: Option<Price>,
}

impl Budget {
    pub(super) fn of(key: Option<&KeyStanding>) -> Self {
        Self {
            limited: key.is_some_and(|key| key.token_budget || key.cost_budget),
            cost: key.is_some_and(|key| key.cost_budget),
            open: None,
        }
    }

    /// Returns whether the run's key has a budget.
    pub(super) const fn is_limited(&self) -> bool {
        self.limited
    }

    /// Returns the reason of a turn's end: the budget, if the answer was limited by it.
    pub(super) fn end_of_turn(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Length if self.open.is_some_and(|open| open.shortened) => {
                metrics::budget_stop("shortened");
                FinishReason::Budget
            }
            reason => reason,
        }
    }

    /// Estimates the tokens of a turn that the upstream did not count, for a run with a budget:
    /// from above, a token per byte, but no more than the answer was allowed to have.
    pub(super) fn usage_from_above(&self, written: usize) -> Option<Usage> {
        let open = self.open?;
        let written = (written as u64).min(open.answer_tokens);
        Some(Usage {
            prompt_tokens: open.prompt_tokens,
            completion_tokens: written,
            total_tokens: open.prompt_tokens.saturating_add(written),
            estimated: true,
        })
    }

    /// Returns the whole reservation: an upstream that fell silent may have used it up.
    pub(super) fn taken_for_turn(&self) -> Usage {
        let taken = self
            .open
            .map_or((0, 0), |open| (open.prompt_tokens, open.answer_tokens));
        Usage {
            prompt_tokens: taken.0,
            completion_tokens: taken.1,
            total_tokens: taken.0.saturating_add(taken.1),
            estimated: true,
        }
    }

    /// Forgets the reservation of a recorded turn.
    pub(super) const fn turn_recorded(&mut self) {
        self.open = None;
    }
}

impl<W: World> Attempt<'_, W> {
    /// Reserves the most that a turn with a request of so many bytes may use, whichever target answers
    /// it. Returns the limit of its answer in tokens; `None` for a key without a budget. If too little
    /// is left, the run ends; if other runs have reserved it, the run waits.
    pub(super) async fn take_for_turn(
        &mut self,
        step: u32,
        bytes: usize,
        messages: &RawValue,
        targets: &[Target],
    ) -> Result<Option<u64>, TurnFailure> {
        if !self.budget.limited {
            return Ok(None);
        }
        let models = targets.iter().map(|target| &*target.model);
        let price = self.settings.prices.dearest(&self.spec.model, models);
        let price = price.as_ref();
        if self.budget.cost && price.is_none() {
            // The model had a price when the run was accepted.
            let message = format!(
                "the API key of this run has a budget in money, and the model `{}` has no price here",
                self.spec.model
            );
            return Err(TurnFailure::Ends(Outcome::Failed(RunError {
                code: "price_unknown".to_owned(),
                message,
                upstream: None,
            })));
        }
        // Includes room for the field that limits the answer.
        let bytes = bytes + LIMIT_FIELD;
        let metering = &self.settings.metering;
        let mut wish = metering.turn(bytes, messages, &self.spec.params, price);
        if let Some(broken) = &self.turn.broken {
            let spent = Charge::of(broken.usage, broken.cached_tokens, price);
            wish.spent_tokens = spent.input_tokens.saturating_add(spent.output_tokens);
            wish.spent_nanos = spent.cost.map_or(0, |cost| cost.0);
        }
        self.budget.open = Some(TakenTurn {
            step,
            prompt_tokens: wish.prompt_tokens,
            answer_tokens: wish.answer_tokens,
            shortened: false,
            price: price.copied(),
        });
        let grant = self
            .ledger
            .begin_turn(step, &wish)
            .await
            .map_err(|error| TurnFailure::Halt(Halt::from(error)))?;
        match grant {
            TurnGrant::Granted { answer_tokens } => {
                if let Some(open) = &mut self.budget.open {
                    open.shortened = answer_tokens < wish.answer_tokens;
                    open.answer_tokens = answer_tokens;
                }
                Ok(Some(answer_tokens))
            }
            TurnGrant::Reserved => {
                self.budget.open = None;
                metrics::budget_wait();
                tracing::info!("the rest of the budget is set aside for other runs");
                Err(TurnFailure::Waits(wish))
            }
            TurnGrant::Refused(of) => {
                self.budget.open = None;
                metrics::budget_stop("refused");
                tracing::info!(budget = of.of_what(), "too little is left for another turn");
                let outcome = Outcome::Completed(FinishReason::Budget);
                Err(TurnFailure::Ends(outcome))
            }
        }
    }

    /// Gives the run back to the queue, to wait for the budget. The next settled run publishes a
    /// job for it; if one has settled meanwhile, this run's own job comes again.
    pub(super) async fn await_budget(mut self, wish: &TurnWish) -> Result<Ending, Halt> {
        self.trace.released("awaits_budget");
        self.publisher.settle().await?;
        let last_event = self.publisher.resume_point();
        let waits = self.ledger.await_budget(wish, last_event).await?;
        Ok(if waits {
            Ending::AwaitsBudget
        } else {
            Ending::HandedOver
        })
    }

    /// Lowers the reservation of an active turn that has shown nothing before the run ends, because
    /// of an error or, without one, a cancel: the run is charged for no more than the turn can have
    /// used. An upstream that worked and fell silent may have used the whole reservation.
    pub(super) async fn lower_turn(&mut self, error: Option<&ModelError>) -> Result<(), Halt> {
        let Some(open) = self.budget.open.take() else {
            return Ok(());
        };
        let tokens = match error {
            Some(error) if error.costs_nothing() => 0,
            Some(_) => return Ok(()),
            None => open.prompt_tokens,
        };
        let nanos = open.price.map_or(0, |price| price.of(tokens, 0, 0).0);
        self.ledger.lower_turn(open.step, tokens, nanos).await?;
        Ok(())
    }
}

/// Publishes jobs for runs that wait for the budget that this run has released. If one is lost, the
/// scheduler replaces it.
pub(super) async fn wake_waiting<W: World>(runner: &JobRunner<W>, fence: &Fence) {
    match runner
        .store
        .waiting_for(fence.tenant, fence.run, WOKEN)
        .await
    {
        Ok(waiting) => {
            for next in waiting {
                publish_queued(runner, next).await;
            }
        }
        Err(error) => {
            tracing::warn!(%error, "runs that wait for the budget are not woken yet");
        }
    }
}

/// The most waiting runs that one run's end wakes; their own ends wake the rest.
const WOKEN: u32 = 16;
/// Bytes of `,"max_completion_tokens":` with a number, rounded up.
const LIMIT_FIELD: usize = 64;
