//! Bodies: how deep they may nest, and how it is told what is wrong with one.

mod wrong;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Invalid;

/// How deep arrays and objects of a request body may nest.
pub const MAX_JSON_DEPTH: usize = 64;

/// Reads a body, which is an object. The refusal names the field at fault and what belongs there, and
/// repeats no value: that may be a password.
pub fn read_json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Invalid> {
    let read = serde_json::from_slice(body).map_err(|error| wrong::wrong::<T>(body, &error));
    // An array would be taken for the values of the fields, one after the other.
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

/// Refuses a body that nests deeper than [`MAX_JSON_DEPTH`]. Parts of a request are kept unparsed and
/// are parsed later, by others: what is accepted here must not overflow a stack there. One pass, no allocation; whether it is
/// JSON at all is for the parser to say.
pub fn check_depth(body: &[u8]) -> Result<(), Invalid> {
    let mut depth = 0_usize;
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
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_depth(deep(MAX_JSON_DEPTH).as_bytes()).is_ok());
        assert!(check_depth(deep(MAX_JSON_DEPTH + 1).as_bytes()).is_err());
        let quoted = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500));
        assert!(check_depth(quoted.as_bytes()).is_ok());
        let wide = format!("[{}[]]", "[],".repeat(500));
        assert!(check_depth(wide.as_bytes()).is_ok());
    }
}
