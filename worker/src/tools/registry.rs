//! The tools of this worker, and the checks of each call.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use baton_openai::Tool as OpenAiTool;
use baton_outbound::{Guard, Policy};
use baton_protocol::Effect;
use baton_service::Config;
use baton_service::config::OutboundConfig;
use futures_util::FutureExt as _;
use jsonschema::Validator;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::timeout;

use super::{
    Calculator, CallEnd, CurrentTime, HttpTool, McpTools, Tool, ToolContext, ToolError,
    ToolOutcome, ToolSetupError, ToolSpec, arguments,
};

/// The longest result, in bytes.
const MAX_CONTENT: usize = 64 * 1024;

/// A tool that can be called.
pub struct RegisteredTool {
    spec: ToolSpec,
    definition: Box<RawValue>,
    schema: Validator,
    tool: Box<dyn Tool>,
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
        let schema = arguments::compile(&spec.parameters).map_err(unusable)?;
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
        })
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

    /// Executes one call. Never fails: an error becomes the result. Dropping the future stops the
    /// call.
    pub(crate) async fn execute(&self, arguments: &str, context: ToolContext) -> ToolOutcome {
        let name = &*self.spec.name;
        let arguments = match arguments::read(name, &self.schema, arguments) {
            Ok(arguments) => arguments,
            Err(mistakes) => return outcome(CallEnd::InvalidArguments, mistakes),
        };
        // A tool's state is behind `&self`: after a panic, its locks are its own responsibility.
        let call = AssertUnwindSafe(async { self.tool.call(arguments, &context).await });
        let result = match timeout(self.spec.timeout, call.catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(ToolError::Panicked),
            Err(_) => {
                let limit = self.spec.timeout;
                let content = format!("`{name}` did not end within {limit:?} and was stopped.");
                return outcome(CallEnd::TimedOut, content);
            }
        };
        match result {
            Ok(content) => outcome(CallEnd::Ok, content),
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
        }
    }
}

impl fmt::Debug for RegisteredTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

/// The server's tools, by name.
#[derive(Debug, Default)]
pub struct ToolRegistry {
    tools: BTreeMap<String, Arc<RegisteredTool>>,
    mcp: McpTools,
}

impl ToolRegistry {
    /// Creates a registry of the built-in tools, and those that the operator configured.
    pub fn new(config: &Config) -> Result<Self, ToolSetupError> {
        Self::after(config, None)
    }

    /// As [`ToolRegistry::new`]; MCP servers that have not changed keep their connections.
    pub(crate) fn after(config: &Config, earlier: Option<&Self>) -> Result<Self, ToolSetupError> {
        let mut registry = Self::default();
        let timeout = config.worker.tool_timeout;
        registry.register(Calculator::spec(timeout), Calculator::default())?;
        registry.register(CurrentTime::spec(timeout), CurrentTime)?;
        let guard = guard(&config.outbound);
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

    /// Returns all tools but those of MCP servers, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RegisteredTool> {
        self.tools.values().map(AsRef::as_ref)
    }

    /// Returns the MCP servers' tools.
    pub(crate) fn mcp(&self) -> &McpTools {
        &self.mcp
    }

    /// Executes one call. Never fails: an error becomes the result. Dropping the future stops the
    /// call.
    pub async fn execute(&self, name: &str, arguments: &str, context: ToolContext) -> ToolOutcome {
        if let Some(tool) = self.find(name).await {
            return tool.execute(arguments, context).await;
        }
        let known: Vec<_> = self.tools.keys().map(|name| format!("`{name}`")).collect();
        let content = format!(
            "There is no tool `{name}`. There are: {}.",
            known.join(", ")
        );
        outcome(CallEnd::UnknownTool, content)
    }
}

/// Returns the guard of outbound connections that the operator configured.
fn guard(config: &OutboundConfig) -> Guard {
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
