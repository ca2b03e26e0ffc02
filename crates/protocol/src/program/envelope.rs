//! Fields that every message of a program has.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::ids::RunId;
use crate::job::short;
use crate::trace_context::{MAX_REQUEST_ID, is_request_id, is_traceparent};

/// The reason for which a message cannot be read, and its ids for the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadMessage {
    /// A stable word.
    pub code: &'static str,
    /// One sentence that says how to correct it.
    pub message: String,
    /// The run that it names, if that can be read.
    pub run_id: Option<RunId>,
    /// The sender's own id of the message, if it is valid.
    pub request_id: Option<String>,
}

/// A message's own fields, read leniently so that a refusal can name the run and the request.
pub(crate) struct Envelope {
    fields: BTreeMap<String, Box<RawValue>>,
    run: Result<RunId, String>,
    request_id: Option<String>,
}

impl Envelope {
    /// Reads the object but not its other fields.
    pub(crate) fn read(body: &[u8]) -> Result<Self, BadMessage> {
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(body).map_err(|error| BadMessage {
                code: "invalid_json",
                message: format!("not a JSON object: {}", short(&error)),
                run_id: None,
                request_id: None,
            })?;
        let text = |name: &str| {
            let raw = fields.get(name)?.get();
            serde_json::from_str::<String>(raw).ok()
        };
        let run = match text("run_id") {
            None => {
                let missing = "`run_id` is missing: draw a UUID of version 7, and write it as a \
                               string";
                Err(missing.to_owned())
            }
            Some(id) => id.parse().map_err(|invalid| format!("`run_id`: {invalid}")),
        };
        let request_id = text("request_id").filter(|id| is_request_id(id));
        Ok(Self {
            fields,
            run,
            request_id,
        })
    }

    /// Returns the run, or the error in its id.
    pub(crate) fn run(&self) -> Result<RunId, BadMessage> {
        let run = self.run.as_ref();
        run.copied()
            .map_err(|wrong| self.bad("invalid_run_id", wrong.clone()))
    }

    /// Returns a field as it was sent.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.get())
    }

    /// Returns a refusal of this message.
    pub(crate) fn bad(&self, code: &'static str, message: String) -> BadMessage {
        BadMessage {
            code,
            message,
            run_id: self.run.as_ref().ok().copied(),
            request_id: self.request_id.clone(),
        }
    }

    /// Refuses every version but 1. Callers check it before the other fields, so that a newer
    /// message is refused for its version and not for a field it has gained.
    pub(crate) fn check_version(&self) -> Result<(), BadMessage> {
        match self.raw("v") {
            Some("1") => Ok(()),
            Some(other) => {
                let message = format!("version {} is not supported: write `\"v\": 1`", cut(other));
                Err(self.bad("unsupported_version", message))
            }
            None => {
                let message = "`v` is missing: write `\"v\": 1`".to_owned();
                Err(self.bad("unsupported_version", message))
            }
        }
    }

    /// Refuses a `request_id` or a `traceparent` of another form.
    pub(crate) fn check_texts(
        &self,
        request_id: Option<&String>,
        traceparent: Option<&String>,
    ) -> Result<(), BadMessage> {
        if request_id.is_some_and(|id| !is_request_id(id)) {
            let message = format!(
                "`request_id` is 1 to {MAX_REQUEST_ID} visible ASCII characters: write another, \
                 or leave it out"
            );
            return Err(self.bad("invalid_request", message));
        }
        if traceparent.is_some_and(|trace| !is_traceparent(trace)) {
            let message = "`traceparent` is not 00-<32 hex digits>-<16>-<2>, neither id zero: write it as \
                           the W3C describes version 00, or leave it out";
            return Err(self.bad("invalid_request", message.to_owned()));
        }
        Ok(())
    }

    /// Reads the whole message strictly: no repeated and no unknown field.
    pub(crate) fn strictly<T: DeserializeOwned>(
        &self,
        body: &[u8],
        code: &'static str,
        noun: &str,
    ) -> Result<T, BadMessage> {
        serde_json::from_slice(body)
            .map_err(|error| self.bad(code, format!("no {noun}: {}", short(&error))))
    }
}

/// Cuts a text so that an answer has room for it.
pub(crate) fn cut(given: &str) -> &str {
    &given[..given.floor_char_boundary(64)]
}
