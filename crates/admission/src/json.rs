//! Bodies: their allowed nesting, and error messages about them.

mod readable;
mod wrong;

use serde::Deserialize;
use serde::de::IgnoredAny;

pub(crate) use readable::{is_readable, unreadable};

use crate::error::Invalid;

/// The deepest nesting of arrays and objects in a request body.
pub const MAX_JSON_DEPTH: usize = 64;

/// Reads a body, which is an object. The refusal names the field at fault and the expected type,
/// but repeats no value, because that may be a password.
pub fn read_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Invalid> {
    let read = serde_json::from_slice(body).map_err(|error| wrong::wrong::<T>(body, &error));
    // Serde would read an array as the values of the fields, one after the other.
    let first = body.trim_ascii_start().first();
    if first.is_some_and(|first| *first != b'{')
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    {
        return Err(Invalid::body(
            "invalid_json",
            "the body must be a JSON object, {…}",
        ));
    }
    read
}

/// The most values and names in a request body.
pub const MAX_JSON_VALUES: usize = 100_000;

/// Refuses a body that nests deeper than [`MAX_JSON_DEPTH`] or has more than [`MAX_JSON_VALUES`].
///
/// Parts of a request stay unparsed and are parsed later elsewhere. An accepted part must neither
/// overflow a stack there nor become a tree a hundred times as large. This takes one pass without
/// allocation; the parser decides whether it is JSON.
pub fn check_shape(body: &[u8]) -> Result<(), Invalid> {
    let mut depth = 0_usize;
    let mut values = 1_usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(Invalid::body(
                        "json_too_deep",
                        format!("the body nests deeper than {MAX_JSON_DEPTH} levels"),
                    ));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        // Each value but the first follows one of these.
        values += usize::from(matches!(byte, b'[' | b'{' | b',' | b':'));
    }
    if values > MAX_JSON_VALUES {
        return Err(Invalid::body(
            "too_many_values",
            format!(
                "the body holds more than {MAX_JSON_VALUES} values: send fewer and longer ones"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_shape(deep(MAX_JSON_DEPTH).as_bytes()).is_ok());
        assert!(check_shape(deep(MAX_JSON_DEPTH + 1).as_bytes()).is_err());
        let quoted = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500));
        assert!(check_shape(quoted.as_bytes()).is_ok());
        let wide = format!("[{}[]]", "[],".repeat(500));
        assert!(check_shape(wide.as_bytes()).is_ok());
    }

    #[test]
    fn values_are_counted_whatever_they_are_and_a_text_is_one() {
        for value in ["{}", "[]", "0", r#"{"":0}"#] {
            let body = |count: usize| format!("[{}0]", format!("{value},").repeat(count));
            assert!(check_shape(body(1_000).as_bytes()).is_ok());
            let refused = check_shape(body(MAX_JSON_VALUES).as_bytes()).unwrap_err();
            assert_eq!(refused.code, "too_many_values", "{value}");
        }
        let text = format!(r#"{{"a":"{}"}}"#, ",".repeat(MAX_JSON_VALUES));
        assert!(check_shape(text.as_bytes()).is_ok());
    }
}
