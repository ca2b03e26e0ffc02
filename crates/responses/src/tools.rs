//! `tools` and `tool_choice`: from the form of this wire to that of the chat API.

use baton_protocol::RawFields;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Invalid;
use crate::mcp::{Chosen, McpChoice, RequestedServer, read_server};
use crate::read::{At, Object, cut};

/// Tools of one request.
const MAX_TOOLS: usize = 128;

/// A function, in the form of this wire with all keys.
#[derive(Debug, Serialize)]
struct Function<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    description: Option<String>,
    parameters: Option<&'a RawValue>,
    strict: bool,
}

/// A function, in the form of the chat API.
#[derive(Debug, Serialize)]
struct ChatTool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: ChatFunction<'a>,
}

#[derive(Debug, Serialize)]
struct ChatFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// The tools of a request.
#[derive(Debug)]
pub(crate) struct Tools {
    /// In the form of this wire.
    pub(crate) shown: Box<RawValue>,
    /// In the form of the chat API; `None` if there are none.
    pub(crate) chat: Option<Box<RawValue>>,
    /// The names of the functions.
    pub(crate) names: Vec<String>,
    /// The MCP servers.
    pub(crate) servers: Vec<RequestedServer>,
}

impl Tools {
    pub(crate) fn none() -> Self {
        Self {
            shown: raw(&[(); 0]),
            chat: None,
            names: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Returns whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.servers.is_empty()
    }

    pub(crate) fn read(at: &At<'_>) -> Result<Self, Invalid> {
        if !at.json.get().starts_with('[') {
            return Err(at.must_be("an array of tools"));
        }
        let elements = at.array()?;
        if elements.len() > MAX_TOOLS {
            let message = format!(
                "`tools` holds {} tools; {MAX_TOOLS} are allowed",
                elements.len()
            );
            return Err(Invalid::field("invalid_tools", "tools", message));
        }
        let mut functions = Vec::with_capacity(elements.len());
        let mut given_strict = Vec::with_capacity(elements.len());
        let mut servers: Vec<RequestedServer> = Vec::new();
        let mut shown = Vec::with_capacity(elements.len());
        for element in &elements {
            let mut object = element.object()?;
            let kind = object.need("type")?;
            if kind.is_string() && kind.string()? == "mcp" {
                let (server, form) = read_server(element, &mut object)?;
                object.finish()?;
                server.check_place(&servers)?;
                servers.push(server);
                shown.push(form);
                continue;
            }
            let (function, strict) = read_function(element)?;
            if functions
                .iter()
                .any(|known: &Function<'_>| known.name == function.name)
            {
                let path = format!("{}.name", element.path);
                let message = format!("`{path}`: two tools are named `{}`", function.name);
                return Err(Invalid::field("invalid_tools", path, message));
            }
            shown.push(raw(&function));
            functions.push(function);
            given_strict.push(strict);
        }
        let chat: Vec<_> = functions
            .iter()
            .zip(given_strict)
            .map(|(function, strict)| ChatTool {
                kind: "function",
                function: ChatFunction {
                    name: &function.name,
                    description: function.description.as_deref(),
                    parameters: function.parameters,
                    strict,
                },
            })
            .collect();
        Ok(Self {
            shown: raw(&shown),
            chat: (!chat.is_empty()).then(|| raw(&chat)),
            names: functions
                .iter()
                .map(|function| function.name.clone())
                .collect(),
            servers,
        })
    }
}

/// Reads a function; returns with it whether the client chose strictness.
fn read_function<'a>(at: &At<'a>) -> Result<(Function<'a>, Option<bool>), Invalid> {
    let mut object = at.object()?;
    let kind = object.need("type")?;
    let kind_name = kind.string()?;
    if kind_name != "function" {
        let message = format!(
            "`{}` may not be \"{}\": this server serves functions of the client and MCP \
             servers. Write \"function\" or \"mcp\", or leave the tool out",
            kind.path,
            cut(&kind_name)
        );
        return Err(Invalid::unsupported(kind.path, message));
    }
    let name_at = object.need("name")?;
    let name = name_at.string()?;
    let is_valid = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !is_valid {
        return Err(name_at.must_be("1 to 64 letters, digits, `_` or `-`"));
    }
    let description = object.take_string("description")?;
    let parameters = match object.take("parameters") {
        None => None,
        Some(parameters) if parameters.is_object() => Some(parameters.readable()?),
        Some(parameters) => return Err(parameters.must_be("an object, the JSON Schema")),
    };
    let strict = object.take_bool("strict")?;
    if let Some(deferred) = object.take("defer_loading")
        && deferred.bool()?
    {
        return Err(deferred.unsupported("must be false: tools are always loaded"));
    }
    object.finish()?;
    let function = Function {
        kind: "function",
        name,
        description,
        parameters,
        strict: strict.unwrap_or(false),
    };
    Ok((function, strict))
}

/// The choice among the tools.
#[derive(Debug)]
pub(crate) struct Choice {
    /// In the form of this wire.
    pub(crate) shown: Box<RawValue>,
    /// In the form of the chat API; `None` for the client that chose nothing, or tools of MCP servers.
    pub(crate) chat: Option<Box<RawValue>>,
    /// A choice that names tools of MCP servers.
    pub(crate) mcp: Option<McpChoice>,
}

const WORDS: [&str; 3] = ["none", "auto", "required"];

impl Choice {
    pub(crate) fn automatic() -> Self {
        Self {
            shown: raw(&"auto"),
            chat: None,
            mcp: None,
        }
    }

    pub(crate) fn read(at: &At<'_>, names: &[String]) -> Result<Self, Invalid> {
        if at.is_string() {
            let word = at.string()?;
            if !WORDS.contains(&&*word) {
                return Err(at.one_of(&WORDS));
            }
            return Ok(Self {
                shown: raw(&word),
                chat: Some(raw(&word)),
                mcp: None,
            });
        }
        if !at.is_object() {
            return Err(at.must_be("a string or an object"));
        }
        let mut object = at.object()?;
        let kind = object.need("type")?;
        let mut mcp = None;
        let (shown, chat) = match &*kind.string()? {
            "function" => {
                let name = read_name(&object.need("name")?, names)?;
                (
                    json!({"type": "function", "name": name}),
                    json!({"type": "function", "function": {"name": name}}),
                )
            }
            "mcp" => {
                let (chosen, shown) = read_mcp(at, &mut object)?;
                let tools = vec![chosen];
                let mode = "required".to_owned();
                mcp = Some(McpChoice { mode, tools });
                (shown, json!(null))
            }
            "allowed_tools" => {
                let mode = object.need("mode")?;
                let mode_name = mode.string()?;
                if !["auto", "required"].contains(&&*mode_name) {
                    return Err(mode.one_of(&["auto", "required"]));
                }
                let (mut shown, mut chat) = (Vec::new(), Vec::new());
                let mut chosen = Vec::new();
                for tool in object.need("tools")?.array()? {
                    let mut fields = tool.object()?;
                    let kind = fields.need("type")?;
                    if kind.is_string() && kind.string()? == "mcp" {
                        let (tool, form) = read_mcp(&tool, &mut fields)?;
                        fields.finish()?;
                        chosen.push(tool);
                        shown.push(form);
                        continue;
                    }
                    if kind.string()? != "function" {
                        return Err(kind.one_of(&["function", "mcp"]));
                    }
                    let name = read_name(&fields.need("name")?, names)?;
                    fields.finish()?;
                    shown.push(json!({"type": "function", "name": name}));
                    chosen.push(Chosen::Function(name.clone()));
                    chat.push(json!({"type": "function", "function": {"name": name}}));
                }
                if chosen.len() > chat.len() {
                    let mode = mode_name.clone();
                    let tools = chosen;
                    mcp = Some(McpChoice { mode, tools });
                }
                (
                    json!({"type": "allowed_tools", "mode": mode_name, "tools": shown}),
                    json!({"type": "allowed_tools",
                           "allowed_tools": {"mode": mode_name, "tools": chat}}),
                )
            }
            _ => {
                return Err(kind.unsupported(
                    "must be \"function\", \"mcp\" or \"allowed_tools\": this server serves no other tools",
                ));
            }
        };
        object.finish()?;
        Ok(Self {
            shown: raw(&shown),
            chat: mcp.is_none().then(|| raw(&chat)),
            mcp,
        })
    }
}

/// Reads a chosen tool of an MCP server, of which `type` has been taken; returns it as the response shows it.
fn read_mcp(at: &At<'_>, object: &mut Object<'_>) -> Result<(Chosen, Value), Invalid> {
    let label = object.need_string("server_label")?;
    let name = object.take_string("name")?;
    let shown = json!({"type": "mcp", "server_label": label, "name": name});
    let path = at.path.clone();
    Ok((Chosen::Mcp { path, label, name }, shown))
}

fn read_name(at: &At<'_>, names: &[String]) -> Result<String, Invalid> {
    let name = at.string()?;
    if names.contains(&name) {
        return Ok(name);
    }
    let message = format!("`{}` names no tool of `tools`", at.path);
    Err(Invalid::field("invalid_value", &*at.path, message))
}

/// Writes a value as JSON.
pub(crate) fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    // Everything written here has string keys and finite numbers.
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawFields::default().into_raw())
}
