//! The tools that one run offers its model: the client's and the server's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use baton_admission::tool_arguments;
use baton_nats::JobHeaders;
use baton_protocol::agent::{ArgumentsSchema, ToolApproval};
use baton_protocol::{CallPause, Effect, Fence, RunSpec};
use futures_util::future::join_all;
use jsonschema::Validator;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::agent::turn_machine::{RecordedCall, Standing};
use crate::agent::{Call, CallSide};
use crate::runner::JobRunner;
use crate::settings::Settings;
use crate::tools::{CallEnd, CallSlot, RegisteredTool, ToolContext, ToolRegistry};
use crate::world::World;

/// The way in which the execution of a call has ended.
pub(super) enum Executed {
    /// With a result.
    Ended(CallResult),
    /// The server has left the call in this state.
    Paused(CallPause),
}

/// The result of a call.
pub(super) struct CallResult {
    /// Whether the tool succeeded.
    pub(super) ok: bool,
    /// The result for the model.
    pub(super) content: String,
    /// The end of the call; none if a person has decided its result.
    pub(super) end: Option<CallEnd>,
    /// The duration of the call.
    pub(super) duration: Duration,
}

/// The tools of one run.
pub(super) struct Toolbox {
    client: HashSet<String>,
    server: Vec<ServerTool>,
    offered: Option<Box<RawValue>>,
}

/// A tool of the server's, under the rules of this run.
struct ServerTool {
    tool: Arc<RegisteredTool>,
    guard: Guard,
}

/// The calls of a tool that a person must approve.
enum Guard {
    None,
    All,
    /// Those with arguments that match.
    Matching(Validator),
}

impl Guard {
    fn new(approval: &ToolApproval) -> Self {
        match approval {
            ToolApproval::Never => Self::None,
            ToolApproval::Always => Self::All,
            // The condition was checked when the agent was made. Another version of the library may
            // read it differently, and then a person sees every call.
            ToolApproval::When(ArgumentsSchema(schema)) => {
                let condition = tool_arguments::compile(&Value::Object(schema.clone()));
                condition.map_or(Self::All, Self::Matching)
            }
        }
    }

    fn holds(&self, arguments: &Value) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Matching(condition) => condition.is_valid(arguments),
        }
    }
}

impl Toolbox {
    pub(super) async fn new(spec: &RunSpec, settings: &Settings) -> Self {
        let registry = &settings.tools;
        let client: HashSet<String> = spec.client_tools().into_iter().collect();
        let mut offered: Vec<Box<RawValue>> = spec
            .tools
            .as_deref()
            .and_then(|tools| serde_json::from_str(tools.get()).ok())
            .unwrap_or_default();
        // A client's tool of the same name wins. A tool that the configuration no longer has is not
        // offered; an earlier recorded call of it is answered with an error.
        let tools = spec.server_tools.iter();
        let tools = tools.filter(|tool| !client.contains(&tool.name));
        let found = join_all(tools.map(async |tool| {
            // The run keeps the rule that it was accepted with. One that the operator added since holds too.
            let guard = if settings.approval_required.contains(&tool.name) {
                Guard::All
            } else {
                Guard::new(&tool.approval)
            };
            let tool = registry.find(&tool.name).await?;
            Some(ServerTool { tool, guard })
        }));
        let server: Vec<_> = found.await.into_iter().flatten().collect();
        offered.extend(server.iter().map(|it| it.tool.definition().to_owned()));
        let offered = (!offered.is_empty())
            .then(|| serde_json::value::to_raw_value(&offered).ok())
            .flatten();
        Self {
            client,
            server,
            offered,
        }
    }

    /// Returns whether a person must approve calls of any of its tools.
    pub(super) fn is_guarded(&self) -> bool {
        self.server
            .iter()
            .any(|it| !matches!(it.guard, Guard::None))
    }

    /// Lets these tools be called without another approval.
    pub(super) fn lift_guards(&mut self, granted: &[String]) {
        for it in &mut self.server {
            if granted.contains(&it.tool.spec().name) {
                it.guard = Guard::None;
            }
        }
    }

    /// Returns all tools in the upstream's form, if there are any.
    pub(super) fn offered(&self) -> Option<&RawValue> {
        self.offered.as_deref()
    }

    /// Returns the party that executes a tool. The server answers an unknown name with an error.
    pub(super) fn side(&self, name: &str) -> CallSide {
        if self.client.contains(name) {
            return CallSide::Client;
        }
        CallSide::Server(self.find(name).map_or(Effect::Pure, |tool| tool.effect()))
    }

    fn find(&self, name: &str) -> Option<&Arc<RegisteredTool>> {
        Some(&self.server_tool(name)?.tool)
    }

    fn server_tool(&self, name: &str) -> Option<&ServerTool> {
        self.server.iter().find(|it| it.tool.spec().name == name)
    }

    /// Returns whether a person must approve this call. Nobody is asked about a call that reaches no tool:
    /// the model gets the mistake instead.
    pub(super) fn needs_approval(&self, name: &str, arguments: &str) -> bool {
        self.server_tool(name).is_some_and(|it| {
            let arguments = it.tool.read(arguments);
            arguments.is_ok_and(|arguments| it.guard.holds(&arguments))
        })
    }

    /// Returns the JSON text of the schema of a tool's arguments.
    pub(super) fn parameters(&self, name: &str) -> Option<String> {
        Some(self.find(name)?.spec().parameters.to_string())
    }

    pub(super) fn classify(&self, id: String, name: String, arguments: String) -> Call {
        let side = self.side(&name);
        Call {
            needs_approval: side != CallSide::Client && self.needs_approval(&name, &arguments),
            side,
            id,
            name,
            arguments,
            edited: false,
            resumes: None,
        }
    }

    /// Waits until this process makes fewer calls of the tool than it may. A call without a tool,
    /// or with a result, waits for nothing.
    pub(super) async fn slot(
        &self,
        registry: &ToolRegistry,
        recorded: &RecordedCall,
    ) -> Option<CallSlot> {
        if matches!(recorded.standing, Standing::Settled { .. }) {
            return None;
        }
        let tool = self.find(&recorded.call.name)?;
        Some(registry.slot(&tool.spec().name).await)
    }

    /// Executes one server-side call, unless a person has decided its result. Never fails: an error
    /// becomes the result.
    pub(super) async fn execute<W: World>(
        &self,
        runner: &JobRunner<W>,
        fence: Fence,
        recorded: RecordedCall,
        headers: JobHeaders,
    ) -> (RecordedCall, Executed) {
        if let Standing::Settled { ok, content } = &recorded.standing {
            let result = CallResult {
                ok: *ok,
                content: with_edit(&recorded.call, content.clone()),
                end: None,
                duration: Duration::ZERO,
            };
            return (recorded, Executed::Ended(result));
        }
        let started = runner.clock.monotonic();
        let call = &recorded.call;
        let (end, content) = if let Some(tool) = self.find(&call.name) {
            let context = ToolContext {
                run: fence.run,
                step: recorded.step,
                call_id: call.id.clone(),
                request_id: headers.request_id,
                traceparent: headers.traceparent,
                now: runner.clock.now(),
                resumes: call.resumes.clone(),
            };
            match tool.execute(&call.arguments, context).await {
                Ok(outcome) => (outcome.end, outcome.content),
                Err(pause) => return (recorded, Executed::Paused(*pause)),
            }
        } else {
            let names: Vec<_> = self.server.iter().map(|it| &*it.tool.spec().name).collect();
            (
                CallEnd::UnknownTool,
                format!(
                    "there is no tool `{}`; there are: {}",
                    call.name,
                    names.join(", ")
                ),
            )
        };
        let duration = runner.clock.monotonic() - started;
        let content = with_edit(call, content);
        let result = CallResult {
            ok: end == CallEnd::Ok,
            content,
            end: Some(end),
            duration,
        };
        (recorded, Executed::Ended(result))
    }
}

/// Adds the arguments that a person approved in place of the model's: the model's own message shows the
/// others.
fn with_edit(call: &Call, content: String) -> String {
    if !call.edited {
        return content;
    }
    format!(
        "A person changed the arguments of this call to {} before it was made. The result:\n{content}",
        call.arguments
    )
}
