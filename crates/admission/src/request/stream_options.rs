//! The field `stream_options` of a chat.

use baton_protocol::{NotFields, RawFields};
use serde_json::value::RawValue;

use super::chat::read_bool;
use super::travelling::check_names;
use crate::error::Invalid;

/// The options of a streamed answer.
#[derive(Debug)]
pub(super) struct StreamOptions {
    /// Whether the client wants a last chunk with the usage.
    pub(super) include_usage: bool,
    /// Whether there are options for the upstream.
    pub(super) has_others: bool,
}

impl StreamOptions {
    /// Reads the field `stream_options` of a chat.
    pub(super) fn read(given: &RawValue) -> Result<Self, Invalid> {
        let options = RawFields::from_object(given.to_owned()).map_err(|NotFields| {
            let message = "`stream_options` must be an object";
            Invalid::field("invalid_type", "stream_options", message)
        })?;
        let fields = options.fields();
        check_names("stream_options.", &fields)?;
        let read = |name: &str| {
            let path = format!("stream_options.{name}");
            read_bool(options.get(name), &path)
        };
        // The padding of the upstream's chunks ends at Baton; its own chunks have none.
        if read("include_obfuscation")? {
            let name = "stream_options.include_obfuscation";
            let message = format!("`{name}` may not be true here: leave it out");
            return Err(Invalid::field("unsupported_value", name, message));
        }
        Ok(Self {
            include_usage: read("include_usage")?,
            has_others: fields.iter().any(|(name, _)| name != "include_usage"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use crate::request::chat::ChatSubmission;

    #[test]
    fn options_of_a_stream_travel_except_the_one_that_cannot_be_kept() {
        let body = |options: &str| {
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"stream":true,
                    "stream_options":{options}}}"#
            )
        };
        for (options, include_usage, travelling) in [
            (r#"{"include_usage":true}"#, true, None),
            (r#"{"include_usage":null}"#, false, None),
            (
                r#"{"include_usage":true,"continuous_usage_stats":true}"#,
                true,
                Some(r#"{"include_usage":true,"continuous_usage_stats":true}"#),
            ),
            (
                r#"{"include_obfuscation":false}"#,
                false,
                Some(r#"{"include_obfuscation":false}"#),
            ),
        ] {
            let chat = ChatSubmission::parse(body(options).as_bytes()).unwrap();
            assert_eq!(chat.include_usage, include_usage, "{options}");
            let travels = chat.request.params.get("stream_options").map(RawValue::get);
            assert_eq!(travels, travelling, "{options}");
        }
        for (options, code, param) in [
            (
                r#"{"include_obfuscation":true}"#,
                "unsupported_value",
                "stream_options.include_obfuscation",
            ),
            (r#"{"x":1,"x":2}"#, "invalid_json", "stream_options.x"),
            (
                r#"{"include_usage":1}"#,
                "invalid_type",
                "stream_options.include_usage",
            ),
            ("7", "invalid_type", "stream_options"),
        ] {
            let refused = ChatSubmission::parse(body(options).as_bytes()).unwrap_err();
            assert_eq!(refused.code, code, "{options}");
            assert_eq!(refused.param.as_deref(), Some(param), "{options}");
        }
    }
}
