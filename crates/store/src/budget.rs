//! The monthly budgets of keys, and the share of them that a model turn takes.

use baton_protocol::Price;

use crate::columns::{self, int8};

/// The most that a model turn may use up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnWish {
    /// An upper bound of the tokens that the model reads.
    pub prompt_tokens: u64,
    /// The tokens that it may write, if the budget allows that many.
    pub answer_tokens: u64,
    /// The shortest answer, in tokens, that is worth asking the model for.
    pub least_answer: u64,
    /// The price of these tokens; without a price they cost nothing.
    pub price: Option<Price>,
    /// Tokens that earlier tries of the same turn have used up.
    pub spent_tokens: u64,
    /// The cost of those tokens, in billionths.
    pub spent_nanos: u64,
}

impl TurnWish {
    /// Returns the tokens that are used up before the answer begins.
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

    /// Returns the tokens that the model may write if this much is left; `None` for no limit. Returns no number
    /// if not even the prompt fits. The ledger's `answer_within` decides the same about a month.
    pub fn answer_within(&self, tokens: Option<u64>, nanos: Option<u64>) -> Option<u64> {
        const PICOS_PER_NANO: u128 = 1_000;

        let before = (
            columns::number(self.tokens_before()),
            columns::number(self.nanos_before()),
        );
        let by_tokens = match tokens {
            None => u64::MAX,
            Some(tokens) => tokens.checked_sub(before.0)?,
        };
        let by_nanos = match nanos {
            None => u64::MAX,
            Some(nanos) => {
                let picos = u128::from(nanos.checked_sub(before.1)?) * PICOS_PER_NANO;
                let per_token = u128::from(columns::number(self.picos_per_token()));
                let answer = picos.checked_div(per_token).unwrap_or(u128::MAX);
                u64::try_from(answer).unwrap_or(u64::MAX)
            }
        };
        Some(self.answer_tokens.min(by_tokens).min(by_nanos))
    }

    /// Returns the cost of the whole turn if its answer has this many tokens.
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
    /// The budget of tokens.
    Tokens,
    /// The budget of money.
    Cost,
}

impl Budget {
    /// Returns its name in a message for people.
    pub const fn of_what(self) -> &'static str {
        match self {
            Self::Tokens => "monthly budget of tokens",
            Self::Cost => "monthly budget of money",
        }
    }
}

/// The decision about the tokens of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnGrant {
    /// The turn may begin.
    Granted {
        /// The tokens that the model may write: at most the wish, and fewer if little is left.
        answer_tokens: u64,
    },
    /// The runs that have settled leave too little for the turn.
    Refused(Budget),
    /// Other runs have reserved the missing part and may give it back, so that this run should wait
    /// with [`crate::SystemTx::await_budget`].
    Reserved,
}

/// The answer, in tokens, that one run's turn can afford in a month.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// With the reservations of the other runs as they are.
    pub(crate) now: i64,
    /// If the other runs gave back all that they have not used.
    pub(crate) if_settled: i64,
}

impl Room {
    /// Returns whether only the reservations of other runs shorten the answer: the turn lacks some
    /// of its whole answer, or of as much as can ever be left. Returns false if even that is too
    /// little.
    pub(crate) fn is_reserved(self, wish: &TurnWish) -> bool {
        self.if_settled >= int8(wish.least_answer)
            && self.now < int8(wish.answer_tokens).min(self.if_settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_both_limits_allow() {
        let wish = TurnWish {
            prompt_tokens: 100,
            answer_tokens: 50,
            least_answer: 16,
            price: Some(Price {
                input: 1_000,
                cached_input: 0,
                output: 10_000,
            }),
            ..TurnWish::default()
        };
        // The prompt costs 100 billionths, each token of the answer ten.
        for (tokens, nanos, answer) in [
            (None, None, Some(50)),
            (Some(1_000), None, Some(50)),
            (Some(130), None, Some(30)),
            (Some(100), None, Some(0)),
            (Some(99), None, None),
            (None, Some(399), Some(29)),
            (Some(120), Some(400), Some(20)),
            (None, Some(99), None),
        ] {
            assert_eq!(
                wish.answer_within(tokens, nanos),
                answer,
                "{tokens:?} {nanos:?}"
            );
        }
        let free = TurnWish {
            price: None,
            ..wish
        };
        assert_eq!(free.answer_within(None, Some(0)), Some(50));
        let retried = TurnWish {
            spent_tokens: 10,
            ..wish
        };
        assert_eq!(retried.answer_within(Some(130), None), Some(20));
    }
}
