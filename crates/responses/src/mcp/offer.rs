//! The tools of MCP servers that a request offers its model.

use baton_protocol::{OfferedTool, RawFields, ToolDescription};
use serde::Deserialize;
use serde_json::Value;

use super::{McpList, McpServer, McpToolName};
use crate::Invalid;
use crate::items::{Item, ListedTool};
use crate::request::CreateResponse;

/// A server's hints about a tool, as far as a filter reads them.
#[derive(Default, Deserialize)]
struct Hints {
    #[serde(rename = "readOnlyHint", default)]
    read_only: bool,
}

fn is_read_only(described: &ToolDescription) -> bool {
    let hints = described.annotations.as_deref();
    let hints = hints.and_then(|hints| serde_json::from_str(hints.get()).ok());
    let hints: Hints = hints.unwrap_or_default();
    hints.read_only
}

fn listed(name: &str, described: &ToolDescription) -> ListedTool {
    let json = |raw: &serde_json::value::RawValue| serde_json::from_str(raw.get()).ok();
    ListedTool {
        name: name.to_owned(),
        description: Some(described.description.clone()),
        input_schema: json(&described.parameters).unwrap_or(Value::Null),
        annotations: described.annotations.as_deref().and_then(json),
    }
}

impl CreateResponse {
    /// Returns whether the request names MCP servers. Then [`Self::offer_tools`] must precede its run.
    pub fn names_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Checks the MCP servers that the request names. Returns the names for models of the tools that it wants.
    pub fn wanted_tools(&self, servers: &[McpServer]) -> Result<Vec<String>, Invalid> {
        let mut names = Vec::new();
        for requested in &self.servers {
            let (_, tools) = requested.find(servers)?;
            names.extend(tools.into_iter().map(|tool| tool.offered.clone()));
        }
        let taken = names.iter().find(|name| self.tool_names.contains(name));
        if let Some(name) = taken {
            let message = format!(
                "`tools` has a function `{name}`, which is also the name of an MCP server's tool for the model: \
                 rename the function"
            );
            return Err(Invalid::field("invalid_tools", "tools", message));
        }
        Ok(names)
    }

    /// Offers the tools of the MCP servers that the request names. `described` are the wanted tools as a worker
    /// describes them, or the reason why none does.
    pub fn offer_tools(
        &mut self,
        servers: &[McpServer],
        described: Result<&[ToolDescription], &str>,
    ) -> Result<(), Invalid> {
        for requested in &self.servers {
            let (server, _) = requested.find(servers)?;
            let mut list = McpList {
                server_label: server.label.clone(),
                description: requested.description.clone(),
                tools: Vec::new(),
                error: described.err().map(str::to_owned),
            };
            for tool in &server.tools {
                let known = described.unwrap_or_default().iter();
                let known = known.clone().find(|known| known.name == tool.offered);
                let read_only = server.trusts_hints && known.is_some_and(is_read_only);
                if !requested.wants(tool, read_only) {
                    self.left_out.push(tool.offered.clone());
                    continue;
                }
                match known.map(|known| (known, &known.unavailable)) {
                    Some((known, None)) => list.tools.push(listed(&tool.name, known)),
                    Some((_, Some(why))) => list.error = Some(why.clone()),
                    None => {}
                }
                self.server_tools.push(OfferedTool {
                    name: tool.offered.clone(),
                    approval: requested.rule(tool, read_only),
                    approved: Vec::new(),
                });
                self.settings.mcp_tools.push(McpToolName {
                    server_label: server.label.clone(),
                    name: tool.name.clone(),
                    offered: tool.offered.clone(),
                });
            }
            self.settings.mcp.push(list);
        }
        if let Some(choice) = &self.choice {
            let choice = choice.resolve(&self.settings.mcp_tools)?;
            let fields = self.params.fields().into_iter();
            let fields = fields.chain([("tool_choice".into(), &*choice)]);
            self.params = RawFields::from_fields(fields);
        }
        Ok(())
    }

    /// Gives the calls of MCP servers' tools in the input their names for the model. `earlier` are the tools of
    /// the response that this one goes on from.
    pub fn name_calls(&mut self, earlier: Vec<McpToolName>) {
        let known = &mut self.settings.mcp_tools;
        for tool in earlier {
            if McpToolName::find(known, &tool.offered).is_none() {
                known.push(tool);
            }
        }
        for item in &mut self.input {
            let Item::McpCall(call) = item else {
                continue;
            };
            let same = |tool: &&McpToolName| {
                tool.server_label == call.server_label && tool.name == call.name
            };
            if let Some(tool) = known.iter().find(same) {
                call.offered.clone_from(&tool.offered);
            } else {
                known.push(McpToolName {
                    server_label: call.server_label.clone(),
                    name: call.name.clone(),
                    offered: call.offered.clone(),
                });
            }
        }
    }
}

/// Returns a name, which upstreams take, for an earlier call of a tool that is not offered.
pub(crate) fn called_name(label: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let whole = format!("{label}__{name}");
    let name = whole.chars().map(|c| if plain(c) { c } else { '_' });
    name.take(64).collect()
}
