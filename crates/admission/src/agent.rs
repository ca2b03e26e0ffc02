//! An agent as a run is made from it, and the agent of servers that keep none.

use std::borrow::Cow;
use std::collections::BTreeSet;

use baton_metering::ANSWER_LIMITS;
use baton_protocol::agent::{
    AgentDefinition, ArgumentsSchema, InvalidDefinition, TextFormatKind, ToolApproval,
};
use baton_protocol::{OfferedTool, OnLimit, RawFields, UseLimits};
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::tool_arguments;

/// The agent of requests that name only a model.
pub(crate) const DEFAULT_AGENT: &str = "default";

/// A named configuration that runs are made from.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Instructions before the messages, with their variables.
    pub instructions: Option<String>,
    /// Its model; if absent, the request names one.
    pub model: Option<String>,
    /// The models to ask instead of its own, in their order.
    pub fallbacks: Vec<String>,
    /// The server-side tools that the model may call.
    pub server_tools: Vec<OfferedTool>,
    /// Fields of the chat API that a request gets if it does not set them.
    pub params: Vec<(&'static str, Box<RawValue>)>,
    /// The most model turns.
    pub max_turns: u32,
    /// The most tokens over all turns.
    pub max_total_tokens: Option<u64>,
    /// The most that a run may use up.
    pub most: UseLimits,
    /// The effect of reaching one of those limits.
    pub on_limit: OnLimit,
}

impl Agent {
    /// Reads a definition. The server's limits and its default model hold for every agent.
    pub fn of(definition: &AgentDefinition, version: u32, server: &BuiltInAgent) -> Self {
        let limits = &definition.limits;
        let tools = definition.tools.iter();
        let server_tools = tools.map(|tool| server.offer(&tool.name, tool.approval.clone()));
        Self {
            name: definition.name.clone(),
            version,
            instructions: definition.instructions.clone(),
            model: definition
                .model
                .clone()
                .or_else(|| server.default_model.clone()),
            fallbacks: definition.fallbacks.clone(),
            server_tools: server_tools.collect(),
            params: params(definition),
            max_turns: limits.max_turns.unwrap_or(u32::MAX).min(server.max_turns),
            max_total_tokens: limits.max_total_tokens,
            // Checked when the agent was made.
            most: limits.most().unwrap_or_default(),
            on_limit: definition.on_limit.unwrap_or_default(),
        }
    }
}

/// Checks every value of a definition, and the conditions of its tools. `tool_names` are the server's tools.
///
/// # Errors
/// The first field with a value that cannot be used.
pub fn check_definition(
    definition: &AgentDefinition,
    tool_names: &[String],
) -> Result<(), InvalidDefinition> {
    definition.check(tool_names)?;
    for (place, tool) in definition.tools.iter().enumerate() {
        if let ToolApproval::When(ArgumentsSchema(schema)) = &tool.approval {
            tool_arguments::check_condition(schema).map_err(|mistake| InvalidDefinition {
                param: format!("tools[{place}].approval.when"),
                message: format!("the condition {mistake}"),
            })?;
        }
    }
    Ok(())
}

/// Returns the parameters of a definition in the words of the chat API.
fn params(definition: &AgentDefinition) -> Vec<(&'static str, Box<RawValue>)> {
    let format = definition.text.as_ref().map(|text| &text.format);
    let response_format = format.map(|format| match format.kind {
        TextFormatKind::Text => json_text(&json!({"type": "text"})),
        TextFormatKind::JsonObject => json_text(&json!({"type": "json_object"})),
        TextFormatKind::JsonSchema => json_text(&ResponseFormat {
            kind: "json_schema",
            json_schema: JsonSchema {
                name: format.name.as_deref(),
                description: format.description.as_deref(),
                schema: format.schema.as_deref(),
                strict: format.strict,
            },
        }),
    });
    let [answer_limit, _] = ANSWER_LIMITS;
    let reasoning = definition.reasoning.as_ref();
    [
        (
            "temperature",
            definition.temperature.map(|value| json_text(&value)),
        ),
        ("top_p", definition.top_p.map(|value| json_text(&value))),
        (
            answer_limit,
            definition.max_output_tokens.map(|value| json_text(&value)),
        ),
        (
            "reasoning_effort",
            reasoning.map(|reasoning| json_text(&reasoning.effort)),
        ),
        ("response_format", response_format),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// The format of an answer, as the chat API has it.
#[derive(Serialize)]
struct ResponseFormat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    json_schema: JsonSchema<'a>,
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    schema: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

fn json_text<T: Serialize>(value: &T) -> Box<RawValue> {
    to_raw_value(value).expect("texts, finite numbers and raw JSON serialise into memory")
}

/// Adds an agent's parameters to those of a request, which win. The two names of the answer's limit
/// count as one.
pub(crate) fn with_defaults(
    params: RawFields,
    defaults: &[(&'static str, Box<RawValue>)],
) -> RawFields {
    let is_set = |name: &str| {
        let limited = ANSWER_LIMITS.contains(&name);
        params.get(name).is_some()
            || limited
                && ANSWER_LIMITS
                    .iter()
                    .any(|other| params.get(other).is_some())
    };
    let added: Vec<_> = defaults.iter().filter(|(name, _)| !is_set(name)).collect();
    if added.is_empty() {
        return params;
    }
    let added = added
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(*name), &**value));
    RawFields::from_fields(params.fields().into_iter().chain(added))
}

/// A source of agents.
pub trait AgentSource: Send + Sync {
    /// Returns the agent of this name, if it exists.
    fn find(&self, name: &str) -> Option<Agent>;
}

/// The only agent of a server that keeps none: `default`, version 0, with the configured tools.
#[derive(Debug, Clone, Default)]
pub struct BuiltInAgent {
    /// The model if a request names none.
    pub default_model: Option<String>,
    /// The configured server-side tools; many upstreams refuse a request that offers some.
    pub server_tools: Vec<String>,
    /// The tools that the operator requires approval for, in every agent.
    pub approval_required: BTreeSet<String>,
    /// The most model turns.
    pub max_turns: u32,
}

impl BuiltInAgent {
    /// Returns a tool with its rule: the stricter of the agent's and the operator's.
    pub(crate) fn offer(&self, tool: &str, approval: ToolApproval) -> OfferedTool {
        OfferedTool {
            name: tool.to_owned(),
            approval: if self.approval_required.contains(tool) {
                ToolApproval::Always
            } else {
                approval
            },
            approved: Vec::new(),
        }
    }
}

impl AgentSource for BuiltInAgent {
    fn find(&self, name: &str) -> Option<Agent> {
        (name == DEFAULT_AGENT).then(|| Agent {
            name: DEFAULT_AGENT.to_owned(),
            version: 0,
            instructions: None,
            model: self.default_model.clone(),
            fallbacks: Vec::new(),
            server_tools: self
                .server_tools
                .iter()
                .map(|tool| self.offer(tool, ToolApproval::Never))
                .collect(),
            params: Vec::new(),
            max_turns: self.max_turns,
            max_total_tokens: None,
            most: UseLimits::default(),
            on_limit: OnLimit::Stop,
        })
    }
}
