//! The submission of a run: the request, with an id that the program generates.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use crate::ids::RunId;
use crate::program::{BadMessage, Envelope, cut};

/// A submission of version 1.
#[derive(Debug, Clone)]
pub struct SubmitJob {
    /// The id that the program generated, a UUIDv7: submitted again under it, the request makes no
    /// second run.
    pub run_id: RunId,
    /// The body of `POST /v1/runs`, byte for byte, not decoded.
    pub request: Box<RawValue>,
    /// The sender's own id of the submission, repeated in the answer.
    pub request_id: Option<String>,
    /// The W3C trace context that the run belongs to.
    pub traceparent: Option<String>,
}

/// The message as it is described to programs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Submission)]
struct Wire {
    /// The version of this shape: 1.
    #[serde(rename = "v")]
    #[schema(minimum = 1, maximum = 1)]
    _v: u64,
    /// `submit`.
    #[serde(rename = "kind")]
    #[schema(pattern = "^submit$")]
    _kind: String,
    /// A UUIDv7, hyphenated and in lower case, that the program draws once for each run that it
    /// wants: the same id again is the same run.
    #[schema(
        value_type = String,
        pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    )]
    run_id: RunId,
    /// The body of `POST /v1/runs`.
    #[schema(value_type = Object)]
    request: Box<RawValue>,
    /// The sender's own id of the submission: the answer repeats it, and it is logged with the run.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    request_id: Option<String>,
    /// The W3C trace context that the run belongs to.
    #[serde(default)]
    #[schema(pattern = "^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")]
    traceparent: Option<String>,
}

impl SubmitJob {
    /// The version that this build reads.
    pub const VERSION: u64 = 1;
    /// The value of its field `kind`.
    pub const KIND: &'static str = "submit";

    /// Returns the message's JSON Schema, without the shape of `request`.
    pub fn schema() -> RefOr<Schema> {
        Wire::schema()
    }

    /// Writes the message body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = format!(
            r#"{{"v":1,"kind":"submit","run_id":"{}","request":{}"#,
            self.run_id,
            self.request.get()
        );
        for (name, text) in [
            ("request_id", &self.request_id),
            ("traceparent", &self.traceparent),
        ] {
            if let Some(text) = text {
                // Writing to a string cannot fail.
                let _written = write!(body, r#","{name}":{}"#, Value::from(text.as_str()));
            }
        }
        body.push('}');
        body.into_bytes()
    }

    /// Reads a message body. Checks version and kind first, so that a message of another kind or a
    /// later version is refused for that and not for its fields.
    pub fn decode(body: &[u8]) -> Result<Self, BadMessage> {
        let envelope = Envelope::read(body)?;
        envelope.check_version()?;
        let kind = envelope.raw("kind").unwrap_or("nothing");
        if serde_json::from_str::<String>(kind).ok().as_deref() != Some(Self::KIND) {
            let message = format!(
                "`kind` is {}: a program may publish `\"kind\": \"submit\"` and nothing else",
                cut(kind)
            );
            return Err(envelope.bad("unknown_kind", message));
        }
        let run = envelope.run()?;
        if run.unix_millis().is_none() {
            let message = format!("`run_id` {run} is not a UUID of version 7: draw one");
            return Err(envelope.bad("invalid_run_id", message));
        }
        let wire: Wire = envelope.strictly(body, "invalid_json", "submission")?;
        envelope.check_texts(wire.request_id.as_ref(), wire.traceparent.as_ref())?;
        Ok(Self {
            run_id: wire.run_id,
            request: wire.request,
            request_id: wire.request_id,
            traceparent: wire.traceparent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBMIT: &str = include_str!("../golden/job.v1.submit.json");
    const TRACED: &str = include_str!("../golden/job.v1.submit-traced.json");
    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn released_submissions_stay_decodable_and_are_written_the_same() {
        let golden = SUBMIT.trim_end();
        let job = SubmitJob::decode(golden.as_bytes()).unwrap();
        assert_eq!(job.run_id.to_string(), ID);
        assert_eq!(String::from_utf8(job.encode()).unwrap(), golden);
        let golden = TRACED.trim_end();
        let job = SubmitJob::decode(golden.as_bytes()).unwrap();
        assert_eq!(job.request_id.as_deref(), Some("r-1"));
        assert!(job.traceparent.is_some());
        assert_eq!(String::from_utf8(job.encode()).unwrap(), golden);
    }

    #[test]
    fn the_request_is_kept_byte_for_byte() {
        let body =
            format!(r#"{{"request":{{ "b" : 1,"a":2 }},"run_id":"{ID}","v":1,"kind":"submit"}}"#);
        let job = SubmitJob::decode(body.as_bytes()).unwrap();
        assert_eq!(job.request.get(), r#"{ "b" : 1,"a":2 }"#);
    }

    #[test]
    fn what_is_no_submission_is_told_what_to_change_and_which_run_it_is_about() {
        let with = |fields: &str| format!(r#"{{{fields},"run_id":"{ID}","request":{{}}}}"#);
        let id = |id: &str| format!(r#"{{"v":1,"kind":"submit","run_id":{id},"request":{{}}}}"#);
        let v4 = r#""6ba7b810-9dad-41d1-80b4-00c04fd430c8""#;
        for (body, code, says, run_known) in [
            (
                "garbage".to_owned(),
                "invalid_json",
                "not a JSON object",
                false,
            ),
            ("[]".to_owned(), "invalid_json", "not a JSON object", false),
            (
                with(r#""v":2,"kind":"submit","later":1"#),
                "unsupported_version",
                "version 2",
                true,
            ),
            (
                with(r#""kind":"submit""#),
                "unsupported_version",
                "`v` is missing",
                true,
            ),
            (
                with(r#""v":1,"kind":"run""#),
                "unknown_kind",
                r#"`kind` is "run""#,
                true,
            ),
            (with(r#""v":1"#), "unknown_kind", "`kind` is nothing", true),
            (id("7"), "invalid_run_id", "`run_id` is missing", false),
            (
                id(r#""mine""#),
                "invalid_run_id",
                "write a hyphenated UUID",
                false,
            ),
            (id(v4), "invalid_run_id", "not a UUID of version 7", true),
            (
                with(r#""v":1,"kind":"submit","colour":1"#),
                "invalid_json",
                "unknown field `colour`",
                true,
            ),
            (
                with(r#""v":1,"kind":"submit","request":{}"#),
                "invalid_json",
                "duplicate field",
                true,
            ),
            (
                with(r#""v":1,"kind":"submit","request_id":"a b""#),
                "invalid_request",
                "`request_id`",
                true,
            ),
            (
                with(r#""v":1,"kind":"submit","traceparent":"00-x""#),
                "invalid_request",
                "`traceparent`",
                true,
            ),
            (
                format!(r#"{{"v":1,"kind":"submit","run_id":"{ID}"}}"#),
                "invalid_json",
                "missing field `request`",
                true,
            ),
        ] {
            let bad = SubmitJob::decode(body.as_bytes()).unwrap_err();
            assert_eq!(bad.code, code, "{body}: {bad}");
            assert!(bad.message.contains(says), "{body}: {bad}");
            assert_eq!(bad.run_id.is_some(), run_known, "{body}");
        }
    }
}
