//! The fields that Baton does not read: their limits in number and size.

use std::collections::HashSet;

use baton_protocol::raw_fields::RawField;
use baton_protocol::{NotFields, RawFields};
use serde_json::value::RawValue;

use crate::error::Invalid;
use crate::json::{is_readable, unreadable};

/// The most bytes of all unread fields together, as written; messages and tools are limited
/// separately.
pub const MAX_UNREAD_BYTES: usize = 64 * 1024;
/// The most fields that may be passed on to the upstream.
pub const MAX_UNREAD_FIELDS: usize = 256;
/// The longest part of a name that is repeated.
const LONGEST_NAME: usize = 64;

/// The fields of a body that are passed on. It copies none before all are known to fit.
#[derive(Debug, Default)]
pub(super) struct Travelling<'a> {
    fields: Vec<RawField<'a>>,
    count: usize,
    bytes: usize,
}

impl<'a> Travelling<'a> {
    /// Adds a field, or only counts one that does not fit.
    pub(super) fn add(&mut self, (name, value): RawField<'a>) {
        self.count += 1;
        self.bytes = self
            .bytes
            .saturating_add(name.len())
            .saturating_add(value.get().len());
        if self.count <= MAX_UNREAD_FIELDS {
            self.fields.push((name, value));
        }
    }

    /// Puts a field in the place of those of its name.
    pub(super) fn replace(&mut self, name: &'a str, value: &'a RawValue) {
        self.fields.retain(|(key, _)| key != name);
        self.add((name.into(), value));
    }

    /// The value of a field that was added.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let of_name = |(key, value): &RawField<'a>| (key == name).then_some(*value);
        self.fields.iter().find_map(of_name)
    }

    /// Returns the fields as one object, if they fit and none is repeated.
    pub(super) fn finish(self) -> Result<RawFields, Invalid> {
        check_count(self.count)?;
        if self.bytes > MAX_UNREAD_BYTES {
            let largest = self
                .fields
                .iter()
                .max_by_key(|(name, value)| name.len() + value.get().len());
            let largest = largest.map_or("", |(name, _)| name);
            return Err(too_large(
                largest,
                "the fields other than `messages` and `tools`",
            ));
        }
        check_names("", &self.fields)?;
        for (name, value) in &self.fields {
            check_readable("invalid_json", cut(name), value)?;
        }
        Ok(RawFields::from_fields(self.fields))
    }
}

/// Reads `params` of a native request. `metadata` counts towards the unread bytes.
pub(super) fn params(
    params: Option<Box<RawValue>>,
    metadata: Option<&RawValue>,
) -> Result<RawFields, Invalid> {
    let Some(params) = params.filter(|params| params.get() != "null") else {
        return Ok(RawFields::default());
    };
    let of_metadata = metadata.map_or(0, |metadata| metadata.get().len());
    if params.get().len().saturating_add(of_metadata) > MAX_UNREAD_BYTES {
        return Err(too_large("params", "`params` and `metadata`"));
    }
    let params = RawFields::from_object(params).map_err(|NotFields| {
        Invalid::field("invalid_json", "params", "`params` must be an object")
    })?;
    let fields = params.fields();
    check_count(fields.len())?;
    check_names("params.", &fields)?;
    for (name, value) in &fields {
        check_readable("invalid_json", &format!("params.{}", cut(name)), value)?;
    }
    drop(fields);
    Ok(params)
}

/// Refuses texts and numbers that PostgreSQL and most upstreams cannot read.
pub(super) fn check_readable(
    code: &'static str,
    param: &str,
    value: &RawValue,
) -> Result<(), Invalid> {
    if is_readable(value) {
        return Ok(());
    }
    Err(unreadable(code, param))
}

fn too_large(largest: &str, what: &str) -> Invalid {
    let largest = cut(largest);
    let message = format!(
        "{what} may hold {MAX_UNREAD_BYTES} bytes together, and hold more: shorten `{largest}`"
    );
    Invalid::field("fields_too_large", largest, message)
}

fn check_count(count: usize) -> Result<(), Invalid> {
    if count <= MAX_UNREAD_FIELDS {
        return Ok(());
    }
    let message = format!(
        "{count} fields are to travel to the upstream, and {MAX_UNREAD_FIELDS} may: leave some out"
    );
    Err(Invalid::body("too_many_fields", message))
}

/// Refuses repeated names, because readers differ in which value they use, and the checked one must
/// be the used one.
pub(super) fn check_names(prefix: &str, fields: &[RawField<'_>]) -> Result<(), Invalid> {
    let mut seen = HashSet::with_capacity(fields.len());
    match fields.iter().find(|(name, _)| !seen.insert(&**name)) {
        None => Ok(()),
        Some((name, _)) => {
            let field = format!("{prefix}{}", cut(name));
            let message = format!("`{field}` is there twice");
            Err(Invalid::field("invalid_json", field, message))
        }
    }
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(LONGEST_NAME)]
}

#[cfg(test)]
mod tests {
    use super::super::{ChatSubmission, SubmitRequest};
    use super::*;

    const MESSAGES: &str = r#""messages":[{"role":"user","content":"x"}]"#;

    /// Reads the same fields at both doors.
    fn both(fields: &str) -> [Result<RawFields, Invalid>; 2] {
        let chat = format!(r#"{{"model":"m",{MESSAGES},{fields}}}"#);
        let native = format!(r#"{{"model":"m",{MESSAGES},"params":{{{fields}}}}}"#);
        [
            ChatSubmission::parse(chat.as_bytes()).map(|chat| chat.request.params),
            SubmitRequest::parse_native(native.as_bytes()).map(|request| request.params),
        ]
    }

    fn code(read: Result<RawFields, Invalid>) -> Option<&'static str> {
        read.err().map(|invalid| invalid.code)
    }

    #[test]
    fn a_text_that_is_none_is_refused_by_the_name_of_its_field() {
        let chat = |field: &str| {
            let body =
                format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{field}}}"#);
            ChatSubmission::parse(body.as_bytes()).map(drop)
        };
        let run = |field: &str| {
            let body = format!(r#"{{"model":"m","input":"x",{field}}}"#);
            SubmitRequest::parse_native(body.as_bytes()).map(drop)
        };
        for (refused, code, param) in [
            (chat(r#""stop":["\ud800"]"#), "invalid_json", "stop"),
            (chat(r#""top_k":1e999"#), "invalid_json", "top_k"),
            (
                run(r#""params":{"a":1,"stop":"\udfff"}"#),
                "invalid_json",
                "params.stop",
            ),
            (
                run(r#""metadata":{"k":"\ud800x"}"#),
                "invalid_metadata",
                "metadata",
            ),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(
                (refused.code, refused.param.as_deref()),
                (code, Some(param))
            );
            assert!(refused.message.contains("surrogate"), "{}", refused.message);
        }
        assert!(run(r#""params":{"stop":"\ud83d\ude00"},"metadata":{}"#).is_ok());
    }

    #[test]
    fn what_travels_stays_as_it_was_written() {
        let fields = r#""z":{"b":1.10,"a":[ 18446744073709551616 ]},"seed":1,"a":null"#;
        for params in both(fields) {
            assert_eq!(params.unwrap().as_raw().get(), format!("{{{fields}}}"));
        }
    }

    #[test]
    fn all_that_travels_is_64_kib_at_most_in_many_fields_or_in_one() {
        let text = |size: usize| format!(r#""a":"{}""#, "x".repeat(size));
        let many = |size: usize| {
            let fields = (0..8).map(|n| format!(r#""a{n}":"{}""#, "x".repeat(size / 8)));
            fields.collect::<Vec<_>>().join(",")
        };
        for fields in [text(MAX_UNREAD_BYTES - 100), many(MAX_UNREAD_BYTES - 200)] {
            assert_eq!(both(&fields).map(code), [None, None]);
        }
        let small_values = format!(r#""a":[{}{{}}]"#, r#"{"":0},"#.repeat(20_000));
        for fields in [text(MAX_UNREAD_BYTES), many(MAX_UNREAD_BYTES), small_values] {
            assert_eq!(both(&fields).map(code), [Some("fields_too_large"); 2]);
        }
        let native = format!(
            r#"{{"model":"m","input":"x","params":{{{}}},"metadata":{{{}}}}}"#,
            text(50 << 10),
            text(15 << 10)
        );
        let refused = SubmitRequest::parse_native(native.as_bytes()).unwrap_err();
        assert_eq!(refused.code, "fields_too_large");
    }

    #[test]
    fn fields_are_counted() {
        let fields = |count: usize| {
            let fields = (0..count).map(|n| format!(r#""f{n}":0"#));
            fields.collect::<Vec<_>>().join(",")
        };
        assert_eq!(both(&fields(MAX_UNREAD_FIELDS)).map(code), [None, None]);
        let refused = both(&fields(MAX_UNREAD_FIELDS + 1)).map(code);
        assert_eq!(refused, [Some("too_many_fields"); 2]);
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        let [chat, native] = both(r#""seed":1,"top_p":1,"se\u0065d":2"#);
        assert_eq!(chat.unwrap_err().param.as_deref(), Some("seed"));
        assert_eq!(native.unwrap_err().param.as_deref(), Some("params.seed"));
        for twice in ["model", "stream", "messages", "n"] {
            let body = format!(r#"{{"stream":false,"n":1,"model":"m",{MESSAGES},"{twice}":null}}"#);
            let refused = ChatSubmission::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refused.param.as_deref(), Some(twice));
        }
    }
}
