//! What models cost, as configured.

use std::collections::HashMap;
use std::sync::Arc;

use baton_protocol::Price;

/// The price of each model that has one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Prices(Arc<HashMap<String, Price>>);

impl Prices {
    /// The model's price, by the upstream's name of it.
    pub fn of(&self, model: &str) -> Option<&Price> {
        self.0.get(model)
    }
}

impl FromIterator<(String, Price)> for Prices {
    fn from_iter<I: IntoIterator<Item = (String, Price)>>(prices: I) -> Self {
        Self(Arc::new(prices.into_iter().collect()))
    }
}
