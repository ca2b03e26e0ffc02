//! What a program publishes to have a run made: the request, under an id that the program draws.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use super::short;
use crate::ids::RunId;

/// A submission of version 1.
#[derive(Debug, Clone)]
pub struct SubmitJob {
    /// The id that the program drew, a UUIDv7: published again under it, a submission makes no
    /// second run.
    pub run_id: RunId,
    /// The body of `POST /v1/runs`, byte for byte, unread.
    pub request: Box<RawValue>,
}

/// Why a message is no submission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadSubmission {
    /// A stable word.
    pub code: &'static str,
    /// One sentence that says what to write instead.
    pub message: String,
    /// The run that it is about, if that much can be read.
    pub run_id: Option<RunId>,
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
}

impl SubmitJob {
    /// The version that this build reads.
    pub const VERSION: u64 = 1;
    /// The word for it.
    pub const KIND: &'static str = "submit";

    /// The message as a JSON Schema, but for what `request` holds.
    pub fn schema() -> RefOr<Schema> {
        Wire::schema()
    }

    /// The message body.
    pub fn encode(&self) -> Vec<u8> {
        format!(
            r#"{{"v":1,"kind":"submit","run_id":"{}","request":{}}}"#,
            self.run_id,
            self.request.get()
        )
        .into_bytes()
    }

    /// Reads a message body. Version and kind are looked at first: a message of another kind, or of
    /// a later version, is refused for that and not for its fields.
    pub fn decode(body: &[u8]) -> Result<Self, BadSubmission> {
        let bad = |code, message: String, run_id| BadSubmission {
            code,
            message,
            run_id,
        };
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(body).map_err(|error| {
                bad(
                    "invalid_json",
                    format!("not a JSON object: {}", short(&error)),
                    None,
                )
            })?;
        let text = |name: &str| fields.get(name).map(|value| value.get());
        let given = text("run_id").and_then(|id| serde_json::from_str::<String>(id).ok());
        let id = given.as_deref().map(str::parse::<RunId>);
        let run_id = id.as_ref().and_then(|id| id.as_ref().ok()).copied();
        match text("v") {
            Some("1") => {}
            Some(other) => {
                let message = format!("version {} is not supported: write `\"v\": 1`", cut(other));
                return Err(bad("unsupported_version", message, run_id));
            }
            None => {
                let message = "`v` is missing: write `\"v\": 1`".to_owned();
                return Err(bad("unsupported_version", message, run_id));
            }
        }
        let kind = text("kind").unwrap_or("nothing");
        if serde_json::from_str::<String>(kind).ok().as_deref() != Some(Self::KIND) {
            let message = format!(
                "`kind` is {}: a program may publish `\"kind\": \"submit\"` and nothing else",
                cut(kind)
            );
            return Err(bad("unknown_kind", message, run_id));
        }
        match &id {
            Some(Ok(id)) if id.unix_millis().is_some() => {}
            Some(Ok(id)) => {
                let message = format!("`run_id` {id} is not a UUID of version 7: draw one");
                return Err(bad("invalid_run_id", message, run_id));
            }
            Some(Err(invalid)) => {
                return Err(bad("invalid_run_id", format!("`run_id`: {invalid}"), None));
            }
            None => {
                let message = "`run_id` is missing: draw a UUID of version 7, and write it as a \
                               string";
                return Err(bad("invalid_run_id", message.to_owned(), None));
            }
        }
        // Strictly, at last: no field twice, and none that is not known.
        let wire: Wire = serde_json::from_slice(body).map_err(|error| {
            bad(
                "invalid_json",
                format!("no submission: {}", short(&error)),
                run_id,
            )
        })?;
        Ok(Self {
            run_id: wire.run_id,
            request: wire.request,
        })
    }
}

/// What was given, cut so that an answer has room for it.
fn cut(given: &str) -> &str {
    &given[..given.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBMIT: &str = include_str!("../golden/job.v1.submit.json");
    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn released_submissions_stay_decodable_and_are_written_the_same() {
        let golden = SUBMIT.trim_end();
        let job = SubmitJob::decode(golden.as_bytes()).unwrap();
        assert_eq!(job.run_id.to_string(), ID);
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
