//! The model that a turn is charged as. An upstream may know the requested model by another name, and
//! its answer may be another model's.

use baton_protocol::{Charge, Usage};

use super::Attempt;
use crate::world::World;

impl<W: World> Attempt<'_, W> {
    /// Returns the name by which the upstream was asked for the model, or the requested one before that.
    pub(super) fn asked_model(&self) -> &str {
        let target = self.target.as_ref();
        target.map_or(&self.spec.model, |target| &target.model)
    }

    /// Returns the charge of a turn: at the price of the model that answered, of the one that the
    /// upstream was asked for, or of the requested one, whichever has one first.
    pub(super) fn charge(
        &self,
        answered: Option<&str>,
        usage: Usage,
        cached_tokens: u64,
    ) -> Charge {
        let prices = &self.settings.prices;
        let asked = self.asked_model();
        let asked = prices.of(asked).map_or(&*self.spec.model, |_| asked);
        prices.charge(asked, answered, usage, cached_tokens)
    }

    /// Returns the model to be charged if it is not the requested one.
    pub(super) fn charged_model(&self, answered: Option<&str>) -> Option<String> {
        let asked = self.asked_model();
        let other = self.settings.prices.charged_model(asked, answered);
        let charged = other.unwrap_or(asked);
        (charged != self.spec.model).then(|| charged.to_owned())
    }
}
