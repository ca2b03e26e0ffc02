//! Items of MCP servers: their lists of tools, and calls.

use baton_protocol::Decision;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{Item, Output};
use crate::Invalid;
use crate::mcp::{McpToolName, called_name};
use crate::read::{At, Object};

/// A tool as its server lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedTool {
    /// The server's name for it.
    pub name: String,
    /// The description for the model.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub input_schema: Value,
    /// The server's hints about it.
    pub annotations: Option<Value>,
}

/// A call of an MCP server's tool, with its result.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct McpCall {
    /// The item's id.
    pub id: String,
    /// Its progress.
    pub status: McpCallStatus,
    /// The server.
    pub server_label: String,
    /// The server's name for the tool.
    pub name: String,
    /// JSON as the model wrote it, which may not be valid.
    pub arguments: String,
    /// The result.
    pub output: Option<String>,
    /// The failure.
    pub error: Option<McpCallError>,
    /// The item that asked a person about it.
    pub approval_request_id: Option<String>,
    /// The call's id for the model.
    #[serde(skip)]
    pub(crate) call_id: String,
    /// The tool's name for the model.
    #[serde(skip)]
    pub(crate) offered: String,
}

/// The progress of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum McpCallStatus {
    /// It goes on.
    #[default]
    InProgress,
    /// It has a result.
    Completed,
    /// It broke off.
    Incomplete,
    /// It has failed.
    Failed,
}

/// The text of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpCallError(pub String);

impl Serialize for McpCallError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = json!([{"type": "text", "text": self.0}]);
        json!({"type": "mcp_tool_execution_error", "content": content}).serialize(serializer)
    }
}

impl McpCall {
    /// Sets the result.
    pub(crate) fn end(&mut self, ok: bool, text: String) {
        if ok {
            self.status = McpCallStatus::Completed;
            self.output = Some(text);
        } else {
            self.status = McpCallStatus::Failed;
            self.error = Some(McpCallError(text));
        }
    }

    /// Returns what the model reads as the result.
    pub(crate) fn result(&self) -> &str {
        let error = self.error.as_ref().map(|error| &*error.0);
        self.output.as_deref().or(error).unwrap_or_default()
    }
}

/// Reads a call, of which `type` has been taken.
pub(super) fn read_call(at: &At<'_>, object: &mut Object<'_>) -> Result<Item, Invalid> {
    let id = object.take_string("id")?;
    if let Some(status) = object.take("status") {
        let words = [
            "in_progress",
            "completed",
            "incomplete",
            "calling",
            "failed",
        ];
        if !words.contains(&&*status.string()?) {
            return Err(status.one_of(&words));
        }
    }
    let output = object.take_string("output")?;
    let error = object.take("error").map(|error| read_error(&error));
    let error = error.transpose()?;
    let approval_request_id = object.take_string("approval_request_id")?;
    let (server_label, name) = (
        object.need_string("server_label")?,
        object.need_string("name")?,
    );
    let mut call = McpCall {
        // An item has the id of its place; the model knows the call by the client's.
        call_id: id.unwrap_or_else(|| at.path.replace(['[', ']'], "_")),
        offered: called_name(&server_label, &name),
        server_label,
        name,
        arguments: object.need_string("arguments")?,
        approval_request_id,
        ..McpCall::default()
    };
    match (output, error) {
        (Some(output), None) => call.end(true, output),
        (_, Some(error)) => call.end(false, error),
        (None, None) => {
            return Err(at.unsupported("has no `output` and no `error`: leave the item out"));
        }
    }
    Ok(Item::McpCall(Box::new(call)))
}

/// Reads a failure: a text, or an object with one.
fn read_error(at: &At<'_>) -> Result<String, Invalid> {
    if at.is_string() {
        return at.string();
    }
    let error: Value = serde_json::from_str(at.readable()?.get())
        .map_err(|_| at.must_be("a string or an object"))?;
    let parts = error["content"].as_array().into_iter().flatten();
    let texts: Vec<_> = parts.filter_map(|part| part["text"].as_str()).collect();
    Ok(match (&*texts, error["message"].as_str()) {
        ([], Some(message)) => message.to_owned(),
        ([], None) => error.to_string(),
        (texts, _) => texts.join("\n"),
    })
}

/// Reads a list of tools, of which `type` has been taken. The model reads the lists of the request's own
/// servers.
pub(super) fn read_list(object: &mut Object<'_>) -> Result<Item, Invalid> {
    object.take_string("id")?;
    let server_label = object.need_string("server_label")?;
    let mut tools = Vec::new();
    for at in object.need("tools")?.array()? {
        let mut tool = at.object()?;
        let json = |at: Option<At<'_>>| -> Result<Option<Value>, Invalid> {
            let Some(at) = at else {
                return Ok(None);
            };
            let value = serde_json::from_str(at.readable()?.get());
            value.map(Some).map_err(|_| at.must_be("JSON"))
        };
        tools.push(ListedTool {
            name: tool.need_string("name")?,
            description: tool.take_string("description")?,
            input_schema: json(tool.take("input_schema"))?.unwrap_or(Value::Null),
            annotations: json(tool.take("annotations"))?,
        });
        tool.finish()?;
    }
    let error = object.take("error").map(|error| read_error(&error));
    Ok(Item::McpListTools {
        id: String::new(),
        server_label,
        tools,
        error: error.transpose()?,
    })
}

/// Reads a call that waits, of which `type` has been taken.
pub(super) fn read_question(object: &mut Object<'_>) -> Result<Item, Invalid> {
    Ok(Item::McpApprovalRequest {
        id: object.need_string("id")?,
        server_label: object.need_string("server_label")?,
        name: object.need_string("name")?,
        arguments: object.need_string("arguments")?,
    })
}

/// Reads an answer, of which `type` has been taken.
pub(super) fn read_answer(object: &mut Object<'_>) -> Result<Item, Invalid> {
    object.take_string("id")?;
    let reason = object.take("reason");
    let text = reason.as_ref().map(At::string).transpose()?;
    if let Some(at) = reason
        && text
            .as_ref()
            .is_some_and(|text| text.len() > Decision::MAX_TEXT)
    {
        return Err(at.must_be(&format!("at most {} bytes long", Decision::MAX_TEXT)));
    }
    Ok(Item::McpApprovalResponse {
        id: String::new(),
        approval_request_id: object.need_string("approval_request_id")?,
        approve: object.need("approve")?.bool()?,
        reason: text,
    })
}

/// Shows the calls of MCP servers' tools among items, and the results of these calls, as one item each.
pub fn with_mcp_calls(items: Vec<Item>, tools: &[McpToolName]) -> Vec<Item> {
    let mut shown: Vec<Item> = Vec::with_capacity(items.len());
    let mut open: Vec<(String, usize)> = Vec::new();
    for item in items {
        match item {
            Item::FunctionCall {
                call_id,
                name,
                arguments,
                status,
                id,
            } => match McpToolName::find(tools, &name) {
                Some(tool) => {
                    open.push((call_id.clone(), shown.len()));
                    shown.push(Item::McpCall(Box::new(McpCall {
                        status: McpCallStatus::Incomplete,
                        server_label: tool.server_label.clone(),
                        name: tool.name.clone(),
                        arguments,
                        call_id,
                        offered: name,
                        ..McpCall::default()
                    })));
                }
                None => shown.push(Item::FunctionCall {
                    id,
                    status,
                    call_id,
                    name,
                    arguments,
                }),
            },
            Item::FunctionCallOutput {
                call_id,
                output: Output::Text(text),
                ..
            } if open.iter().any(|(id, _)| *id == call_id) => {
                // Ids repeat in conversations of some upstreams, and a result belongs to the last call.
                let place = open.iter().rposition(|(id, _)| *id == call_id);
                let place = place.map(|place| open.remove(place).1);
                if let Some(Item::McpCall(call)) = place.and_then(|place| shown.get_mut(place)) {
                    call.end(true, text);
                }
            }
            other => shown.push(other),
        }
    }
    shown
}
