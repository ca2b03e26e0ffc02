//! The tools of a server, as it lists them.

use std::time::Duration;

use rmcp::model::Tool;
use serde::Serialize;
use serde_json::Value;

/// The most bytes of the description, the schema and the hints of a tool together.
pub(crate) const MAX_DEFINITION: usize = 16 * 1024;

/// The tools of a server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listing {
    /// The tools, in the server's order.
    pub tools: Vec<ToolInfo>,
    /// The time for which the server says that the list holds.
    pub ttl: Option<Duration>,
}

impl Listing {
    /// Returns the tool of that name.
    pub fn get(&self, name: &str) -> Option<&ToolInfo> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

/// A tool of a server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolInfo {
    /// The server's name for it.
    pub name: String,
    /// The description for the model.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
    /// Whether the server says that the tool changes nothing.
    pub read_only: bool,
    /// Whether the server says that a repeated call has no further effect.
    pub idempotent: bool,
    /// All of the server's hints about the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

impl ToolInfo {
    pub(crate) fn of(tool: &Tool) -> Self {
        let title = tool.title.as_deref();
        let description = tool.description.as_deref().or(title).unwrap_or_default();
        let hints = tool.annotations.as_ref();
        let hint = |hint: Option<bool>| hint.unwrap_or(false);
        Self {
            name: tool.name.to_string(),
            description: description.to_owned(),
            parameters: Value::Object((*tool.input_schema).clone()),
            read_only: hint(hints.and_then(|it| it.read_only_hint)),
            idempotent: hint(hints.and_then(|it| it.idempotent_hint)),
            annotations: hints.and_then(|hints| serde_json::to_value(hints).ok()),
        }
    }

    /// Returns whether a model can be offered a definition of this size.
    pub fn is_too_large(&self) -> bool {
        let hints = self
            .annotations
            .as_ref()
            .map_or(0, |it| it.to_string().len());
        self.description.len() + self.parameters.to_string().len() + hints > MAX_DEFINITION
    }
}
