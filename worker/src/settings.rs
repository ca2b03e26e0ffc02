//! The settings that a running worker reloads. An attempt keeps those that it began with.

use std::sync::Arc;

use baton_admission::passed_on::ExtraFields;
use baton_metering::{Metering, Prices};
use baton_service::{Config, LiveConfig};

use crate::metrics::{self, KnownNames};
use crate::runner::JobRunner;
use crate::tools::{ToolRegistry, ToolSetupError};

/// The prices of models, and the tools.
pub(crate) struct Settings {
    /// The prices of models.
    pub(crate) prices: Prices,
    /// Names of fields that limited keys may send as well.
    pub(crate) extra_fields: ExtraFields,
    /// Estimates a turn of a budgeted run in advance.
    pub(crate) metering: Metering,
    /// The server-side tools.
    pub(crate) tools: ToolRegistry,
    /// The models and tools that are labels of metrics.
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

/// Applies changed settings until dropped.
pub(crate) async fn take_changes(runner: &JobRunner, mut config: LiveConfig) {
    loop {
        match Settings::of(&config.changed().await) {
            Ok(settings) => {
                metrics::create_known_series(&settings.names);
                runner.settings.store(Arc::new(settings));
            }
            // The reload has checked the settings, so only the machine can be the cause.
            Err(error) => tracing::error!(%error, "changed settings cannot be used"),
        }
    }
}
