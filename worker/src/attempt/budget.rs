//! A run whose key has a monthly budget takes what a turn may use up before it asks the model, and the
//! model may answer no longer than that. What it took is settled with the run: see
//! `baton_store`'s reservations.

use baton_protocol::{Charge, Fence, FinishReason, Outcome, RunError, Usage};
use baton_store::{KeyStanding, TurnGrant, TurnWish};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::model_turn::TurnFailure;
use super::{Attempt, Ending, Halt, commit, publish_queued};
use crate::metrics;
use crate::model::ModelError;
use crate::runner::JobRunner;

/// What a run takes from its key's budgets.
pub(super) struct BudgetedRun {
    /// Whether one of them is of money.
    cost: bool,
    /// The turn that is at work, until it is recorded.
    open: Option<TakenTurn>,
}

/// What was taken for a turn.
#[derive(Clone, Copy)]
struct TakenTurn {
    step: u32,
    prompt_tokens: u64,
    /// How many its answer may have.
    answer_tokens: u64,
    /// Whether its answer may be shorter than the request lets it be.
    shortened: bool,
}

impl BudgetedRun {
    /// Nothing if the key has no budget.
    pub(super) fn of(key: Option<&KeyStanding>) -> Option<Self> {
        let key = key.filter(|key| key.token_budget || key.cost_budget)?;
        Some(Self {
            cost: key.cost_budget,
            open: None,
        })
    }
}

impl Attempt<'_> {
    /// Whether the run's key has a budget.
    pub(super) fn is_budgeted(&self) -> bool {
        self.budget.is_some()
    }

    /// Takes what a turn with this request may use up: how many tokens its answer may have; nothing
    /// for a key without a budget. If too little is left the run ends; if other runs have set it aside,
    /// it waits.
    pub(super) async fn take_for_turn(
        &mut self,
        step: u32,
        request: &Bytes,
        messages: &RawValue,
    ) -> Result<Option<u64>, TurnFailure> {
        let Some(budget) = &mut self.budget else {
            return Ok(None);
        };
        let price = self.settings.prices.of(&self.spec.model);
        if budget.cost && price.is_none() {
            // It had one when the run was accepted.
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
        // And room for the field that limits the answer.
        let bytes = request.len() + LIMIT_FIELD;
        let metering = &self.settings.metering;
        let mut wish = metering.turn(bytes, messages, &self.spec.params, price);
        if let Some(broken) = &self.broken {
            let spent = Charge::of(broken.usage, broken.cached_tokens, price);
            wish.spent_tokens = spent.input_tokens.saturating_add(spent.output_tokens);
            wish.spent_nanos = spent.cost.map_or(0, |cost| cost.0);
        }
        budget.open = Some(TakenTurn {
            step,
            prompt_tokens: wish.prompt_tokens,
            answer_tokens: wish.answer_tokens,
            shortened: false,
        });
        let grant = commit::begin_turn(self.runner, &self.fence, step, &wish)
            .await
            .map_err(|error| TurnFailure::Halt(Halt::from(error)))?;
        match grant {
            TurnGrant::Granted { answer_tokens } => {
                if let Some(open) = &mut budget.open {
                    open.shortened = answer_tokens < wish.answer_tokens;
                    open.answer_tokens = answer_tokens;
                }
                Ok(Some(answer_tokens))
            }
            TurnGrant::Reserved => {
                budget.open = None;
                metrics::budget_wait();
                tracing::info!("the rest of the budget is set aside for other runs");
                Err(TurnFailure::Waits(wish))
            }
            TurnGrant::Refused(of) => {
                budget.open = None;
                metrics::budget_stop("refused");
                tracing::info!(budget = of.of_what(), "too little is left for another turn");
                let outcome = Outcome::Completed(FinishReason::Budget);
                Err(TurnFailure::Ends(outcome))
            }
        }
    }

    /// Why a turn ended, if what was left of the budget has cut it short.
    pub(super) fn end_of_turn(&self, reason: FinishReason) -> FinishReason {
        let open = self.budget.as_ref().and_then(|budget| budget.open);
        match reason {
            FinishReason::Length if open.is_some_and(|open| open.shortened) => {
                metrics::budget_stop("shortened");
                FinishReason::Budget
            }
            reason => reason,
        }
    }

    /// Estimates the tokens of a turn that the upstream did not count, for a run with a budget: no fewer than
    /// there were, a token for each byte, and no more than the answer was allowed to have.
    pub(super) fn usage_from_above(&self, written: usize) -> Option<Usage> {
        let open = self.budget.as_ref()?.open?;
        let written = (written as u64).min(open.answer_tokens);
        Some(Usage {
            prompt_tokens: open.prompt_tokens,
            completion_tokens: written,
            total_tokens: open.prompt_tokens.saturating_add(written),
            estimated: true,
        })
    }

    /// All that was taken for the turn: what an upstream may have used up that was at work and fell silent.
    pub(super) fn taken_for_turn(&self) -> Usage {
        let open = self.budget.as_ref().and_then(|budget| budget.open);
        let taken = open.map_or((0, 0), |open| (open.prompt_tokens, open.answer_tokens));
        Usage {
            prompt_tokens: taken.0,
            completion_tokens: taken.1,
            total_tokens: taken.0.saturating_add(taken.1),
            estimated: true,
        }
    }

    /// Gives the run back to the queue, to wait for the budget. Whatever settles then publishes a job;
    /// if something has meanwhile, this job is to come again.
    pub(super) async fn await_budget(mut self, wish: &TurnWish) -> Result<Ending, Halt> {
        self.publisher.settle().await?;
        let last_event = self.publisher.last_id().max(self.committed);
        let waits = commit::await_budget(self.runner, &self.fence, wish, last_event).await?;
        Ok(if waits {
            Ending::AwaitsBudget
        } else {
            Ending::HandedOver
        })
    }

    /// The turn is recorded.
    pub(super) fn turn_recorded(&mut self) {
        if let Some(budget) = &mut self.budget {
            budget.open = None;
        }
    }

    /// The run ends while a turn is at work that had shown nothing, because of an error or, without
    /// one, a cancel: it is charged for no more than it can have used up. An upstream that was at work
    /// and fell silent may have used all that was taken for it.
    pub(super) async fn lower_turn(&mut self, error: Option<&ModelError>) -> Result<(), Halt> {
        let Some(open) = self.budget.as_mut().and_then(|budget| budget.open.take()) else {
            return Ok(());
        };
        let tokens = match error {
            Some(error) if error.costs_nothing() => 0,
            Some(_) => return Ok(()),
            None => open.prompt_tokens,
        };
        let price = self.settings.prices.of(&self.spec.model);
        let nanos = price.map_or(0, |price| price.of(tokens, 0, 0).0);
        commit::lower_turn(self.runner, &self.fence, open.step, tokens, nanos).await?;
        Ok(())
    }
}

/// Publishes jobs for runs that wait for what this one has given back. One that gets lost is made up
/// for by the scheduler.
pub(super) async fn wake_waiting(runner: &JobRunner, fence: &Fence) {
    let system = runner.store.system();
    match system.waiting_for(fence.tenant, fence.run, WOKEN).await {
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

/// The waiting runs that the end of one wakes; their own ends wake the rest.
const WOKEN: u32 = 16;
/// Bytes of `,"max_completion_tokens":` with a number, and some.
const LIMIT_FIELD: usize = 64;
