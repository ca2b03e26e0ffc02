//! The budget of the key that some runs were submitted with.

use baton_protocol::{EventId, Fence, RunId};
use baton_store::{Budget, QueuedJob, TurnGrant, TurnWish};

use super::{Ledger, Lost, Row, State, job_of};
use crate::time::Millis;

/// A run's share of its key's budget.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    /// The tokens that it has used up.
    pub(crate) spent: u64,
    /// The tokens that the turn at work may use up, and the turn's attempt and step.
    open: Option<(u64, u32, u32)>,
    /// Whether it waits until other runs have settled.
    waits: bool,
}

impl Share {
    fn reserved(&self) -> u64 {
        self.open.map_or(0, |(tokens, ..)| tokens)
    }

    /// Settles the turn at work, if it is this one.
    pub(super) fn settle(&mut self, attempt: u32, step: u32, used: u64) {
        if matches!(self.open, Some((_, by, of)) if (by, of) == (attempt, step)) {
            self.open = None;
            self.spent += used;
        }
    }

    /// Charges the turn at work with all that it may have used.
    pub(super) fn charge_open(&mut self) {
        self.spent += self.reserved();
        self.open = None;
        self.waits = false;
    }
}

impl Ledger {
    /// Returns the tokens that the key's runs have used up, and those that are reserved by others than
    /// this one.
    fn used(&self, run: RunId) -> (u64, u64) {
        let shares = self.rows.iter().filter(|(_, row)| row.is_metered);
        shares.fold((0, 0), |(spent, reserved), (other, row)| {
            let held = if *other == run {
                0
            } else {
                row.share.reserved()
            };
            (spent + row.share.spent, reserved + held)
        })
    }

    pub(crate) fn begin_turn(
        &mut self,
        fence: &Fence,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, Lost> {
        let (row, _) = self.held(fence)?;
        if row.share.open.is_some_and(|(_, by, _)| by != fence.attempt) {
            // The turn of an attempt that did not live to record it.
            row.share.charge_open();
        }
        row.share.open = None;
        row.share.waits = false;
        let (spent, reserved) = self.used(fence.run);
        let left = self.budget.saturating_sub(spent);
        let now = left.saturating_sub(reserved);
        let before = wish.prompt_tokens + wish.spent_tokens;
        let least = before + wish.least_answer;
        let answer_tokens = if now >= before + wish.answer_tokens {
            wish.answer_tokens
        } else if step > 1 && reserved > 0 && left >= least {
            return Ok(TurnGrant::Reserved);
        } else if now >= least {
            now - before
        } else if reserved > 0 && left >= least {
            return Ok(TurnGrant::Reserved);
        } else {
            return Ok(TurnGrant::Refused(Budget::Tokens));
        };
        let (row, _) = self.held(fence)?;
        row.share.open = Some((before + answer_tokens, fence.attempt, step));
        Ok(TurnGrant::Granted { answer_tokens })
    }

    pub(crate) fn lower_turn(&mut self, fence: &Fence, step: u32, tokens: u64) -> Result<(), Lost> {
        let (row, _) = self.held(fence)?;
        if let Some((held, by, of)) = &mut row.share.open
            && (*by, *of) == (fence.attempt, step)
        {
            *held = tokens.min(*held);
        }
        Ok(())
    }

    /// Queues the run until other runs have settled. Returns whether it waits.
    pub(crate) fn await_budget(
        &mut self,
        fence: &Fence,
        wish: &TurnWish,
        last_event: EventId,
        now: Millis,
    ) -> Result<bool, Lost> {
        self.hand_over(fence, last_event, now)?;
        let (spent, reserved) = self.used(fence.run);
        let whole = wish.prompt_tokens + wish.spent_tokens + wish.answer_tokens;
        let waits = reserved > 0 && spent + reserved + whole > self.budget;
        if let Some(row) = self.rows.get_mut(&fence.run) {
            row.share.waits = waits;
        }
        Ok(waits)
    }

    /// Returns the runs that wait for what this run has given back.
    pub(crate) fn waiting_for(&self, run: RunId) -> Vec<QueuedJob> {
        let waits = |row: &Row| row.share.waits && matches!(row.state, State::Queued(_));
        let others = self.rows.iter().filter(|(other, _)| **other != run);
        others
            .filter(|(_, row)| waits(row))
            .map(|(other, row)| job_of(*other, row))
            .collect()
    }
}
