//! A question for a run's events.

use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use super::{BadMessage, Envelope};
use crate::event_id::EventId;
use crate::ids::RunId;

/// A question for a page of a run's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryMessage {
    /// The run.
    pub run_id: RunId,
    /// The sender's own id of the question, repeated in the answer.
    pub request_id: Option<String>,
    /// The cursor: the answer has later events.
    pub after: EventId,
    /// The most events of the answer, 1 to [`HistoryMessage::MAX_PAGE`].
    pub limit: usize,
}

/// A question for a run's events, as programs write it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = History)]
struct Wire {
    /// The version of this shape: 1.
    #[serde(rename = "v")]
    #[schema(minimum = 1, maximum = 1)]
    _v: u64,
    /// The run.
    #[schema(value_type = String)]
    run_id: RunId,
    /// The sender's own id of the question: the answer repeats it.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    request_id: Option<String>,
    /// The id of the last event that the sender has; 0, or none, for all events.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 0)]
    after: Option<EventId>,
    /// The most events of the answer. Default: 1000.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

impl HistoryMessage {
    /// The most events of one answer, and the limit if none is given.
    pub const MAX_PAGE: usize = 1_000;

    /// Describes the message as a JSON Schema.
    pub fn schema() -> RefOr<Schema> {
        Wire::schema()
    }

    /// Reads a message body.
    pub fn decode(body: &[u8]) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(body)?;
        envelope.check_version()?;
        envelope.run()?;
        let wire: Wire = envelope.strictly(body, "invalid_request", "question for history")?;
        envelope.check_texts(wire.request_id.as_ref(), None)?;
        let limit = match wire.limit.map(usize::try_from) {
            None => Self::MAX_PAGE,
            Some(Ok(limit @ 1..=Self::MAX_PAGE)) => limit,
            Some(_) => {
                let message = format!("`limit` is 1 to {}", Self::MAX_PAGE);
                return Err(envelope.bad("invalid_request", message));
            }
        };
        Ok(Self {
            run_id: wire.run_id,
            request_id: wire.request_id,
            after: wire.after.unwrap_or(EventId::ORIGIN),
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

    fn decode(fields: &str) -> Result<HistoryMessage, BadMessage> {
        let body = format!(r#"{{"v":1,"run_id":"{RUN}"{fields}}}"#);
        HistoryMessage::decode(body.as_bytes())
    }

    #[test]
    fn a_question_is_read_as_documented() {
        let all = decode("").unwrap();
        assert_eq!(
            (all.after, all.limit),
            (EventId::ORIGIN, HistoryMessage::MAX_PAGE)
        );
        let some = decode(r#","after":7,"limit":2,"request_id":"mine""#).unwrap();
        assert_eq!((some.after, some.limit), (EventId::from_u64(7), 2));
        assert_eq!(some.request_id.as_deref(), Some("mine"));
        let golden = include_bytes!("../golden/history.v1.json");
        HistoryMessage::decode(golden).unwrap();
    }

    #[test]
    fn what_is_no_question_is_refused_with_what_to_change() {
        for (fields, says) in [
            (r#","limit":0"#, "`limit` is 1 to 1000"),
            (r#","limit":1001"#, "`limit` is 1 to 1000"),
            (r#","from":1"#, "unknown field `from`"),
            (r#","after":-1"#, "no question for history"),
            (r#","request_id":"a b""#, "`request_id`"),
        ] {
            let bad = decode(fields).unwrap_err();
            assert_eq!(bad.code, "invalid_request");
            assert!(bad.message.contains(says), "{fields}: {bad}");
            assert_eq!(bad.run_id.unwrap().to_string(), RUN);
        }
        let bad = HistoryMessage::decode(b"x").unwrap_err();
        assert_eq!((bad.code, bad.run_id), ("invalid_json", None));
    }
}
