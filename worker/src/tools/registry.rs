//! The tools of this worker, and the checks of each call.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use baton_admission::tool_arguments;
use baton_openai::Tool as OpenAiTool;
use baton_outbound::{Guard, Policy};
use baton_protocol::{CallPause, Effect, ToolDescription};
use baton_service::Config;
use baton_service::config::OutboundConfig;
use futures_util::FutureExt as _;
use jsonschema::Validator;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{
    Calculator, CallEnd, CurrentTime, HttpRequest, HttpTool, McpTools, Tool, ToolContext,
    ToolError, ToolOutcome, ToolSetupError, ToolSpec, WebSearch,
};

/// The longest result, in bytes.
const MAX_CONTENT: usize = 64 * 1024;

/// A tool that can be called.
pub struct RegisteredTool {
    spec: ToolSpec,
    definition: Box<RawValue>,
    schema: Validator,
    tool: Box<dyn Tool>,
    /// The hints of its MCP server.
    annotations: Option<Value>,
    /// The reason why it cannot be used.
    unavailable: Option<String>,
}

impl RegisteredTool {
    /// Checks a tool's name and schema, and writes its definition.
    pub(super) fn new(spec: ToolSpec, tool: Box<dyn Tool>) -> Result<Self, ToolSetupError> {
        let name = spec.name.clone();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(ToolSetupError::Name(name));
        }
        let unusable = |what: String| ToolSetupError::Schema {
            name: name.clone(),
            what,
        };
        let schema = tool_arguments::compile(&spec.parameters).map_err(unusable)?;
        let definition = to_raw_value(&OpenAiTool::function(
            &spec.name,
            &spec.description,
            spec.parameters.clone(),
        ))
        .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            spec,
            definition,
            schema,
            tool,
            annotations: None,
            unavailable: None,
        })
    }

    /// Adds the hints of its MCP server.
    #[must_use]
    pub(super) fn with_annotations(mut self, annotations: Option<Value>) -> Self {
        self.annotations = annotations;
        self
    }

    /// Says that it cannot be used, and why.
    #[must_use]
    pub(super) fn unavailable(mut self, why: &str) -> Self {
        self.unavailable = Some(why.to_owned());
        self
    }

    /// Returns the description of the tool.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// Returns the effect of executing a call twice.
    pub fn effect(&self) -> Effect {
        self.spec.effect
    }

    /// Returns the description for the model: an OpenAI tool object.
    pub fn definition(&self) -> &RawValue {
        &self.definition
    }

    /// Describes the tool to other processes.
    pub(crate) fn describe(&self) -> ToolDescription {
        let spec = &self.spec;
        ToolDescription {
            name: spec.name.clone(),
            description: spec.description.clone(),
            // A JSON value serialises into memory.
            parameters: to_raw_value(&spec.parameters).unwrap_or_default(),
            source: spec.source,
            effect: spec.effect,
            timeout_ms: u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX),
            approval_required: false,
            annotations: self
                .annotations
                .as_ref()
                .and_then(|it| to_raw_value(it).ok()),
            unavailable: self.unavailable.clone(),
        }
    }

    /// Reads the arguments of a call.
    ///
    /// # Errors
    /// The mistakes, for the model.
    pub(crate) fn read(&self, arguments: &str) -> Result<Value, String> {
        tool_arguments::read(&self.spec.name, &self.schema, arguments)
    }

    /// Executes one call. An error becomes the result. Dropping the future stops the call.
    ///
    /// # Errors
    /// The state in which the tool's server has left the call, which has no result yet.
    pub(crate) async fn execute(
        &self,
        arguments: &str,
        context: ToolContext,
    ) -> Result<ToolOutcome, Box<CallPause>> {
        let name = &*self.spec.name;
        let arguments = match self.read(arguments) {
            Ok(arguments) => arguments,
            Err(mistakes) => return Ok(outcome(CallEnd::InvalidArguments, mistakes)),
        };
        // A tool's state is behind `&self`: after a panic, its locks are its own responsibility.
        let call = AssertUnwindSafe(async { self.tool.call(arguments, &context).await });
        let result = match timeout(self.spec.timeout, call.catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(ToolError::Panicked),
            Err(_) => {
                let limit = self.spec.timeout;
                let content = format!("`{name}` did not end within {limit:?} and was stopped.");
                return Ok(outcome(CallEnd::TimedOut, content));
            }
        };
        Ok(match result {
            Ok(content) => outcome(CallEnd::Ok, content),
            Err(ToolError::Paused(pause)) => return Err(pause),
            Err(error @ ToolError::Arguments(_)) => {
                outcome(CallEnd::InvalidArguments, error.to_string())
            }
            Err(error @ ToolError::Failed(_)) => outcome(CallEnd::Failed, error.to_string()),
            Err(ToolError::Panicked) => {
                tracing::error!(tool.name = name, run.id = %context.run, "a tool panicked");
                outcome(
                    CallEnd::Panicked,
                    format!("`{name}` crashed; try something else."),
                )
            }
        })
    }
}

impl fmt::Debug for RegisteredTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

/// The right to make one call, until dropped.
#[derive(Debug)]
pub struct CallSlot(
    #[expect(dead_code, reason = "it counts while it lives")] Option<OwnedSemaphorePermit>,
);

/// The calls that a process makes at a time, by tool. A reload keeps them.
#[derive(Debug)]
struct CallSlots {
    /// The most calls of one tool.
    of_one: usize,
    by_tool: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl CallSlots {
    fn of_tool(&self, name: &str) -> Arc<Semaphore> {
        let mut slots = self.by_tool.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = slots.entry(name.to_owned());
        Arc::clone(slots.or_insert_with(|| Arc::new(Semaphore::new(self.of_one))))
    }
}

/// The server's tools, by name.
#[derive(Debug)]
pub struct ToolRegistry {
    tools: BTreeMap<String, Arc<RegisteredTool>>,
    mcp: McpTools,
    slots: Arc<CallSlots>,
}

impl ToolRegistry {
    /// Creates a registry of the built-in tools, and those that the operator configured.
    pub fn new(config: &Config) -> Result<Self, ToolSetupError> {
        Self::after(config, None)
    }

    /// As [`ToolRegistry::new`]; MCP servers that have not changed keep their connections, and calls
    /// under way their slots.
    pub(crate) fn after(config: &Config, earlier: Option<&Self>) -> Result<Self, ToolSetupError> {
        let slots = earlier.map(|earlier| Arc::clone(&earlier.slots));
        let mut registry = Self {
            tools: BTreeMap::new(),
            mcp: McpTools::default(),
            slots: slots.unwrap_or_else(|| {
                Arc::new(CallSlots {
                    of_one: config.worker.tool_concurrency,
                    by_tool: Mutex::default(),
                })
            }),
        };
        let timeout = config.worker.tool_timeout;
        registry.register(Calculator::spec(timeout), Calculator::default())?;
        registry.register(CurrentTime::spec(timeout), CurrentTime)?;
        let guard = guard(&config.outbound);
        if let Some(tool) = WebSearch::new(&config.web_search, &guard)? {
            registry.register(WebSearch::spec(timeout), tool)?;
        }
        if let Some(tool) = HttpRequest::new(&config.http_request, &config.outbound)? {
            registry.register(HttpRequest::spec(&config.http_request, timeout), tool)?;
        }
        for tool in &config.tools.http {
            registry.register(HttpTool::spec(tool), HttpTool::new(tool, &guard)?)?;
        }
        registry.mcp = McpTools::new(config, &guard, earlier.map(|earlier| &earlier.mcp))?;
        Ok(registry)
    }

    /// Adds a tool.
    pub fn register(&mut self, spec: ToolSpec, tool: impl Tool) -> Result<(), ToolSetupError> {
        let tool = RegisteredTool::new(spec, Box::new(tool))?;
        let name = &tool.spec.name;
        if self.tools.contains_key(name) {
            return Err(ToolSetupError::Twice(name.clone()));
        }
        self.tools.insert(name.clone(), Arc::new(tool));
        Ok(())
    }

    /// Returns the tool of that name, unless it is an MCP server's.
    pub fn get(&self, name: &str) -> Option<&RegisteredTool> {
        self.tools.get(name).map(AsRef::as_ref)
    }

    /// Returns the tool of that name. A tool of an MCP server is as the server lists it now; one that
    /// cannot be used now says so.
    pub(crate) async fn find(&self, name: &str) -> Option<Arc<RegisteredTool>> {
        match self.tools.get(name) {
            Some(tool) => Some(Arc::clone(tool)),
            None => self.mcp.find(name).await,
        }
    }

    /// Waits until this process makes fewer calls of the tool than it may.
    pub async fn slot(&self, name: &str) -> CallSlot {
        let permit = self.slots.of_tool(name).acquire_owned().await;
        // The semaphore is never closed.
        CallSlot(permit.ok())
    }

    /// Cancels a task at the server of a tool. Without the tool there is no such server, and nothing to do.
    ///
    /// # Errors
    /// The reason why the task is not cancelled.
    pub(crate) async fn cancel_task(&self, name: &str, id: &str) -> Result<(), String> {
        self.mcp.cancel_task(name, id).await
    }

    /// Returns all tools but those of MCP servers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RegisteredTool> {
        self.tools.values().map(AsRef::as_ref)
    }

    /// Returns the MCP servers' tools.
    pub(crate) fn mcp(&self) -> &McpTools {
        &self.mcp
    }

    /// Executes one call. An error becomes the result. Dropping the future stops the call.
    ///
    /// # Errors
    /// The state in which the tool's server has left the call, which has no result yet.
    pub async fn execute(
        &self,
        name: &str,
        arguments: &str,
        context: ToolContext,
    ) -> Result<ToolOutcome, Box<CallPause>> {
        if let Some(tool) = self.find(name).await {
            return tool.execute(arguments, context).await;
        }
        let known: Vec<_> = self.tools.keys().map(|name| format!("`{name}`")).collect();
        let content = format!(
            "There is no tool `{name}`. There are: {}.",
            known.join(", ")
        );
        Ok(outcome(CallEnd::UnknownTool, content))
    }
}

/// Returns the guard of outbound connections that the operator configured.
pub(super) fn guard(config: &OutboundConfig) -> Guard {
    Guard::new(Policy {
        allow_networks: config.allow_networks.clone(),
        ..Policy::default()
    })
}

fn outcome(end: CallEnd, mut content: String) -> ToolOutcome {
    let cut = content.len() > MAX_CONTENT;
    if cut {
        let whole = content.len();
        content.truncate(content.floor_char_boundary(MAX_CONTENT));
        // Writing to a string cannot fail.
        let _ = write!(
            content,
            "\n[cut: {whole} bytes, the first {MAX_CONTENT} are shown]"
        );
    }
    ToolOutcome {
        ok: end == CallEnd::Ok,
        content,
        end,
        cut,
    }
}

#[cfg(test)]
mod tests;
