//! The configured prices of models, and the price of an answer. Another model may answer than the
//! requested one, because gateways have fallbacks.

use std::collections::HashMap;
use std::sync::Arc;

use baton_protocol::{Charge, Price, Usage};

/// The most of an upstream's name of a model that is recorded, in bytes.
const MAX_NAME: usize = 200;

/// The price of each model that has one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Prices(Arc<HashMap<String, Price>>);

impl Prices {
    /// Returns the model's price, by the upstream's name of it.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.0.get(model)
    }

    /// Returns the highest price that a turn may have which one of several models will answer; `None` if
    /// one of them has no price. The price of the requested name counts for a model without its own.
    pub fn dearest<'m>(
        &self,
        requested: &str,
        models: impl IntoIterator<Item = &'m str>,
    ) -> Option<Price> {
        let own = self.of(requested);
        let prices = models
            .into_iter()
            .map(|model| self.of(model).or(own).copied());
        let prices: Option<Vec<Price>> = prices.collect();
        prices?.into_iter().reduce(|one, other| Price {
            input: one.input.max(other.input),
            cached_input: one.cached_input.max(other.cached_input),
            output: one.output.max(other.output),
        })
    }

    /// Returns the charge of a turn that asked for `asked`. The price is that of the model that
    /// answered, or that of `asked` if only that has one.
    pub fn charge(
        &self,
        asked: &str,
        answered: Option<&str>,
        usage: Usage,
        cached_tokens: u64,
    ) -> Charge {
        let own = answered.and_then(|answered| self.of(answered));
        Charge::of(usage, cached_tokens, own.or_else(|| self.of(asked)))
    }

    /// Returns the model to be charged if it is not `asked`. A version of `asked` is charged as
    /// `asked`, unless it has its own price.
    pub fn charged_model<'m>(&self, asked: &str, answered: Option<&'m str>) -> Option<&'m str> {
        let answered = answered.filter(|answered| *answered != asked)?;
        let is_charged = self.of(answered).is_some() || is_other_model(asked, answered);
        is_charged.then(|| recorded_name(answered))
    }
}

/// Returns as much of an upstream's name of a model as is recorded.
pub fn recorded_name(model: &str) -> &str {
    &model[..model.floor_char_boundary(MAX_NAME)]
}

/// Returns whether `answered` is another model than `asked`: neither one of its versions nor its
/// name at a provider.
pub fn is_other_model(asked: &str, answered: &str) -> bool {
    fn base(name: &str) -> String {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.strip_suffix("-latest")
            .unwrap_or(name)
            .to_ascii_lowercase()
    }
    let (asked, answered) = (base(asked), base(answered));
    let Some(version) = answered.strip_prefix(&asked) else {
        return true;
    };
    let is_version = |version: &str| {
        let digits = version.bytes().filter(u8::is_ascii_digit).count();
        version.starts_with(['-', '@', ':'])
            && digits >= 3
            && version[1..]
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    !version.is_empty() && !is_version(version)
}

/// Converts each model's prices in millionths of a unit for a million tokens: of input, of cached
/// input, of output.
impl FromIterator<(String, [u64; 3])> for Prices {
    fn from_iter<I: IntoIterator<Item = (String, [u64; 3])>>(prices: I) -> Self {
        let prices = prices
            .into_iter()
            .map(|(model, [input, cached_input, output])| {
                let price = Price {
                    input,
                    cached_input,
                    output,
                };
                (model, price)
            });
        Self(Arc::new(prices.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearest_price_is_the_highest_of_each_kind() {
        let prices = [("a", [1, 1, 9]), ("b", [5, 2, 3]), ("alias", [7, 7, 7])];
        let prices = prices.map(|(model, price)| (model.to_owned(), price));
        let prices: Prices = prices.into_iter().collect();
        let dearest = |requested: &str, models: &[&str]| {
            let dearest = prices.dearest(requested, models.iter().copied());
            dearest.map(|price| [price.input, price.cached_input, price.output])
        };
        assert_eq!(dearest("x", &["a", "b"]), Some([5, 2, 9]));
        assert_eq!(dearest("x", &["a", "unpriced"]), None);
        assert_eq!(dearest("alias", &["a", "unpriced"]), Some([7, 7, 9]));
        assert_eq!(dearest("a", &[]), None);
    }

    #[test]
    fn a_version_of_a_model_is_no_other_model() {
        for (asked, answered, other) in [
            ("gpt-4o", "gpt-4o", false),
            ("gpt-4o", "gpt-4o-2024-08-06", false),
            ("gpt-4", "gpt-4-0613", false),
            ("claude-x", "claude-x@20240229", false),
            ("claude-x-latest", "claude-x-20241022", false),
            ("openai/gpt-4o", "gpt-4o", false),
            ("gpt-4o", "openai/GPT-4o", false),
            ("gpt-4o", "gpt-4o-mini", true),
            ("gpt-4", "gpt-4-32k", true),
            ("gpt-4", "gpt-4-32", true),
            ("cheap", "dear", true),
            ("cheap", "", true),
            ("gpt-4o-2024-08-06", "gpt-4o", true),
        ] {
            assert_eq!(is_other_model(asked, answered), other, "{asked} {answered}");
        }
    }
}
