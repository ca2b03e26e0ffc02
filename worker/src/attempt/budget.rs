//! The limits on the tokens and the cost of a run: its own, and the monthly budget of its key.
//!
//! Before each turn the most that it may use is estimated, and the model's answer is limited to what is left.
//! For a key with a budget that much is reserved in the ledger, and settled with the run: see `baton_store`'s
//! reservations. A run's own limits need no reservation, because its turns come one after the other.

use baton_protocol::{
    Charge, Fence, FinishReason, Nanos, OnLimit, Outcome, Price, RunError, RunLimits, RunSpec,
    Usage, UseLimits,
};
use baton_routing::Target;
use baton_store::{KeyStanding, TurnGrant, TurnWish};
use serde_json::value::RawValue;

use super::commit::GuardedLedger;
use super::conversation::Conversation;
use super::turn::TurnFailure;
use super::unrecorded_turn::BrokenTries;
use super::{Halt, publish_queued};
use crate::metrics;
use crate::model::ModelError;
use crate::runner::JobRunner;
use crate::settings::Settings;
use crate::world::{Ledger as _, World};

/// The part of a limit that is kept for the last turn of a run that hands back, as its divisor.
const KEPT: u64 = 4;

/// The limits of a run and of its key, and the reservation of the active turn.
pub(super) struct Budget {
    /// The run's own limits.
    most: UseLimits,
    /// Whether a part of them is kept for a last turn.
    hands_back: bool,
    /// The cost of the recorded turns.
    spent: Nanos,
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
    /// The limit by which that is less than the request allows.
    shortened: Option<FinishReason>,
    /// The price at which it was taken.
    price: Option<Price>,
}

/// A turn that the model is about to be asked for.
pub(super) struct PlannedTurn<'a> {
    pub(super) step: u32,
    /// The length of its request.
    pub(super) bytes: usize,
    pub(super) messages: &'a RawValue,
    /// The upstreams that may answer it.
    pub(super) targets: &'a [Target],
    /// The tokens of the turns before it.
    pub(super) used: Usage,
    /// Its tries that broke off.
    pub(super) broken: Option<&'a BrokenTries>,
    /// Whether the run ends with it.
    pub(super) is_last: bool,
}

impl Budget {
    /// Makes the limits of a run with recorded turns of this cost.
    pub(super) fn of(key: Option<&KeyStanding>, limits: &RunLimits, spent: Nanos) -> Self {
        Self {
            most: limits.most,
            hands_back: limits.on_limit == OnLimit::HandBack,
            spent,
            limited: key.is_some_and(|key| key.token_budget || key.cost_budget),
            cost: key.is_some_and(|key| key.cost_budget),
            open: None,
        }
    }

    /// Returns whether the run's key has a budget.
    pub(super) const fn is_limited(&self) -> bool {
        self.limited
    }

    /// Returns whether a turn may use no more than is reserved for it.
    pub(super) const fn is_metered(&self) -> bool {
        self.limited || self.most.max_tokens.is_some() || self.most.max_cost_nanos.is_some()
    }

    /// Returns the cost of the recorded turns, if the run has a limit of cost.
    pub(super) fn spent(&self) -> Option<Nanos> {
        self.most.max_cost_nanos.map(|_| self.spent)
    }

    /// Returns the reason of a turn's end: the limit that shortened the answer, if one did.
    pub(super) fn end_of_turn(&self, reason: FinishReason) -> FinishReason {
        let shortened = self.open.and_then(|open| open.shortened);
        match (reason, shortened) {
            (FinishReason::Length, Some(limit)) => {
                if limit == FinishReason::Budget {
                    metrics::budget_stop("shortened");
                }
                limit
            }
            (reason, _) => reason,
        }
    }

    /// Returns the answer that the run's own limits leave for a turn, and the limit that leaves less. `used` are
    /// the tokens of the recorded turns. Returns the reached limit if too little is left.
    fn within_run(
        &self,
        wish: &TurnWish,
        used: Usage,
        is_last: bool,
    ) -> Result<(u64, Option<FinishReason>), FinishReason> {
        let kept = |most: u64| {
            if self.hands_back && !is_last {
                most / KEPT
            } else {
                0
            }
        };
        let used = used
            .total_tokens
            .max(used.prompt_tokens.saturating_add(used.completion_tokens));
        let left = |most: Option<u64>, used: u64| {
            most.map(|most| (most - kept(most)).saturating_sub(used))
        };
        let tokens = wish.answer_within(left(self.most.max_tokens, used), None);
        let nanos = wish.answer_within(None, left(self.most.max_cost_nanos, self.spent.0));
        let (limit, answer) = if nanos < tokens {
            (FinishReason::MaxCost, nanos)
        } else {
            (FinishReason::MaxTokens, tokens)
        };
        match answer {
            Some(answer) if answer >= wish.least_answer => {
                let shortened = (answer < wish.answer_tokens).then_some(limit);
                Ok((answer, shortened))
            }
            _ => Err(limit),
        }
    }

    /// Estimates the tokens of a turn that the upstream did not count, for a run with a budget:
    /// from above, a token per byte, but no more than the answer was allowed to have.
    fn usage_from_above(&self, written: usize) -> Option<Usage> {
        let open = self.open?;
        let written = (written as u64).min(open.answer_tokens);
        Some(Usage {
            prompt_tokens: open.prompt_tokens,
            completion_tokens: written,
            total_tokens: open.prompt_tokens.saturating_add(written),
            estimated: true,
        })
    }

    /// Estimates a turn's tokens from its bytes, for an upstream that reported none.
    pub(super) fn estimate(&self, conversation: &Conversation, written: usize) -> Usage {
        let guess = || conversation.guess(written);
        self.usage_from_above(written).unwrap_or_else(guess)
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

    /// Replaces the reservation of a recorded turn by its charge.
    pub(super) fn turn_recorded(&mut self, charge: &Charge) {
        self.open = None;
        let cost = charge.cost.map_or(0, |cost| cost.0);
        self.spent = Nanos(self.spent.0.saturating_add(cost));
    }

    /// Reserves the most that a turn may use, whichever target answers it. Returns the limit of its answer in
    /// tokens; `None` without a limit of the run or its key. If too little is left, a limit is reached; if
    /// other runs have reserved it, the run waits.
    pub(super) async fn reserve<W: World>(
        &mut self,
        turn: PlannedTurn<'_>,
        spec: &RunSpec,
        settings: &Settings,
        ledger: &GuardedLedger<'_, W>,
    ) -> Result<Option<u64>, TurnFailure> {
        if !self.is_metered() {
            return Ok(None);
        }
        let targets = turn.targets.iter();
        let models = targets.map(|target| {
            let names = [&*target.model, &*target.asked];
            let priced = names
                .into_iter()
                .find(|name| settings.prices.of(name).is_some());
            priced.unwrap_or(&*target.model)
        });
        let price = settings.prices.dearest(&spec.model, models);
        let price = price.as_ref();
        let of_run = self.most.max_cost_nanos.is_some();
        if (self.cost || of_run) && price.is_none() {
            // The model had a price when the run was accepted.
            let limit = if of_run {
                "this run has a limit of cost"
            } else {
                "the API key of this run has a budget in money"
            };
            let message = format!("{limit}, and the model `{}` has no price here", spec.model);
            return Err(TurnFailure::Ends(Outcome::Failed(RunError {
                code: "price_unknown".to_owned(),
                message,
                upstream: None,
            })));
        }
        // Includes room for the field that limits the answer.
        let bytes = turn.bytes + LIMIT_FIELD;
        let mut wish = settings
            .metering
            .turn(bytes, turn.messages, &spec.params, price);
        if let Some(broken) = turn.broken {
            let spent = Charge::of(broken.usage, broken.cached_tokens, price);
            wish.spent_tokens = spent.input_tokens.saturating_add(spent.output_tokens);
            wish.spent_nanos = spent.cost.map_or(0, |cost| cost.0);
        }
        let (answer_tokens, shortened) = self
            .within_run(&wish, turn.used, turn.is_last)
            .map_err(TurnFailure::Limit)?;
        wish.answer_tokens = answer_tokens;
        self.open = Some(TakenTurn {
            step: turn.step,
            prompt_tokens: wish.prompt_tokens,
            answer_tokens,
            shortened,
            price: price.copied(),
        });
        if !self.limited {
            return Ok(Some(answer_tokens));
        }
        let grant = ledger
            .begin_turn(turn.step, &wish)
            .await
            .map_err(|error| TurnFailure::Halt(Halt::from(error)))?;
        match grant {
            TurnGrant::Granted { answer_tokens } => {
                if let Some(open) = &mut self.open {
                    if answer_tokens < wish.answer_tokens {
                        open.shortened = Some(FinishReason::Budget);
                    }
                    open.answer_tokens = answer_tokens;
                }
                Ok(Some(answer_tokens))
            }
            TurnGrant::Reserved => {
                self.open = None;
                metrics::budget_wait();
                tracing::info!("the rest of the budget is set aside for other runs");
                Err(TurnFailure::Waits(wish))
            }
            TurnGrant::Refused(of) => {
                self.open = None;
                metrics::budget_stop("refused");
                tracing::info!(budget = of.of_what(), "too little is left for another turn");
                let outcome = Outcome::Completed(FinishReason::Budget);
                Err(TurnFailure::Ends(outcome))
            }
        }
    }

    /// Lowers the reservation of an active turn that has shown nothing before the run ends, because
    /// of an error or, without one, a cancel: the run is charged for no more than the turn can have
    /// used. An upstream that worked and fell silent may have used the whole reservation.
    pub(super) async fn lower<W: World>(
        &mut self,
        error: Option<&ModelError>,
        ledger: &GuardedLedger<'_, W>,
    ) -> Result<(), Halt> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let tokens = match error {
            Some(error) if error.costs_nothing() => 0,
            Some(_) => return Ok(()),
            None => open.prompt_tokens,
        };
        if !self.limited {
            return Ok(());
        }
        let nanos = open.price.map_or(0, |price| price.of(tokens, 0, 0).0);
        ledger.lower_turn(open.step, tokens, nanos).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: TurnWish = TurnWish {
        prompt_tokens: 100,
        answer_tokens: 200,
        least_answer: 16,
        price: Some(Price {
            input: 1_000,
            cached_input: 0,
            output: 1_000,
        }),
        spent_tokens: 0,
        spent_nanos: 0,
    };

    fn budget(tokens: Option<u64>, nanos: Option<u64>, on_limit: OnLimit) -> Budget {
        let limits = RunLimits {
            most: UseLimits {
                max_tokens: tokens,
                max_cost_nanos: nanos,
                ..UseLimits::default()
            },
            on_limit,
            ..RunLimits::of_turns(9)
        };
        Budget::of(None, &limits, Nanos(50))
    }

    fn used(total_tokens: u64) -> Usage {
        Usage {
            total_tokens,
            ..Usage::default()
        }
    }

    #[test]
    fn a_turn_gets_what_the_nearer_limit_leaves() {
        let (tokens, cost) = (FinishReason::MaxTokens, FinishReason::MaxCost);
        for (max_tokens, max_nanos, granted) in [
            (None, None, Ok((200, None))),
            (Some(1_000), None, Ok((200, None))),
            (Some(450), None, Ok((150, Some(tokens)))),
            (Some(450), Some(1_000), Ok((150, Some(tokens)))),
            // The prompt costs 100 billionths, each token of the answer one, and 50 are spent.
            (Some(450), Some(190), Ok((40, Some(cost)))),
            (Some(316), None, Ok((16, Some(tokens)))),
            (Some(315), None, Err(tokens)),
            (Some(100), None, Err(tokens)),
            (None, Some(149), Err(cost)),
        ] {
            let budget = budget(max_tokens, max_nanos, OnLimit::Stop);
            let found = budget.within_run(&WISH, used(200), false);
            assert_eq!(found, granted, "{max_tokens:?} {max_nanos:?}");
        }
    }

    #[test]
    fn a_part_is_kept_for_the_turn_that_hands_back() {
        let budget = budget(Some(400), None, OnLimit::HandBack);
        let tokens = FinishReason::MaxTokens;
        assert_eq!(
            budget.within_run(&WISH, used(0), false),
            Ok((200, None)),
            "three quarters are enough"
        );
        assert_eq!(budget.within_run(&WISH, used(250), false), Err(tokens));
        assert_eq!(
            budget.within_run(&WISH, used(250), true),
            Ok((50, Some(tokens)))
        );
    }
}
