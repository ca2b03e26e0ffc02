//! Error messages about a body for its sender. They name the field and never its value, which may
//! be a password.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::unreadable;
use crate::error::Invalid;

const CODE: &str = "invalid_json";
/// The longest text of the input, such as a field's name, that is repeated.
const LONGEST: usize = 400;

/// Returns the reason why `body` is no `T`. It reads the body again, slowly, because a refusal need
/// not be fast.
pub(super) fn wrong<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    error: &serde_json::Error,
) -> Invalid {
    let words = error.to_string();
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
    // In the words of the parser, which name a place and quote nothing.
    if error.classify() != Category::Data && !is_json {
        return Invalid::body(CODE, format!("the body is not JSON: {words}"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let place = serde_path_to_error::deserialize::<_, T>(&mut json)
        .err()
        .map(|error| error.path().to_string())
        .filter(|path| path != ".");
    // Its grammar is right, so that a text or a number is not.
    if error.classify() != Category::Data {
        return match place {
            Some(place) => unreadable(CODE, place),
            None => Invalid::body(CODE, format!("a text of the body is none: {words}")),
        };
    }
    let words = words
        .rsplit_once(" at line ")
        .map_or(&*words, |(words, _)| words);
    say(place, words)
}

/// Translates serde's text.
fn say(place: Option<String>, words: &str) -> Invalid {
    let quoted = |prefix: &str| Some(words.strip_prefix(prefix)?.split_once('`')?.0);
    let within = |name: &str| match &place {
        Some(place) => format!("{place}.{name}"),
        None => name.to_owned(),
    };
    if let Some(name) = quoted("missing field `") {
        let field = within(name);
        let message = format!("`{field}` is missing");
        return Invalid::field(CODE, field, message);
    }
    if let Some(name) = quoted("duplicate field `") {
        return Invalid::field(CODE, within(name), format!("`{name}` is there twice"));
    }
    if let Some(rest) = words.strip_prefix("unknown field ") {
        let message = match rest.rsplit_once(", expected ") {
            Some((name, known)) => format!("there is no field {}: there is {known}", cut(name)),
            None => format!("there is no field {}", cut(rest)),
        };
        return Invalid::body(CODE, message);
    }
    let message = match (&place, words.rsplit_once(", expected ")) {
        (Some(place), Some((_, expected))) => format!("`{place}` must be {}", kind(expected)),
        (None, Some((_, expected))) => format!("the body must be {}", kind(expected)),
        (Some(place), None) => format!("`{place}`: {}", cut(words)),
        (None, None) => cut(words).into_owned(),
    };
    Invalid {
        code: CODE,
        param: place,
        message,
    }
}

/// Names a type for people who do not write Rust.
fn kind(expected: &str) -> Cow<'_, str> {
    let unsigned = |most: u64| Cow::Owned(format!("a whole number from 0 to {most}"));
    match expected {
        "u8" => unsigned(u8::MAX.into()),
        "u16" => unsigned(u16::MAX.into()),
        "u32" => unsigned(u32::MAX.into()),
        "u64" | "usize" => "a whole number that is not negative".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a map" => "an object".into(),
        "a sequence" => "an array".into(),
        "a borrowed string" => "a string".into(),
        other if other.starts_with("struct ") => "an object".into(),
        other => cut(other),
    }
}

fn cut(words: &str) -> Cow<'_, str> {
    match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &words[..end]).into(),
        None => words.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::read_json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read and not looked at")]
    struct Asked {
        name: String,
        #[serde(default)]
        limits: Option<Limits>,
        #[serde(default)]
        tags: Vec<Choice>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read and not looked at")]
    struct Limits {
        per_minute: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        Red,
        Blue,
    }

    #[test]
    fn a_refusal_names_the_field_and_what_belongs_there() {
        for (body, param, message) in [
            ("{}", Some("name"), "`name` is missing"),
            (r#"{"name":7}"#, Some("name"), "`name` must be a string"),
            (
                r#"{"name":"x","limits":{}}"#,
                Some("limits.per_minute"),
                "`limits.per_minute` is missing",
            ),
            (
                r#"{"name":"x","limits":{"per_minute":-1}}"#,
                Some("limits.per_minute"),
                "`limits.per_minute` must be a whole number from 0 to 4294967295",
            ),
            (
                r#"{"name":"x","limits":[]}"#,
                Some("limits"),
                "`limits` must be an object",
            ),
            (
                r#"{"name":"x","tags":["red","green"]}"#,
                Some("tags[1]"),
                "`tags[1]` must be `red` or `blue`",
            ),
            (
                r#"{"name":"x","name":"y"}"#,
                Some("name"),
                "`name` is there twice",
            ),
            (
                r#"{"nam":"x"}"#,
                None,
                "there is no field `nam`: there is one of `name`, `limits`, `tags`",
            ),
            ("[]", None, "the body must be a JSON object, {…}"),
            (r#""x""#, None, "the body must be a JSON object, {…}"),
        ] {
            let invalid = read_json::<Asked>(body.as_bytes()).unwrap_err();
            assert_eq!(
                (&*invalid.message, invalid.param.as_deref(), invalid.code),
                (message, param, "invalid_json"),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_told_by_its_place() {
        for body in [
            "",
            " ",
            "{",
            r#"{"name":"#,
            r#"{"name":"x"} y"#,
            "{'name':1}",
        ] {
            let invalid = read_json::<Asked>(body.as_bytes()).unwrap_err();
            assert!(
                invalid.message.starts_with("the body is not JSON: ")
                    && invalid.message.contains(" at line 1 column "),
                "{body}: {invalid}"
            );
        }
    }

    #[test]
    fn values_are_not_repeated_and_names_not_at_length() {
        for body in [
            r#"{"name":{"hunter2":1}}"#,
            r#"{"name":"x","tags":["hunter2"]}"#,
            r#"{"name":"x","limits":{"per_minute":"hunter2"}}"#,
            r#"{"name":"x","limits":"hunter2, expected hunter2"}"#,
        ] {
            let invalid = read_json::<Asked>(body.as_bytes()).unwrap_err();
            assert!(!invalid.message.contains("hunter2"), "{invalid}");
        }
        let long = format!(r#"{{"{}":1}}"#, "é".repeat(10_000));
        let invalid = read_json::<Asked>(long.as_bytes()).unwrap_err();
        assert!(invalid.message.len() < 1_000, "{invalid}");
    }
}
