//! The body of `POST /v1/responses/input_tokens`.

use baton_protocol::RawFields;

use super::{CreateResponse, Purpose};
use crate::Invalid;
use crate::fields::{FIELDS, Use};
use crate::read::{At, Object};
use crate::tools::raw;

/// The fields that a model reads, or that say which one reads.
const COUNTED: [&str; 9] = [
    "model",
    "agent",
    "input",
    "instructions",
    "previous_response_id",
    "conversation",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
];

impl CreateResponse {
    /// Reads a request for the number of tokens of its input. The caller has checked the body's depth and
    /// its number of values.
    ///
    /// The result asks for an answer of one token, which is not kept: the upstream counts the input that it
    /// reads.
    pub fn parse_count(body: &[u8]) -> Result<Self, Invalid> {
        let mut object = At::body(body)?.object()?;
        refuse_uncounted(&mut object)?;
        let mut request = Self::read(object, Purpose::Count)?;
        let is_empty = request.input.is_empty()
            && request.settings.instructions.is_none()
            && request.previous.is_none()
            && request.conversation.is_none();
        if is_empty {
            let message = "`input` is missing: there is nothing to count";
            return Err(Invalid::field("missing_field", "input", message));
        }
        let one = raw(&1);
        let limit = ("max_completion_tokens".into(), &*one);
        let fields = request.params.fields().into_iter().chain([limit]);
        request.params = RawFields::from_fields(fields);
        request.settings.store = false;
        Ok(request)
    }
}

/// Refuses the fields that no count depends on, so that none is ignored.
fn refuse_uncounted(object: &mut Object<'_>) -> Result<(), Invalid> {
    let uncounted = FIELDS.iter().filter(|field| {
        // `read` refuses those of the others that are never served.
        field.used != Use::Refused && !field.name.contains('.') && !COUNTED.contains(&field.name)
    });
    let uncounted = uncounted.map(|field| field.name);
    for name in uncounted.chain(["personality"]) {
        if let Some(at) = object.take(name) {
            return Err(at.unsupported("changes no count of input tokens: leave it out"));
        }
    }
    Ok(())
}
