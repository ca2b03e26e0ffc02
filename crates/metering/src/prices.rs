//! The configured prices of models.

use std::collections::HashMap;
use std::sync::Arc;

use baton_protocol::Price;

/// The price of each model that has one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Prices(Arc<HashMap<String, Price>>);

impl Prices {
    /// Returns the model's price, by the upstream's name of it.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.0.get(model)
    }
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
