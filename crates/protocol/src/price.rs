//! Prices of tokens. Amounts are whole numbers, because floating point would round sums of money.
//!
//! The currency is the operator's: amounts are in the currency of the prices.

use std::fmt;

use crate::usage::Usage;

/// An amount, in billionths of the currency's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Converts millionths.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }
}

/// Shows a decimal number of units, exactly.
impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        if rest == 0 {
            return write!(f, "{units}");
        }
        let rest = format!("{rest:09}");
        write!(f, "{units}.{}", rest.trim_end_matches('0'))
    }
}

/// A model's prices: millionths of the currency's unit for a million tokens of a kind, which equals
/// billionths of a thousandth of a unit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Tokens that the model reads.
    pub input: u64,
    /// The input tokens that its server had cached.
    pub cached_input: u64,
    /// Tokens that the model writes.
    pub output: u64,
}

impl Price {
    /// Returns the price of these tokens, rounded up to a billionth. `cached` are a part of
    /// `input`.
    pub fn of(&self, input: u64, cached: u64, output: u64) -> Nanos {
        const PICOS_PER_NANO: u128 = 1_000;

        let cached = cached.min(input);
        let picos = [
            (input - cached, self.input),
            (cached, self.cached_input),
            (output, self.output),
        ]
        .into_iter()
        // A product of two 64-bit numbers fits, and three of those nearly always do.
        .fold(0_u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(tokens) * u128::from(price))
        });
        Nanos(u64::try_from(picos.div_ceil(PICOS_PER_NANO)).unwrap_or(u64::MAX))
    }
}

/// The consumption of a model turn, as the ledger records it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Tokens that the model read.
    pub input_tokens: u64,
    /// The input tokens that its server had cached, if it reported them.
    pub cached_tokens: u64,
    /// Tokens that the model wrote, visible or not.
    pub output_tokens: u64,
    /// Their price; `None` for a model without prices.
    pub cost: Option<Nanos>,
}

impl Charge {
    /// Returns the charge for an upstream's counts. Some upstreams count reasoning tokens only in
    /// the total.
    pub fn of(usage: Usage, cached_tokens: u64, price: Option<&Price>) -> Self {
        let unnamed = usage.total_tokens.saturating_sub(usage.prompt_tokens);
        let (input, output) = (usage.prompt_tokens, usage.completion_tokens.max(unnamed));
        let cached = cached_tokens.min(input);
        Self {
            input_tokens: input,
            cached_tokens: cached,
            output_tokens: output,
            cost: price.map(|price| price.of(input, cached, output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price {
        input: 2_500_000,
        cached_input: 1_250_000,
        output: 10_000_000,
    };

    #[test]
    fn a_cost_is_exact_and_rounded_up_once() {
        assert_eq!(PRICE.of(1_000_000, 0, 0), Nanos(2_500_000_000));
        assert_eq!(PRICE.of(1_000_000, 400_000, 1_000_000).to_string(), "12");
        let least = Price {
            input: 1,
            cached_input: 0,
            output: 0,
        };
        assert_eq!(least.of(1, 0, 0), Nanos(1));
        assert_eq!(least.of(1_001, 0, 0), Nanos(2));
        assert_eq!(least.of(5, 9, 7), Nanos(0), "cached tokens are input");
        let most = Price {
            input: u64::MAX,
            cached_input: u64::MAX,
            output: u64::MAX,
        };
        assert_eq!(most.of(u64::MAX, 1, u64::MAX), Nanos(u64::MAX));
    }

    #[test]
    fn an_amount_is_a_decimal_number_without_an_end_of_zeros() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (20_000_000_000, "20"),
        ] {
            assert_eq!(Nanos(nanos).to_string(), text);
        }
        assert_eq!(Nanos::from_micros(1_500_000).to_string(), "1.5");
    }

    #[test]
    fn what_only_the_total_tells_was_written() {
        let usage = Usage {
            prompt_tokens: 10,
            completion_tokens: 5,
            total_tokens: 40,
            estimated: false,
        };
        let charge = Charge::of(usage, 99, Some(&PRICE));
        assert_eq!((charge.input_tokens, charge.output_tokens), (10, 30));
        assert_eq!(charge.cached_tokens, 10);
        assert_eq!(charge.cost, Some(PRICE.of(10, 10, 30)));
        assert_eq!(Charge::of(usage, 0, None).cost, None);
    }
}
