//! A tool of the type `mcp`: a server, the tools of it that a request wants, and those that wait for a person.

use baton_protocol::agent::ToolApproval;
use serde_json::json;
use serde_json::value::RawValue;

use super::{MAX_SERVERS, McpServer, McpTool};
use crate::Invalid;
use crate::read::{At, Object, WRONG_VALUE, cut};
use crate::tools::raw;

/// The longest `server_description`, in bytes.
const MAX_DESCRIPTION: usize = 4 * 1024;

/// The fields that name another server, or say how to reach one.
const REFUSED: [(&str, &str); 5] = [
    (
        "authorization",
        "is refused: the token of a server is part of its registration. Leave it out",
    ),
    (
        "headers",
        "is refused: the headers for a server are part of its registration. Leave it out",
    ),
    (
        "connector_id",
        "is refused: this server has no connectors. Name a registered server in `server_label`",
    ),
    (
        "tunnel_id",
        "is refused: this server has no tunnels. Name a registered server in `server_label`",
    ),
    (
        "allowed_callers",
        "is refused: the model calls the tools directly. Leave it out",
    ),
];

/// A server that a request names.
#[derive(Debug)]
pub(crate) struct RequestedServer {
    path: String,
    /// The name that it is registered by.
    pub(super) label: String,
    url: Option<String>,
    /// The client's text about it, for the model.
    pub(super) description: Option<String>,
    allowed: Option<ToolFilter>,
    approval: ApprovalRule,
}

/// Some tools of a server: those with both properties.
#[derive(Debug)]
struct ToolFilter {
    path: String,
    names: Option<Vec<(String, String)>>,
    read_only: bool,
}

impl ToolFilter {
    fn holds(&self, tool: &McpTool, read_only: bool) -> bool {
        let named = self.names.as_ref();
        named.is_none_or(|names| names.iter().any(|(_, name)| *name == tool.name))
            && (read_only || !self.read_only)
    }
}

/// The tools with calls that wait for a person. A tool that no filter names does.
#[derive(Debug)]
enum ApprovalRule {
    Always,
    Never,
    Filtered {
        always: Option<ToolFilter>,
        never: Option<ToolFilter>,
    },
}

/// Reads a tool of the type `mcp`, of which `type` has been taken. Returns with it the form that the response
/// shows.
pub(crate) fn read_server(
    at: &At<'_>,
    object: &mut Object<'_>,
) -> Result<(RequestedServer, Box<RawValue>), Invalid> {
    for (name, why) in REFUSED {
        if let Some(field) = object.take(name) {
            return Err(field.unsupported(why));
        }
    }
    if let Some(deferred) = object.take("defer_loading")
        && deferred.bool()?
    {
        return Err(deferred.unsupported("must be false: tools are always loaded"));
    }
    let label = object.need_string("server_label")?;
    let url = object.take_string("server_url")?;
    let about = object.take("server_description");
    let description = about.as_ref().map(At::string).transpose()?;
    if let Some(about) = about.filter(|about| about.json.get().len() > MAX_DESCRIPTION) {
        return Err(about.must_be(&format!("at most {MAX_DESCRIPTION} bytes long")));
    }
    let allowed = object.take("allowed_tools");
    let approval = object.take("require_approval");
    let shown = raw(&json!({
        "type": "mcp",
        "server_label": label,
        "server_description": description,
        "server_url": url,
        "allowed_tools": allowed.as_ref().map(At::readable).transpose()?,
        "require_approval": approval.as_ref().map(At::readable).transpose()?.map_or(json!("always"), |given| json!(given)),
    }));
    let server = RequestedServer {
        path: at.path.clone(),
        label,
        url,
        description,
        allowed: allowed.map(|at| read_allowed(&at)).transpose()?,
        approval: approval.map_or(Ok(ApprovalRule::Always), |at| read_approval(&at))?,
    };
    Ok((server, shown))
}

fn read_allowed(at: &At<'_>) -> Result<ToolFilter, Invalid> {
    if at.is_object() {
        return read_filter(at);
    }
    if !at.json.get().starts_with('[') {
        return Err(at.must_be("an array of names, or an object with `tool_names`"));
    }
    Ok(ToolFilter {
        path: at.path.clone(),
        names: Some(read_names(at)?),
        read_only: false,
    })
}

fn read_filter(at: &At<'_>) -> Result<ToolFilter, Invalid> {
    let mut object = at.object()?;
    let names = object.take("tool_names").map(|names| read_names(&names));
    let names = names.transpose()?;
    let read_only = match object.take("read_only") {
        None => false,
        Some(hint) if hint.bool()? => true,
        Some(hint) => return Err(hint.unsupported("may only be true: leave it out")),
    };
    object.finish()?;
    if names.is_none() && !read_only {
        return Err(at.must_be("an object with `tool_names`, `read_only` or both"));
    }
    Ok(ToolFilter {
        path: at.path.clone(),
        names,
        read_only,
    })
}

fn read_names(at: &At<'_>) -> Result<Vec<(String, String)>, Invalid> {
    let names = at.array()?;
    if names.is_empty() {
        return Err(at.must_be("an array of at least one name"));
    }
    let names = names.into_iter();
    names
        .map(|at| Ok((at.path.clone(), at.string()?)))
        .collect()
}

fn read_approval(at: &At<'_>) -> Result<ApprovalRule, Invalid> {
    if at.is_object() {
        let mut object = at.object()?;
        let mut filter = |name: &str| object.take(name).map(|at| read_filter(&at)).transpose();
        let (always, never) = (filter("always")?, filter("never")?);
        object.finish()?;
        return Ok(ApprovalRule::Filtered { always, never });
    }
    match at.is_string().then(|| at.string()).transpose()?.as_deref() {
        Some("always") => Ok(ApprovalRule::Always),
        Some("never") => Ok(ApprovalRule::Never),
        _ => Err(at.must_be("\"always\", \"never\", or an object with filters of these names")),
    }
}

impl RequestedServer {
    /// Checks the server's place after those before it.
    pub(crate) fn check_place(&self, before: &[Self]) -> Result<(), Invalid> {
        let path = format!("{}.server_label", self.path);
        let message = if before.len() >= MAX_SERVERS {
            format!("`{path}`: a request names at most {MAX_SERVERS} MCP servers: leave some out")
        } else if before.iter().any(|known| known.label == self.label) {
            format!(
                "`{path}` names `{}` twice: join the two tools",
                cut(&self.label)
            )
        } else {
            return Ok(());
        };
        Err(Invalid::field("invalid_tools", path, message))
    }

    /// Returns the registered server, and those of its tools that the request names.
    pub(super) fn find<'a>(
        &self,
        servers: &'a [McpServer],
    ) -> Result<(&'a McpServer, Vec<&'a McpTool>), Invalid> {
        let Some(server) = servers.iter().find(|server| server.label == self.label) else {
            return Err(self.unknown(servers));
        };
        self.check_address(server)?;
        let (always, never) = match &self.approval {
            ApprovalRule::Filtered { always, never } => (always.as_ref(), never.as_ref()),
            ApprovalRule::Always | ApprovalRule::Never => (None, None),
        };
        for filter in [self.allowed.as_ref(), always, never].into_iter().flatten() {
            check_filter(filter, server)?;
        }
        let wanted = |tool: &&McpTool| {
            let allowed = self.allowed.as_ref();
            // The server's descriptions decide about `read_only` later.
            allowed.is_none_or(|allowed| allowed.holds(tool, true))
        };
        Ok((server, server.tools.iter().filter(wanted).collect()))
    }

    /// Returns whether the request wants one of those tools.
    pub(super) fn wants(&self, tool: &McpTool, read_only: bool) -> bool {
        let allowed = self.allowed.as_ref();
        allowed.is_none_or(|allowed| allowed.holds(tool, read_only))
    }

    /// Returns the request's rule for the calls of a tool.
    pub(super) fn rule(&self, tool: &McpTool, read_only: bool) -> ToolApproval {
        let is_free = match &self.approval {
            ApprovalRule::Always => false,
            ApprovalRule::Never => true,
            ApprovalRule::Filtered { always, never } => {
                let holds = |filter: &Option<ToolFilter>| {
                    let filter = filter.as_ref();
                    filter.is_some_and(|filter| filter.holds(tool, read_only))
                };
                holds(never) && !holds(always)
            }
        };
        if is_free {
            ToolApproval::Never
        } else {
            ToolApproval::Always
        }
    }

    fn unknown(&self, servers: &[McpServer]) -> Invalid {
        let labels: Vec<_> = servers.iter().map(|server| &*server.label).collect();
        let there_are = match &*labels {
            [] => {
                "there is none for this key: the operator registers one in `[[mcp.servers]]`".into()
            }
            labels => format!("there are: {}", labels.join(", ")),
        };
        let path = format!("{}.server_label", self.path);
        let message = format!("`{path}` names no registered MCP server; {there_are}");
        Invalid::field(WRONG_VALUE, path, message)
    }

    /// A request cannot lead anywhere else: the address that it may name is the registered one.
    fn check_address(&self, server: &McpServer) -> Result<(), Invalid> {
        let Some(url) = &self.url else {
            return Ok(());
        };
        let is_same = server
            .address
            .as_ref()
            .is_some_and(|address| url.trim_end_matches('/') == address.trim_end_matches('/'));
        if is_same {
            return Ok(());
        }
        let path = format!("{}.server_url", self.path);
        let message = format!(
            "`{path}` is not the address that `{}` is registered with: leave it out, or have the operator \
             register a server with this address in `[[mcp.servers]]`",
            server.label
        );
        Err(Invalid::field(WRONG_VALUE, path, message))
    }
}

fn check_filter(filter: &ToolFilter, server: &McpServer) -> Result<(), Invalid> {
    for (path, name) in filter.names.iter().flatten() {
        if server.tools.iter().all(|tool| tool.name != *name) {
            let names: Vec<_> = server.tools.iter().map(|tool| &*tool.name).collect();
            let message = format!(
                "`{path}` names no tool of `{}` that this key may use; there are: {}",
                server.label,
                names.join(", ")
            );
            return Err(Invalid::field(WRONG_VALUE, &**path, message));
        }
    }
    if filter.read_only && !server.trusts_hints {
        let path = format!("{}.read_only", filter.path);
        let message = format!(
            "`{path}` needs a server with hints that the operator trusts, which `{}` is not: write \
             `tool_names`",
            server.label
        );
        return Err(Invalid::field(WRONG_VALUE, path, message));
    }
    Ok(())
}
