//! The tools of the workers, which record each execution.

use std::time::Duration;

use baton_protocol::{Effect, ToolSource};
use baton_worker::tools::{Tool, ToolContext, ToolError, ToolRegistry, ToolSetupError, ToolSpec};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::links::Service;
use crate::network::Unanswered;
use crate::outside::Outside;
use crate::world::Execution;

/// The server-side tools, by the effect of executing a call twice.
pub(crate) const SERVER_TOOLS: [(&str, Effect); 3] = [
    ("compute", Effect::Pure),
    ("put", Effect::Idempotent),
    ("pay", Effect::AtMostOnce),
];

struct SimulatedTool {
    outside: Outside,
    effect: Effect,
}

/// Adds the simulated tools of a process.
pub(crate) fn register(
    registry: &mut ToolRegistry,
    outside: &Outside,
) -> Result<(), ToolSetupError> {
    for (name, effect) in SERVER_TOOLS {
        let spec = ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            parameters: json!({"type": "object"}),
            source: ToolSource::BuiltIn,
            effect,
            timeout: Duration::from_mins(10),
        };
        let outside = outside.clone();
        registry.register(spec, SimulatedTool { outside, effect })?;
    }
    Ok(())
}

impl Tool for SimulatedTool {
    fn call<'a>(
        &'a self,
        _: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        let (run, step) = (context.run, context.step);
        let (holder, effect) = (self.outside.process(), self.effect);
        async move {
            let decided = Instant::now();
            let made = self.outside.ask(Service::Outside, move |sim| {
                let execution = Execution {
                    run,
                    step,
                    effect,
                    holder,
                    decided_at: sim.millis_of(decided.into_std()),
                };
                sim.world.borrow_mut().executions.push(execution);
                let result = format!("result {:x}", sim.below(0xffff));
                (Duration::from_millis(sim.between(5, 3_000)), result)
            });
            let (pause, result) = made
                .await
                .map_err(|Unanswered| ToolError::Failed("no answer".to_owned()))?;
            sleep(pause).await;
            Ok(result)
        }
        .boxed()
    }
}
