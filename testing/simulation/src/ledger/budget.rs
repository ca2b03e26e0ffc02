//! The budget of the key that some runs were submitted with.

use baton_protocol::{EventId, Fence, RunId};
use baton_store::{Budget, QueuedJob, StepData, TurnGrant, TurnWish};

use super::{Ledger, Lost, Row, State, job_of};
use crate::time::Millis;

/// A run's share of its key's budget.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    /// The tokens of turns that no attempt lived to record.
    charged: u64,
    /// The tokens that the turn at work may use up, and the turn's attempt and step.
    open: Option<(u64, u32, u32)>,
    /// Whether it waits until other runs have settled.
    waits: bool,
}

impl Share {
    fn reserved(&self) -> u64 {
        self.open.map_or(0, |(tokens, ..)| tokens)
    }

    /// Settles the turn at work: its record has its tokens.
    pub(super) fn settle(&mut self) {
        self.open = None;
    }

    /// Charges the turn at work with all that it may have used.
    pub(super) fn charge_open(&mut self) {
        self.charged += self.reserved();
        self.open = None;
        self.waits = false;
    }
}

impl Row {
    /// Returns the tokens that it has used up.
    fn spent(&self) -> u64 {
        let turns = self.steps.iter().map(|step| match step.data {
            StepData::Turn { usage, .. }
            | StepData::CutTurn { usage }
            | StepData::Compaction { usage } => usage.total_tokens,
            StepData::Call { .. } | StepData::Input { .. } => 0,
        });
        self.share.charged + turns.sum::<u64>()
    }
}

impl Ledger {
    /// Returns the tokens that the key's runs have used up.
    pub(crate) fn spent(&self) -> u64 {
        let rows = self.rows.values().filter(|row| row.is_metered);
        rows.map(Row::spent).sum()
    }

    /// Returns the tokens that are reserved by other runs than this one.
    fn reserved_by_others(&self, run: RunId) -> u64 {
        let others = self.rows.iter().filter(|(other, _)| **other != run);
        others.map(|(_, row)| row.share.reserved()).sum()
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
        let reserved = self.reserved_by_others(fence.run);
        let left = self.budget.saturating_sub(self.spent());
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
        let used = self.spent() + self.reserved_by_others(fence.run);
        let whole = wish.prompt_tokens + wish.spent_tokens + wish.answer_tokens;
        let waits = used.saturating_add(whole) > self.budget;
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
