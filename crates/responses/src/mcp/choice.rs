//! A `tool_choice` that names tools of MCP servers. The names for the model are known once the servers are.

use serde_json::json;
use serde_json::value::RawValue;

use super::McpToolName;
use crate::Invalid;
use crate::read::WRONG_VALUE;
use crate::tools::raw;

/// A tool that a choice names.
#[derive(Debug)]
pub(crate) enum Chosen {
    /// A function of the client.
    Function(String),
    /// A tool of an MCP server, or all of them.
    Mcp {
        /// The place in the request.
        path: String,
        /// The server.
        label: String,
        /// The tool; `None` for all.
        name: Option<String>,
    },
}

/// A choice among tools, some of them MCP servers'.
#[derive(Debug)]
pub(crate) struct McpChoice {
    /// `auto`, or `required`: one of the tools must be called.
    pub(crate) mode: String,
    /// The tools.
    pub(crate) tools: Vec<Chosen>,
}

impl McpChoice {
    /// Returns the choice in the form of the chat API. `offered` are the tools that the model is offered.
    pub(super) fn resolve(&self, offered: &[McpToolName]) -> Result<Box<RawValue>, Invalid> {
        let mut names = Vec::new();
        for chosen in &self.tools {
            match chosen {
                Chosen::Function(name) => names.push(name.as_str()),
                Chosen::Mcp { path, label, name } => {
                    let before = names.len();
                    let of_server = offered.iter().filter(|tool| {
                        tool.server_label == *label
                            && name.as_ref().is_none_or(|name| *name == tool.name)
                    });
                    names.extend(of_server.map(|tool| &*tool.offered));
                    if names.len() == before {
                        let message = format!("`{path}` names no tool that this request offers");
                        return Err(Invalid::field(WRONG_VALUE, &**path, message));
                    }
                }
            }
        }
        let function = |name: &&str| json!({"type": "function", "function": {"name": name}});
        Ok(match &*names {
            [name] if self.mode == "required" => raw(&function(name)),
            names => {
                let tools: Vec<_> = names.iter().map(function).collect();
                raw(&json!({"type": "allowed_tools",
                            "allowed_tools": {"mode": self.mode, "tools": tools}}))
            }
        })
    }
}
