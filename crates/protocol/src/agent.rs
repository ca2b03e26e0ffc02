//! The definition of an agent: the configuration that its runs are made from, as a team writes it.
//!
//! A definition is one JSON object, the same in a request, in a file and in the ledger. It has no field
//! that this build does not serve: an unknown one is refused by its name.

mod instructions;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use instructions::{InstructionValues, InvalidVariable, Variable, render, variables};

use crate::limits::{InvalidLimit, OnLimit, RequestLimits, UseLimits};
use crate::raw_fields::RawFields;

/// The longest name of an agent.
const MAX_NAME: usize = 63;
/// Bytes.
const MAX_DESCRIPTION: usize = 1_000;
/// Bytes.
const MAX_INSTRUCTIONS: usize = 32 * 1024;
/// Bytes; the longest name of a model.
const MAX_MODEL: usize = 512;
/// As many as an upstream takes.
const MAX_TOOLS: usize = 128;
/// Models.
const MAX_FALLBACKS: usize = 8;
/// Bytes of JSON.
const MAX_METADATA: usize = 16 * 1024;
/// The largest limit that the ledger can store.
const MOST: u64 = i32::MAX as u64;

/// A named configuration: instructions, model, tools, parameters and limits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "support",
    "instructions": "You answer questions of customers. Today is {{date}}.",
    "model": "gpt-4o-mini",
    "tools": [{"type": "server", "name": "current_time"}],
}))]
pub struct AgentDefinition {
    /// A lower-case letter, then lower-case letters, digits and hyphens: at most 63 in all.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,62}$")]
    pub name: String,
    /// A text for people; at most 1,000 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub description: Option<String>,
    /// A system message before the messages of each run; at most 32 KiB. `{{date}}`, `{{user_name}}`
    /// and `{{metadata.KEY}}` are replaced when a run is accepted; `\{{` is a literal `{{`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32768)]
    pub instructions: Option<String>,
    /// The model, if a request names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512)]
    pub model: Option<String>,
    /// The models to ask instead, in this order, if `model` does not answer; at most 8. A request that names
    /// a model has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub fallbacks: Vec<String>,
    /// The tools that the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 128)]
    pub tools: Vec<AgentTool>,
    /// The sampling temperature, 0 to 2, if a request sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// The nucleus to sample from, 0 to 1, if a request sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// The most tokens of one answer of the model, if a request sets no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<u64>,
    /// The reasoning of the model, if a request does not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// The form of the answer, if a request does not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextOptions>,
    /// The limits of each run. A request may set lower ones.
    #[serde(default, skip_serializing_if = "AgentLimits::is_empty")]
    pub limits: AgentLimits,
    /// The effect of reaching `max_tokens`, `max_cost` or `max_tool_calls`, if a request does not set it:
    /// `stop`, `hand_back` or `park`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<OnLimit>,
    /// Anything else for people and programs; an object of at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<RawFields>,
}

/// A tool of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentTool {
    /// The side that executes it.
    #[serde(rename = "type")]
    pub kind: AgentToolKind,
    /// Its name.
    #[schema(pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    pub name: String,
    /// Whether a person must approve each call, or those with certain arguments. The operator may require
    /// that of each call too, and an agent cannot lift it.
    #[serde(default, skip_serializing_if = "ToolApproval::is_never")]
    pub approval: ToolApproval,
}

/// The rule for the calls of a tool that wait for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolApproval {
    /// No call waits.
    #[default]
    Never,
    /// Every call waits until a person has approved it.
    Always,
    /// The calls with arguments that match this JSON Schema wait.
    When(ArgumentsSchema),
}

impl ToolApproval {
    /// Returns the stricter of two rules. Two different conditions are no rule that can be stored: then every
    /// call waits.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, rule) | (rule, Self::Never) => rule,
            (one, other) if one == other => one,
            _ => Self::Always,
        }
    }

    /// Returns whether no call waits.
    pub const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// A JSON Schema of a call's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(value_type = Object)]
pub struct ArgumentsSchema(pub Map<String, Value>);

/// The side that executes a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentToolKind {
    /// The server: a built-in tool, or one of its configuration.
    Server,
}

/// The reasoning of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reasoning {
    /// The effort in the upstream's words, such as `low`, `medium` or `high`.
    #[schema(pattern = "^[a-z]{1,20}$")]
    pub effort: String,
}

/// The form of an answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// Its format.
    pub format: TextFormat,
}

/// The format of an answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextFormat {
    /// Plain text, any JSON object, or JSON by a schema.
    #[serde(rename = "type")]
    pub kind: TextFormatKind,
    /// The schema's name: 1 to 64 letters, digits, `_` and `-`. Only for `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    pub name: Option<String>,
    /// The purpose of the format, for the model. Only for `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON Schema. Only for `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Box<RawValue>>,
    /// Whether the upstream must keep exactly to the schema. Only for `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// The kind of an answer's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextFormatKind {
    /// Text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON by the given schema.
    JsonSchema,
}

/// The limits of an agent's runs.
#[expect(clippy::struct_field_names, reason = "the names are those of requests")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentLimits {
    /// Model turns; the server's own limit unless said, and at most that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_turns: Option<u32>,
    /// Tokens over all turns; unlimited unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_total_tokens: Option<u64>,
    /// Tokens over all turns, read and written; never exceeded. Unlimited unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u64>,
    /// A decimal number in the currency of the prices; never exceeded. Unlimited unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
    pub max_cost: Option<String>,
    /// Calls of the server's tools; unlimited unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tool_calls: Option<u32>,
    /// The time from the first claim of a run, such as `90s`, `5m` or `1h`; unlimited unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9]{1,9}(ms|s|m|h)$")]
    pub max_wall_time: Option<String>,
}

impl AgentLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the limits of what a run may use up.
    pub fn most(&self) -> Result<UseLimits, InvalidLimit> {
        let limits = RequestLimits {
            max_tokens: self.max_tokens,
            max_cost: self.max_cost.clone(),
            max_tool_calls: self.max_tool_calls,
            max_wall_time: self.max_wall_time.clone(),
        };
        limits.read()
    }
}

/// A definition with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidDefinition {
    /// The path of the field at fault.
    pub param: String,
    /// One sentence that says what to change.
    pub message: String,
}

impl InvalidDefinition {
    fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: param.into(),
            message: message.into(),
        }
    }
}

/// Returns whether an agent may have this name.
pub fn is_agent_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(allowed)
}

impl AgentDefinition {
    /// Checks every value. `server_tools` are the names of the server's tools.
    pub fn check(&self, server_tools: &[String]) -> Result<(), InvalidDefinition> {
        if !is_agent_name(&self.name) {
            let message = format!(
                "`name` is a lower-case letter, then lower-case letters, digits and hyphens, at \
                 most {MAX_NAME} in all"
            );
            return Err(InvalidDefinition::new("name", message));
        }
        check_length("description", self.description.as_deref(), MAX_DESCRIPTION)?;
        check_length(
            "instructions",
            self.instructions.as_deref(),
            MAX_INSTRUCTIONS,
        )?;
        if let Some(instructions) = &self.instructions {
            variables(instructions)
                .map_err(|error| InvalidDefinition::new("instructions", error.to_string()))?;
        }
        self.check_model()?;
        self.check_tools(server_tools)?;
        self.check_parameters()?;
        if let Some(text) = &self.text {
            text.format.check()?;
        }
        let Self {
            limits, metadata, ..
        } = self;
        let turns = limits.max_turns.map(u64::from);
        for (param, limit) in [
            ("max_output_tokens", self.max_output_tokens),
            ("limits.max_turns", turns),
            ("limits.max_total_tokens", limits.max_total_tokens),
        ] {
            if limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
                let message = format!("`{param}` is a whole number from 1 to {MOST}");
                return Err(InvalidDefinition::new(param, message));
            }
        }
        if let Err(InvalidLimit { field, message }) = limits.most() {
            let message = message.replacen(field, &format!("limits.{field}"), 1);
            return Err(InvalidDefinition::new(format!("limits.{field}"), message));
        }
        let size = metadata.as_ref().map_or(0, |it| it.as_raw().get().len());
        if size > MAX_METADATA {
            let message = format!("`metadata` may hold at most {MAX_METADATA} bytes of JSON");
            return Err(InvalidDefinition::new("metadata", message));
        }
        Ok(())
    }

    fn check_model(&self) -> Result<(), InvalidDefinition> {
        let is_name = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
        if self.model.as_deref().is_some_and(|model| !is_name(model)) {
            let message = "`model` is the name of a model, without control characters; leave it out \
                           to have each request name one";
            return Err(InvalidDefinition::new("model", message));
        }
        check_length("model", self.model.as_deref(), MAX_MODEL)?;
        if self.fallbacks.len() > MAX_FALLBACKS {
            let message = format!("`fallbacks` holds at most {MAX_FALLBACKS} models");
            return Err(InvalidDefinition::new("fallbacks", message));
        }
        for (index, model) in self.fallbacks.iter().enumerate() {
            let param = format!("fallbacks[{index}]");
            if !is_name(model) {
                let message =
                    format!("`{param}` is the name of a model, without control characters");
                return Err(InvalidDefinition::new(param, message));
            }
            check_length(&param, Some(model), MAX_MODEL)?;
            let before = self.model.iter().chain(&self.fallbacks[..index]);
            if before.into_iter().any(|other| other == model) {
                let message = format!("`{param}` names a model that is asked before");
                return Err(InvalidDefinition::new(param, message));
            }
        }
        Ok(())
    }

    fn check_tools(&self, server_tools: &[String]) -> Result<(), InvalidDefinition> {
        if self.tools.len() > MAX_TOOLS {
            let message = format!("`tools` holds at most {MAX_TOOLS} tools");
            return Err(InvalidDefinition::new("tools", message));
        }
        for (index, tool) in self.tools.iter().enumerate() {
            let param = format!("tools[{index}].name");
            if !server_tools.contains(&tool.name) {
                let message = format!(
                    "`{param}` names no tool of this server: it has {}",
                    server_tools.join(", ")
                );
                return Err(InvalidDefinition::new(param, message));
            }
            let before = &self.tools[..index];
            if before.iter().any(|other| other.name == tool.name) {
                let message = format!("`{param}` names a tool that is there already");
                return Err(InvalidDefinition::new(param, message));
            }
        }
        Ok(())
    }

    fn check_parameters(&self) -> Result<(), InvalidDefinition> {
        for (param, value, most) in [
            ("temperature", self.temperature, 2.0),
            ("top_p", self.top_p, 1.0),
        ] {
            if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
                let message = format!("`{param}` is a number from 0 to {most}");
                return Err(InvalidDefinition::new(param, message));
            }
        }
        let word = |effort: &str| {
            (1..=20).contains(&effort.len()) && effort.bytes().all(|b| b.is_ascii_lowercase())
        };
        if self.reasoning.as_ref().is_some_and(|it| !word(&it.effort)) {
            let message = "`reasoning.effort` is a word in lower case, such as low, medium or high";
            return Err(InvalidDefinition::new("reasoning.effort", message));
        }
        Ok(())
    }
}

impl TextFormat {
    fn check(&self) -> Result<(), InvalidDefinition> {
        let invalid = |field: &str, message: &str| {
            let param = format!("text.format.{field}");
            let message = format!("`{param}` {message}");
            Err(InvalidDefinition::new(param, message))
        };
        if self.kind != TextFormatKind::JsonSchema {
            for (field, is_there) in [
                ("name", self.name.is_some()),
                ("description", self.description.is_some()),
                ("schema", self.schema.is_some()),
                ("strict", self.strict.is_some()),
            ] {
                if is_there {
                    return invalid(
                        field,
                        "is for a format of the type json_schema: leave it out",
                    );
                }
            }
            return Ok(());
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let fits = |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(allowed);
        if !self.name.as_ref().is_some_and(fits) {
            return invalid("name", "must be there: 1 to 64 letters, digits, _ and -");
        }
        if !self
            .schema
            .as_ref()
            .is_some_and(|schema| schema.get().starts_with('{'))
        {
            return invalid("schema", "must be there: a JSON Schema, which is an object");
        }
        Ok(())
    }
}

/// Refuses a text that is too long, or has a character that no text column takes.
fn check_length(param: &str, text: Option<&str>, most: usize) -> Result<(), InvalidDefinition> {
    if text.is_none_or(|text| text.len() <= most && !text.contains('\0')) {
        return Ok(());
    }
    let message = format!("`{param}` has at most {most} bytes, and no NUL character");
    Err(InvalidDefinition::new(param, message))
}

#[cfg(test)]
mod tests;
