//! The response object. All its keys are always written.

use baton_protocol::{FinishReason, Outcome, RunError, RunId, RunStatus, Usage};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::ids::response_id;
use crate::items::Item;
use crate::settings::{ServiceTier, Settings};

/// The part of a response that does not change while its run goes on.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The run.
    pub run: RunId,
    /// The time of acceptance, in seconds since 1970.
    pub created_at: i64,
    /// The model that is asked.
    pub model: String,
    /// The settings of the request.
    pub settings: Settings,
    /// The client's data, an object.
    pub metadata: Option<Box<RawValue>>,
}

/// The part of a response that changes.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Its state.
    pub status: Status,
    /// The time of its end, in seconds since 1970; shown if it is complete.
    pub ended_at: Option<i64>,
    /// Its items.
    pub output: &'a [Item],
    /// The tokens of a run that has ended.
    pub usage: Option<UsageObject>,
}

impl Snapshot<'static> {
    /// Returns a response that has shown nothing yet.
    pub const fn empty(status: Status) -> Self {
        Self {
            status,
            ended_at: None,
            output: &[],
            usage: None,
        }
    }
}

/// The state of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Nobody has begun it.
    Queued,
    /// It goes on, or waits for a person's decision.
    InProgress,
    /// It has ended with an answer.
    Completed,
    /// It has ended at a limit, for this reason.
    Incomplete(&'static str),
    /// It has ended without an answer.
    Failed(RunError),
    /// It was cancelled.
    Cancelled,
}

impl Status {
    /// Returns the state of a run's response. A foreground response is never queued.
    pub fn of_run(status: RunStatus, outcome: Option<&Outcome>, background: bool) -> Self {
        match outcome {
            Some(Outcome::Completed(finish)) => Self::of_finish(*finish),
            Some(Outcome::Failed(error)) => Self::Failed(error.clone()),
            Some(Outcome::Cancelled(_)) => Self::Cancelled,
            None if status == RunStatus::Queued && background => Self::Queued,
            None => Self::InProgress,
        }
    }

    /// Returns the state of a completed run's response. The wire knows two reasons for an incomplete
    /// one; a limit of turns or of a budget counts as the limit of tokens, as on the chat route.
    pub const fn of_finish(finish: FinishReason) -> Self {
        match finish {
            FinishReason::Stop | FinishReason::ToolCalls => Self::Completed,
            FinishReason::Length
            | FinishReason::MaxTurns
            | FinishReason::Budget
            | FinishReason::MaxTokens
            | FinishReason::MaxCost
            | FinishReason::MaxToolCalls
            | FinishReason::MaxWallTime => Self::Incomplete("max_output_tokens"),
            FinishReason::ContentFilter => Self::Incomplete("content_filter"),
        }
    }

    /// Returns the word on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The token counts of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UsageObject {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

/// Returns the token counts on this wire. `details` are the upstream's own counts besides the sums, by
/// their names of the chat API; a count that it does not report is zero.
pub fn usage_object(usage: Usage, details: &Map<String, Value>) -> UsageObject {
    let count = |of: &str, name: &str| {
        let value = details.get(of).and_then(|details| details.get(name));
        value.and_then(Value::as_u64).unwrap_or(0)
    };
    UsageObject {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: InputDetails {
            cached_tokens: count("prompt_tokens_details", "cached_tokens"),
            cache_write_tokens: count("prompt_tokens_details", "cache_write_tokens"),
        },
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputDetails {
            reasoning_tokens: count("completion_tokens_details", "reasoning_tokens"),
        },
        total_tokens: usage.total_tokens,
    }
}

/// The response object as it is written.
#[derive(Debug, Serialize)]
pub struct ResponseObject<'a> {
    id: String,
    object: &'static str,
    created_at: i64,
    completed_at: Option<i64>,
    status: &'static str,
    incomplete_details: Option<IncompleteDetails>,
    model: &'a str,
    previous_response_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<OfConversation<'a>>,
    instructions: Option<&'a str>,
    output: &'a [Item],
    error: Option<ResponseError>,
    tools: &'a RawValue,
    tool_choice: &'a RawValue,
    truncation: &'static str,
    parallel_tool_calls: bool,
    text: &'a RawValue,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    top_logprobs: u32,
    temperature: f64,
    reasoning: Reasoning<'a>,
    usage: Option<UsageObject>,
    max_output_tokens: Option<u64>,
    max_tool_calls: Option<u64>,
    store: bool,
    background: bool,
    service_tier: ServiceTier,
    metadata: Metadata<'a>,
    safety_identifier: Option<&'a str>,
    prompt_cache_key: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct IncompleteDetails {
    reason: &'static str,
}

/// A failure in OpenAI's few words; the message begins with our own.
#[derive(Debug, Serialize)]
struct ResponseError {
    code: &'static str,
    message: String,
}

impl ResponseError {
    fn of(error: &RunError) -> Self {
        let upstream = error.upstream.as_deref();
        let own = upstream.and_then(|upstream| upstream.code.as_deref());
        let own = own.unwrap_or(&error.code);
        let code = match &*error.code {
            "upstream_rate_limited" => "rate_limit_exceeded",
            "upstream_rejected" | "upstream_refused" | "invalid_request" => "invalid_prompt",
            _ if own == "context_length_exceeded" => "invalid_prompt",
            _ => "server_error",
        };
        Self {
            code,
            message: format!("{own}: {}", error.message),
        }
    }
}

#[derive(Debug, Serialize)]
struct Reasoning<'a> {
    effort: Option<&'a str>,
    summary: Option<&'a str>,
}

/// The client's data as this wire shows them: an object, also if there are none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Metadata<'a> {
    Given(&'a RawValue),
    Empty {},
}

impl<'a> From<Option<&'a RawValue>> for Metadata<'a> {
    fn from(metadata: Option<&'a RawValue>) -> Self {
        metadata.map_or(Self::Empty {}, Self::Given)
    }
}

#[derive(Debug, Serialize)]
struct OfConversation<'a> {
    id: &'a str,
}

impl ResponseHead {
    /// Returns the response object.
    pub fn object<'a>(&'a self, snapshot: &'a Snapshot<'a>) -> ResponseObject<'a> {
        let settings = &self.settings;
        let status = &snapshot.status;
        ResponseObject {
            id: response_id(self.run),
            object: "response",
            created_at: self.created_at,
            completed_at: snapshot.ended_at.filter(|_| *status == Status::Completed),
            status: status.as_str(),
            incomplete_details: match status {
                Status::Incomplete(reason) => Some(IncompleteDetails { reason }),
                _ => None,
            },
            model: &self.model,
            previous_response_id: settings.previous_response_id.as_deref(),
            conversation: settings
                .conversation
                .as_deref()
                .map(|id| OfConversation { id }),
            instructions: settings.instructions.as_deref(),
            output: snapshot.output,
            error: match status {
                Status::Failed(error) => Some(ResponseError::of(error)),
                _ => None,
            },
            tools: &settings.tools,
            tool_choice: &settings.tool_choice,
            truncation: "disabled",
            parallel_tool_calls: settings.parallel_tool_calls,
            text: &settings.text,
            top_p: settings.top_p,
            presence_penalty: settings.presence_penalty,
            frequency_penalty: settings.frequency_penalty,
            top_logprobs: 0,
            temperature: settings.temperature,
            reasoning: Reasoning {
                effort: settings.reasoning_effort.as_deref(),
                summary: settings.reasoning_summary.as_deref(),
            },
            usage: snapshot.usage,
            max_output_tokens: settings.max_output_tokens,
            max_tool_calls: settings.max_tool_calls,
            store: settings.store,
            background: settings.background,
            service_tier: settings.service_tier,
            metadata: self.metadata.as_deref().into(),
            safety_identifier: settings.safety_identifier.as_deref(),
            prompt_cache_key: settings.prompt_cache_key.as_deref(),
        }
    }
}
