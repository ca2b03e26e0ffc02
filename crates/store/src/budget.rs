//! Budgets of keys, and what a turn of the model would take of them.

use baton_protocol::Price;

use crate::columns::{self, int8};

/// What a turn of the model is to use up at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnWish {
    /// Tokens that the model reads, from above.
    pub prompt_tokens: u64,
    /// Tokens that it may write, if there are as many.
    pub answer_tokens: u64,
    /// Fewer are not worth the question.
    pub least_answer: u64,
    /// What they cost; without a price they are taken to cost nothing.
    pub price: Option<Price>,
    /// Tokens that earlier tries of the same turn have used up.
    pub spent_tokens: u64,
    /// Their cost, in billionths.
    pub spent_nanos: u64,
}

impl TurnWish {
    /// Tokens that are used up before the answer begins.
    pub(crate) fn tokens_before(&self) -> i64 {
        int8(self.prompt_tokens.saturating_add(self.spent_tokens))
    }

    pub(crate) fn nanos_before(&self) -> i64 {
        let price = self.price.map(|price| price.of(self.prompt_tokens, 0, 0));
        let prompt = price.map_or(0, |nanos| nanos.0);
        int8(prompt.saturating_add(self.spent_nanos))
    }

    pub(crate) fn picos_per_token(&self) -> i64 {
        self.price.map_or(0, |price| int8(price.output))
    }

    /// All that it costs with so long an answer.
    pub(crate) fn nanos(&self, answer: i64) -> i64 {
        let answer = columns::number(answer);
        let price = self.price.map(|price| price.of(0, 0, answer));
        self.nanos_before()
            .saturating_add(price.map_or(0, |nanos| int8(nanos.0)))
    }
}

/// A monthly budget of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Of tokens.
    Tokens,
    /// Of money.
    Cost,
}

impl Budget {
    /// Its name, for people.
    pub const fn of_what(self) -> &'static str {
        match self {
            Self::Tokens => "monthly budget of tokens",
            Self::Cost => "monthly budget of money",
        }
    }
}

/// What a turn may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnGrant {
    /// So many tokens may be written, at most as many as were wished for.
    Granted {
        /// How many.
        answer_tokens: u64,
    },
    /// The runs that have used something up leave too little.
    Refused(Budget),
    /// Other runs have set aside what is missing, and may give it back: the run is to wait, by
    /// [`crate::SystemTx::await_budget`].
    Reserved,
}

/// A month as one run sees it: the answer that its turn may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// At this moment.
    pub(crate) now: i64,
    /// If the other runs used nothing more.
    pub(crate) if_settled: i64,
}

impl Room {
    /// Whether other runs' reservations alone keep the turn from its whole answer, or from as much as
    /// will ever be left; not if that is too little anyway.
    pub(crate) fn is_reserved(self, wish: &TurnWish) -> bool {
        self.if_settled >= int8(wish.least_answer)
            && self.now < int8(wish.answer_tokens).min(self.if_settled)
    }
}
