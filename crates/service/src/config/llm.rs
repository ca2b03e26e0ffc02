//! `[llm]` and `[[llm.prices]]`: the upstreams and the prices of models.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::upstreams::{RouteConfig, UpstreamConfig};
use super::values::{PerMillion, Secret};

/// `[llm]`: the upstream, any server that speaks the OpenAI chat API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// Its URL up to and with `/v1`; `LLM_BASE_URL`. Default: none.
    pub base_url: Option<String>,
    /// Its key; `LLM_API_KEY`. Default: none.
    pub api_key: Option<Secret<String>>,
    /// The model when a request names none; `LLM_DEFAULT_MODEL`. Default: none.
    pub default_model: Option<String>,
    /// The time limit of connecting. Default: 5s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The time limit of the first byte of an answer. Default: 60s.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// The longest pause within an answer. Default: 60s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// The time limit of a whole answer. Default: 10m.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    /// Retries as long as no token has come. Default: 3.
    pub max_retries: u32,
    /// Retries of a turn whose answer breaks off, stalls or is malformed in the middle, unless a client
    /// that cannot take it back has seen some of it. Default: 2.
    pub turn_retries: u32,
    /// The longest line of a stream, in bytes; at least `max_answer_bytes`, because an upstream may
    /// send an answer in one line. Default: 16777216.
    pub max_line_bytes: u64,
    /// The longest answer, in bytes of text, arguments and passed-on fields. Default: 8388608.
    pub max_answer_bytes: u64,
    /// The request field that limits the length of an answer, if a key's budget limits it and the
    /// request does not: `max_tokens` or `max_completion_tokens`. The upstream must support it.
    /// Default: max_tokens.
    pub answer_limit_field: AnswerLimitField,
    /// Parts of the chat API that the upstream lacks: `tools`, `stream_options`, `parallel_tool_calls`,
    /// `response_format`, `developer_role`, `max_tokens`, `max_completion_tokens`. They are left out, replaced by their
    /// equal, or refused by name. Default: none.
    pub unsupported: Vec<UpstreamFeature>,
    /// Fields, besides those of OpenAI's chat API, that requests of keys with a list of models or a
    /// budget may send to the upstream, such as `top_k`. Default: none.
    pub extra_fields: Vec<String>,
    /// `[[llm.prices]]`: prices of models. Default: none.
    pub prices: Vec<ModelPrice>,
    /// `[[llm.upstreams]]`: several upstreams, in place of `base_url`. Default: none.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[llm.routes]]`: the upstreams of each model. One upstream needs no route. Default: none.
    pub routes: Vec<RouteConfig>,
}

/// A field of a chat request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerLimitField {
    /// The field of nearly every server; OpenAI's reasoning models refuse it.
    #[default]
    MaxTokens,
    /// The field of OpenAI's reasoning models; some other servers ignore it, and then nothing
    /// limits an answer.
    MaxCompletionTokens,
}

impl AnswerLimitField {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// A part of the chat API that some upstreams lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamFeature {
    /// The field `tools`: vLLM refuses it unless it was started with a parser of calls.
    Tools,
    /// The field `stream_options`, which asks for the token counts.
    StreamOptions,
    /// The field `parallel_tool_calls`.
    ParallelToolCalls,
    /// The field `response_format`.
    ResponseFormat,
    /// Messages of the role `developer`, which go up as `system`.
    DeveloperRole,
    /// The field `max_tokens`, which goes up as `max_completion_tokens`.
    MaxTokens,
    /// The field `max_completion_tokens`, which goes up as `max_tokens`.
    MaxCompletionTokens,
}

/// `[[llm.prices]]`: the prices of a million of a model's tokens, in a currency of the operator's
/// choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// The upstream's name of the model. No default.
    pub model: String,
    /// Input tokens. No default.
    pub input_per_million: PerMillion,
    /// Input tokens that its server had cached. Default: the price of input tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_million: Option<PerMillion>,
    /// Output tokens. No default.
    pub output_per_million: PerMillion,
}

impl LlmConfig {
    /// Returns whether the upstream has this part of the chat API.
    pub fn supports(&self, feature: UpstreamFeature) -> bool {
        !self.unsupported.contains(&feature)
    }

    /// Returns each model with its prices in millionths of a unit for a million tokens: of input,
    /// of cached input, of output.
    pub fn prices_in_micros(&self) -> impl Iterator<Item = (String, [u64; 3])> {
        self.prices.iter().map(|price| {
            let input = price.input_per_million;
            let cached = price.cached_input_per_million.unwrap_or(input);
            let kinds = [input, cached, price.output_per_million];
            (price.model.clone(), kinds.map(PerMillion::micros))
        })
    }
}

/// The keys of a price without a default.
pub(super) const REQUIRED: [&str; 3] = ["model", "input_per_million", "output_per_million"];

/// A valid price: see `tools::specimen`.
pub(super) fn specimen() -> Map<String, Value> {
    let price = serde_json::json!({
        "model": "gpt-4o",
        "input_per_million": "2.50",
        "cached_input_per_million": "1.25",
        "output_per_million": "10.00",
    });
    match price {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            default_model: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_mins(1),
            total_timeout: Duration::from_mins(10),
            max_retries: 3,
            turn_retries: 2,
            max_line_bytes: 16 << 20,
            max_answer_bytes: 8 << 20,
            answer_limit_field: AnswerLimitField::default(),
            unsupported: Vec::new(),
            extra_fields: Vec::new(),
            prices: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }
}
