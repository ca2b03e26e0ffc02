//! The settings that a running worker takes anew. An attempt keeps those that it began with.

use std::sync::Arc;

use baton_admission::passed_on::ExtraFields;
use baton_metering::{Metering, Prices};
use baton_service::{Config, LiveConfig};

use crate::metrics::{self, KnownNames};
use crate::runner::JobRunner;
use crate::tools::{ToolRegistry, ToolSetupError};

/// What models cost, and the tools.
pub(crate) struct Settings {
    /// What models cost.
    pub(crate) prices: Prices,
    /// Names of fields that limited keys may send too.
    pub(crate) extra_fields: ExtraFields,
    /// What a turn of a budgeted run is reckoned with before it is made.
    pub(crate) metering: Metering,
    /// The server-side tools.
    pub(crate) tools: ToolRegistry,
    /// The models and tools that metrics name.
    pub(crate) names: KnownNames,
}

impl Settings {
    pub(crate) fn of(config: &Config) -> Result<Self, ToolSetupError> {
        let tools = ToolRegistry::new(config)?;
        let priced = config.llm.prices.iter().map(|price| &*price.model);
        let names = KnownNames::new(
            priced.chain(config.llm.default_model.as_deref()),
            tools.iter().map(|tool| &*tool.spec().name),
        );
        Ok(Self {
            prices: config.llm.prices_in_micros().collect(),
            extra_fields: config.llm.extra_fields.iter().cloned().collect(),
            metering: Metering {
                answer_tokens: config.limits.budget_answer_tokens,
                attachment_tokens: config.limits.budget_attachment_tokens,
            },
            tools,
            names,
        })
    }
}

/// Takes changed settings until it is dropped.
pub(crate) async fn take_changes(runner: &JobRunner, mut config: LiveConfig) {
    loop {
        match Settings::of(&config.changed().await) {
            Ok(settings) => {
                metrics::create_known_series(&settings.names);
                runner.settings.store(Arc::new(settings));
            }
            // The reload has checked it: only the machine can be in the way.
            Err(error) => tracing::error!(%error, "changed settings cannot be used"),
        }
    }
}
