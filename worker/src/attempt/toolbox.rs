//! The tools that one run offers its model: the client's own, and the server's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{Effect, Fence, RunSpec};
use serde_json::value::RawValue;

use crate::agent::turn_machine::{RecordedCall, Standing};
use crate::agent::{Call, CallSide};
use crate::runner::JobRunner;
use crate::settings::Settings;
use crate::tools::ToolContext;

/// What a call brought.
pub(super) struct CallResult {
    /// Whether the tool did what it was asked.
    pub(super) ok: bool,
    /// What the model is told.
    pub(super) content: String,
    /// How long it took.
    pub(super) duration: Duration,
}

/// One run's tools.
pub(super) struct Toolbox {
    client: HashSet<String>,
    server: Vec<(String, Effect)>,
    offered: Option<Box<RawValue>>,
    settings: Arc<Settings>,
}

impl Toolbox {
    pub(super) fn new(spec: &RunSpec, settings: Arc<Settings>) -> Self {
        let registry = &settings.tools;
        let client: HashSet<String> = spec.client_tools().into_iter().collect();
        let mut offered: Vec<Box<RawValue>> = spec
            .tools
            .as_deref()
            .and_then(|tools| serde_json::from_str(tools.get()).ok())
            .unwrap_or_default();
        let mut server = Vec::new();
        for name in &spec.server_tools {
            // A client's tool of the same name wins. A tool that the configuration no longer has
            // is not offered; a call of it recorded earlier is answered with an error.
            let Some(tool) = registry.get(name).filter(|_| !client.contains(name)) else {
                continue;
            };
            server.push((name.clone(), tool.effect()));
            offered.push(tool.definition().to_owned());
        }
        let offered = (!offered.is_empty())
            .then(|| serde_json::value::to_raw_value(&offered).ok())
            .flatten();
        Self {
            client,
            server,
            offered,
            settings,
        }
    }

    /// All of them as the upstream is to be told, if there are any.
    pub(super) fn offered(&self) -> Option<&RawValue> {
        self.offered.as_deref()
    }

    /// Who executes a tool. A name that nobody offered is the server's to answer, with an error.
    pub(super) fn side(&self, name: &str) -> CallSide {
        if self.client.contains(name) {
            return CallSide::Client;
        }
        let known = self.server.iter().find(|(known, _)| known == name);
        CallSide::Server(known.map_or(Effect::Pure, |(_, effect)| *effect))
    }

    pub(super) fn classify(&self, id: String, name: String, arguments: String) -> Call {
        Call {
            side: self.side(&name),
            id,
            name,
            arguments,
        }
    }

    /// Executes one call of the server's, unless a person has said how it ended. It never fails:
    /// what went wrong is the result.
    pub(super) async fn execute(
        &self,
        runner: &JobRunner,
        fence: Fence,
        recorded: RecordedCall,
    ) -> (RecordedCall, CallResult) {
        if let Standing::Settled { ok, content } = &recorded.standing {
            let result = CallResult {
                ok: *ok,
                content: content.clone(),
                duration: Duration::ZERO,
            };
            return (recorded, result);
        }
        let started = runner.clock.monotonic();
        let call = &recorded.call;
        let (ok, content) = if self.server.iter().any(|(name, _)| *name == call.name) {
            let context = ToolContext {
                run: fence.run,
                step: recorded.step,
                call_id: call.id.clone(),
                now: runner.clock.now(),
            };
            let outcome = self
                .settings
                .tools
                .execute(&call.name, &call.arguments, context)
                .await;
            (outcome.ok, outcome.content)
        } else {
            let names: Vec<_> = self.server.iter().map(|(name, _)| name.as_str()).collect();
            (
                false,
                format!(
                    "there is no tool `{}`; there are: {}",
                    call.name,
                    names.join(", ")
                ),
            )
        };
        let duration = runner.clock.monotonic() - started;
        (
            recorded,
            CallResult {
                ok,
                content,
                duration,
            },
        )
    }
}
