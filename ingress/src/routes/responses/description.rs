//! The bodies of these routes, for the description alone: `baton_responses` reads and writes them.

#![expect(dead_code, reason = "described and never made")]

use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A request for a response. Fields that are not listed travel to the upstream.
#[derive(ToSchema)]
pub(crate) struct ResponseRequest {
    /// A model's or an agent's name.
    #[schema(max_length = 512)]
    model: Option<String>,
    /// An agent's name; not part of OpenAI's API.
    #[schema(max_length = 512)]
    agent: Option<String>,
    /// A text, or an array of items.
    input: Value,
    /// A system message before the input; the next response does not inherit it.
    instructions: Option<String>,
    /// The response to go on from.
    #[schema(pattern = "^resp_[0-9a-f-]{36}$")]
    previous_response_id: Option<String>,
    /// The conversation to go on with, or an object with its `id`. It excludes `previous_response_id`.
    conversation: Option<Value>,
    /// The rule for a long conversation. It excludes `conversation`.
    #[schema(max_items = 1)]
    context_management: Option<Vec<ContextManagement>>,
    /// The rule for a conversation with a run that has not ended; not part of OpenAI's API.
    #[schema(pattern = "^(reject|queue|interrupt|rollback)$")]
    on_busy: Option<String>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
    /// Whether the run goes on without its client.
    background: Option<bool>,
    /// Whether it is kept: `false` removes it after its end. With `background` only `true`.
    store: Option<bool>,
    /// `flex` is the background lane.
    #[schema(pattern = "^(auto|default|flex|priority)$")]
    service_tier: Option<String>,
    /// The client's data, at most 16 texts.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// The client's own functions, and registered MCP servers: `{"type": "mcp", "server_label": …}`.
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required`, or an object that names functions.
    tool_choice: Option<Value>,
    /// Whether the model may ask for several calls in one turn.
    parallel_tool_calls: Option<bool>,
    /// The most tokens of one model turn.
    #[schema(minimum = 1)]
    max_output_tokens: Option<u64>,
    /// The most calls of the agent's tools. Then the model answers once more, without tools.
    #[schema(minimum = 0)]
    max_tool_calls: Option<u32>,
    /// The form of the text.
    #[schema(value_type = Option<Object>)]
    text: Option<Map<String, Value>>,
    /// `effort` and `summary`.
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Map<String, Value>>,
}

/// A rule by which a response compacts its conversation.
#[derive(ToSchema)]
pub(crate) struct ContextManagement {
    /// `compaction`.
    #[schema(rename = "type", pattern = "^compaction$")]
    kind: String,
    /// Once a turn has read and written this many tokens, the next one begins with a summary.
    #[schema(minimum = 1_000)]
    compact_threshold: u64,
}

/// A request for a count. The fields have the meaning that they have in a request for a response; those that
/// change no count are refused.
#[derive(ToSchema)]
pub(crate) struct CountRequest {
    /// A model's or an agent's name.
    #[schema(max_length = 512)]
    model: Option<String>,
    /// An agent's name; not part of OpenAI's API.
    #[schema(max_length = 512)]
    agent: Option<String>,
    /// A text, or an array of items.
    input: Option<Value>,
    /// A system message before the input.
    instructions: Option<String>,
    /// The response to go on from.
    #[schema(pattern = "^resp_[0-9a-f-]{36}$")]
    previous_response_id: Option<String>,
    /// The conversation, or an object with its `id`. It stays as it is.
    conversation: Option<Value>,
    /// The client's own functions, and registered MCP servers: `{"type": "mcp", "server_label": …}`.
    #[schema(value_type = Option<Vec<Object>>, max_items = 128)]
    tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required`, or an object that names functions.
    tool_choice: Option<Value>,
    /// Whether the model may ask for several calls in one turn.
    parallel_tool_calls: Option<bool>,
    /// The form of the text.
    #[schema(value_type = Option<Object>)]
    text: Option<Map<String, Value>>,
    /// `effort` and `summary`.
    #[schema(value_type = Option<Object>)]
    reasoning: Option<Map<String, Value>>,
    /// Only `disabled`.
    #[schema(pattern = "^disabled$")]
    truncation: Option<String>,
}

/// A count of tokens.
#[derive(ToSchema)]
pub(crate) struct TokenCount {
    /// `response.input_tokens`.
    object: String,
    /// The tokens that the model reads, by the upstream's count.
    input_tokens: u64,
}

/// A request for a compacted conversation. The fields have the meaning that they have in a request for a
/// response; those that change no summary are refused.
#[derive(ToSchema)]
pub(crate) struct CompactRequest {
    /// A model's or an agent's name.
    #[schema(max_length = 512)]
    model: Option<String>,
    /// An agent's name; not part of OpenAI's API.
    #[schema(max_length = 512)]
    agent: Option<String>,
    /// A text, or an array of items.
    input: Option<Value>,
    /// A system message before the input.
    instructions: Option<String>,
    /// The response to go on from.
    #[schema(pattern = "^resp_[0-9a-f-]{36}$")]
    previous_response_id: Option<String>,
    /// `flex` is the background lane.
    #[schema(pattern = "^(auto|default|flex|priority)$")]
    service_tier: Option<String>,
    /// The upstream's cache may use it.
    prompt_cache_key: Option<String>,
}

/// A compacted conversation.
#[derive(ToSchema)]
pub(crate) struct CompactionBody {
    /// `resp_`, then the run's id.
    id: String,
    /// `response.compaction`.
    object: String,
    /// Seconds since 1970.
    created_at: i64,
    /// The users' messages, then an item `compaction` with `encrypted_content`.
    #[schema(value_type = Vec<Object>)]
    output: Vec<Value>,
    /// The tokens of making the summary.
    #[schema(value_type = Object)]
    usage: Map<String, Value>,
}

/// A response. All keys are always there.
#[derive(ToSchema)]
pub(crate) struct ResponseBody {
    /// `resp_`, then the run's id.
    id: String,
    /// `response`.
    object: String,
    /// Seconds since 1970.
    created_at: i64,
    /// Seconds since 1970; of a completed response.
    #[schema(required)]
    completed_at: Option<i64>,
    /// The state.
    #[schema(pattern = "^(queued|in_progress|completed|incomplete|failed|cancelled)$")]
    status: String,
    /// The reason for which it is incomplete.
    #[schema(required, value_type = Option<Object>)]
    incomplete_details: Option<Map<String, Value>>,
    /// The model that was asked.
    model: String,
    /// The response that it goes on from.
    #[schema(required)]
    previous_response_id: Option<String>,
    /// The conversation of the response, with its `id`; absent without one.
    #[schema(value_type = Option<Object>)]
    conversation: Option<Map<String, Value>>,
    /// The system message.
    #[schema(required)]
    instructions: Option<String>,
    /// The items: messages, reasoning, calls and their results.
    #[schema(value_type = Vec<Object>)]
    output: Vec<Value>,
    /// A failure.
    #[schema(required, value_type = Option<Object>)]
    error: Option<Map<String, Value>>,
    /// The client's functions.
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Value>,
    /// The choice among them.
    tool_choice: Value,
    /// `disabled`.
    truncation: String,
    /// Whether the model may ask for several calls in one turn.
    parallel_tool_calls: bool,
    /// The form of the text.
    #[schema(value_type = Object)]
    text: Map<String, Value>,
    /// The effective value.
    top_p: f64,
    /// The effective value.
    presence_penalty: f64,
    /// The effective value.
    frequency_penalty: f64,
    /// 0.
    top_logprobs: u32,
    /// The effective value.
    temperature: f64,
    /// The effort of reasoning, and the kind of its summary.
    #[schema(required, value_type = Option<Object>)]
    reasoning: Option<Map<String, Value>>,
    /// The tokens of a response that has ended.
    #[schema(required, value_type = Option<Object>)]
    usage: Option<Map<String, Value>>,
    /// The most tokens of one model turn.
    #[schema(required)]
    max_output_tokens: Option<u64>,
    /// The most calls of the agent's tools.
    #[schema(required)]
    max_tool_calls: Option<u64>,
    /// Whether it is kept after its end.
    store: bool,
    /// Whether the run goes on without its client.
    background: bool,
    /// `default`, `flex` or `priority`.
    service_tier: String,
    /// The client's data.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// The client's name for its user.
    #[schema(required)]
    safety_identifier: Option<String>,
    /// The key of the upstream's cache.
    #[schema(required)]
    prompt_cache_key: Option<String>,
}

/// A page of items.
#[derive(ToSchema)]
pub(crate) struct ItemPage {
    /// `list`.
    object: String,
    /// The items.
    #[schema(value_type = Vec<Object>)]
    data: Vec<Value>,
    /// The id of the first.
    #[schema(required)]
    first_id: Option<String>,
    /// The id of the last: `after` of the next page.
    #[schema(required)]
    last_id: Option<String>,
    /// Whether there are more.
    has_more: bool,
}
