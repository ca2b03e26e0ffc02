//! The bodies of `POST /v1/responses/input_tokens` and `POST /v1/responses/compact`: requests for a response
//! with fewer fields.

use baton_protocol::RawFields;
use serde_json::value::RawValue;

use super::{CreateResponse, Purpose};
use crate::Invalid;
use crate::fields::{FIELDS, Use};
use crate::read::{At, Object};
use crate::tools::raw;

/// The fields that a model reads, or that say which one reads.
const COUNTED: [&str; 11] = [
    "model",
    "agent",
    "input",
    "instructions",
    "previous_response_id",
    "conversation",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
];

/// The fields on which a summary depends, or the queue and the cost of making it.
const COMPACTED: [&str; 9] = [
    "model",
    "agent",
    "input",
    "instructions",
    "previous_response_id",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
];

impl CreateResponse {
    /// Reads a request for the number of tokens of its input. The caller has checked the body's depth and
    /// its number of values.
    ///
    /// The result asks for an answer of one token, which is not kept: the upstream counts the input that it
    /// reads.
    pub fn parse_count(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        let why = "changes no count of input tokens: leave it out";
        refuse_others(&mut object, &COUNTED, why)?;
        let request = Self::read(object, Purpose::Count)?;
        let is_empty = request.input.is_empty()
            && request.settings.instructions.is_none()
            && request.previous.is_none()
            && request.conversation.is_none();
        if is_empty {
            return Err(nothing("count"));
        }
        Ok(request.not_kept_with("max_completion_tokens", &raw(&1)))
    }

    /// Reads a request for a summary. The caller has checked the body's depth and its number of values.
    ///
    /// The result asks for an answer without calls, which is not kept.
    pub fn parse_compact(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        let why = "changes no summary: leave it out";
        refuse_others(&mut object, &COMPACTED, why)?;
        let request = Self::read(object, Purpose::Compact)?;
        if request.input.is_empty() && request.previous.is_none() {
            return Err(nothing("compact"));
        }
        Ok(request.not_kept_with("tool_choice", &raw("none")))
    }

    /// Adds a field for the upstream.
    fn not_kept_with(mut self, name: &str, value: &RawValue) -> Self {
        let fields = self.params.fields().into_iter();
        let fields = fields.chain([(name.into(), value)]);
        self.params = RawFields::from_fields(fields);
        self.settings.store = false;
        self
    }
}

fn nothing(to_do: &str) -> Invalid {
    let message = format!("`input` is missing: there is nothing to {to_do}");
    Invalid::field("missing_field", "input", message)
}

/// Refuses the fields of a response that have no effect here, so that none is ignored.
fn refuse_others(object: &mut Object<'_>, known: &[&str], why: &str) -> Result<(), Invalid> {
    let others = FIELDS.iter().filter(|field| {
        // `read` refuses those that are never served.
        field.used != Use::Refused && !known.contains(&top(field.name))
    });
    let others = others.map(|field| top(field.name));
    for name in others.chain(["personality"]) {
        if let Some(at) = object.take(name) {
            return Err(at.unsupported(why));
        }
    }
    Ok(())
}

/// Returns the first name of a path.
fn top(path: &'static str) -> &'static str {
    path.split_once('.').map_or(path, |(top, _)| top)
}
