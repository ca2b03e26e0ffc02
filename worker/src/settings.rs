//! The settings that a running worker reloads. An attempt keeps those that it began with.

use std::collections::BTreeSet;
use std::sync::Arc;

use baton_admission::passed_on::ExtraFields;
use baton_metering::{Metering, Prices};
use baton_routing::Route;
use baton_service::{Config, LiveConfig, Secret};

use crate::metrics::{self, KnownNames};
use crate::model::{ModelSetupError, Upstreams};
use crate::runner::JobRunner;
use crate::tools::{ToolRegistry, ToolSetupError};

/// The upstreams, the prices of models, and the tools.
pub struct Settings {
    /// The upstreams and the routes to them.
    pub(crate) models: Upstreams,
    /// The prices of models.
    pub(crate) prices: Prices,
    /// Names of fields that limited keys may send as well.
    pub(crate) extra_fields: ExtraFields,
    /// Estimates a turn of a budgeted run in advance.
    pub(crate) metering: Metering,
    /// The server-side tools.
    pub(crate) tools: ToolRegistry,
    /// The tools that the operator requires approval for.
    pub(crate) approval_required: BTreeSet<String>,
    /// The models and tools that are labels of metrics.
    pub(crate) names: KnownNames,
    /// Texts that spans with content must not have, the longest first.
    pub(crate) secrets: Vec<Secret<String>>,
}

impl Settings {
    /// Makes the settings; those before them keep what has not changed.
    pub(crate) fn of(config: &Config, earlier: Option<&Self>) -> Result<Self, SettingsError> {
        let models = Upstreams::new(&config.llm, earlier.map(|earlier| &earlier.models))?;
        let tools = ToolRegistry::after(config, earlier.map(|earlier| &earlier.tools))?;
        Ok(Self::with(config, models, tools))
    }

    /// Makes the settings of a configuration around these upstreams and tools.
    pub fn with(config: &Config, models: Upstreams, tools: ToolRegistry) -> Self {
        let priced = config.llm.prices.iter().map(|price| &*price.model);
        let routes = config.llm.all_routes();
        let names = KnownNames::new(
            priced
                .chain(config.llm.default_model.as_deref())
                .chain(routes.all().iter().flat_map(Route::names)),
            tools
                .iter()
                .map(|tool| &*tool.spec().name)
                .chain(tools.mcp().names()),
        );
        Self {
            models,
            prices: config.llm.prices_in_micros().collect(),
            extra_fields: config.llm.extra_fields.iter().cloned().collect(),
            metering: Metering {
                answer_tokens: config.limits.budget_answer_tokens,
                attachment_tokens: config.limits.budget_attachment_tokens,
            },
            tools,
            approval_required: config.approval_required().collect(),
            names,
            secrets: config.secrets(),
        }
    }

    /// Creates the series of the known models, tools and upstreams.
    pub(crate) fn create_series(&self) {
        metrics::create_known_series(&self.names);
        for (upstream, up) in self.models.health() {
            metrics::create_upstream_series(upstream, up);
        }
        for server in self.tools.mcp().servers() {
            metrics::create_mcp_series(server);
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The upstreams cannot be used.
    #[error("the upstreams cannot be used")]
    Models(#[from] ModelSetupError),
    /// The tools cannot be used.
    #[error("the tools cannot be used")]
    Tools(#[from] ToolSetupError),
}

/// Applies changed settings until dropped.
pub(crate) async fn take_changes(runner: &JobRunner, mut live: LiveConfig) {
    loop {
        let earlier = runner.settings.load_full();
        let config = tokio::select! {
            biased;
            config = live.changed() => config,
            // So that the log and the metrics show a broken server before a run needs it.
            () = earlier.tools.mcp().connect() => live.changed().await,
        };
        match Settings::of(&config, Some(&earlier)) {
            Ok(settings) => {
                settings.create_series();
                runner.settings.store(Arc::new(settings));
            }
            // The reload has checked the settings, so only the machine can be the cause.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "changed settings cannot be used");
            }
        }
    }
}
