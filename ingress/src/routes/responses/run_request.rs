//! The request for the run of a response.

use baton_admission::request::read_on_busy;
use baton_admission::{SubmitRequest, check_shape};
use baton_openai::Message;
use baton_protocol::{CompactionRule, OnLimit, TenantId, UseLimits};
use baton_responses::{CreateResponse, SealingKey};
use baton_store::Store;
use http::StatusCode;
use serde_json::value::{RawValue, to_raw_value};

use super::earlier::Earlier;
use crate::error::ApiError;
use crate::routes::conversations::{conversation_busy, no_such_conversation};

/// The field that names the response to go on from.
pub(super) const PREVIOUS: &str = "previous_response_id";

/// Opens the summaries in the input of a request.
pub(super) async fn open_input(
    request: &mut CreateResponse,
    store: &Store,
    tenant: TenantId,
) -> Result<(), ApiError> {
    if !request.is_sealed() {
        return Ok(());
    }
    let key = store.tenant(tenant).await?.sealing_key().await?;
    let key = key.map(SealingKey::new);
    Ok(request.open(key.as_ref())?)
}

/// Makes the run's request of the response's, with further messages at its end; `limit` is the most bytes
/// of a conversation.
pub(super) fn into_submission(
    mut request: CreateResponse,
    earlier: Earlier,
    last: &[Message],
    limit: u64,
) -> Result<SubmitRequest, ApiError> {
    let Earlier {
        messages: earlier,
        tokens,
        mcp_tools,
    } = earlier;
    request.name_calls(mcp_tools);
    let goes_on = !earlier.is_empty();
    let instructions = usize::from(request.settings.system_message().is_some());
    let before = u64::try_from(instructions + earlier.len()).unwrap_or(u64::MAX);
    let compaction = request.compact_threshold.map(|threshold| CompactionRule {
        threshold,
        earlier_tokens: tokens,
        earlier_messages: before,
    });
    let mut messages = request.messages(earlier);
    messages.extend_from_slice(last);
    let messages = raw(&messages)?;
    if goes_on {
        let field = if request.previous.is_some() {
            PREVIOUS
        } else {
            "conversation"
        };
        check_conversation(&messages, limit, field)?;
    }
    let calls = request.settings.max_tool_calls;
    let calls = calls.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    let on_busy = read_on_busy(request.on_busy.as_deref())?;
    let thread = request.conversation.map(|thread| (thread, on_busy));
    Ok(SubmitRequest {
        agent: request.agent,
        model: request.model,
        messages,
        tools: request.tools,
        tool_names: request.tool_names,
        server_tools: request.server_tools,
        left_out: request.left_out,
        answers: None,
        calls: Vec::new(),
        params: request.params,
        metadata: request.metadata,
        // A reset closes the item under way, so a text can be withdrawn.
        shown_for_good: false,
        thread,
        lane: request.settings.service_tier.lane(),
        max_turns: None,
        max_total_tokens: None,
        most: UseLimits {
            max_tool_calls: calls,
            ..UseLimits::default()
        },
        // As OpenAI has it: further calls are not made, and the model answers without them.
        on_limit: calls.map(|_| OnLimit::HandBack),
        response: Some(raw(&request.settings)?),
        compaction,
    })
}

/// Names the conversation in the refusals of its thread.
pub(super) fn in_words_of_the_wire(error: ApiError) -> ApiError {
    match &*error.code {
        "thread_not_found" => no_such_conversation().param("conversation"),
        "thread_busy" => conversation_busy().param("conversation"),
        _ => error,
    }
}

/// Holds a conversation to the limits of a body: it is stored and sent as one.
fn check_conversation(messages: &RawValue, limit: u64, field: &str) -> Result<(), ApiError> {
    let bytes = u64::try_from(messages.get().len()).unwrap_or(u64::MAX);
    if bytes <= limit && check_shape(messages.get().as_bytes()).is_ok() {
        return Ok(());
    }
    let message = format!(
        "`{field}`: the conversation is longer than a request may be ({limit} bytes): \
         begin a new one with a shorter `input`"
    );
    let error = ApiError::new(StatusCode::BAD_REQUEST, "conversation_too_large", message);
    Err(error.param(field))
}

fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, ApiError> {
    to_raw_value(value).map_err(|error| ApiError::internal(&error))
}
