//! A bound on nesting. Parts of a request are kept unparsed and are parsed later, by others: what
//! is accepted here must not overflow a stack there.

use crate::error::Invalid;

/// How deep arrays and objects of a request body may nest.
pub const MAX_JSON_DEPTH: usize = 64;

/// Refuses a body that nests deeper than [`MAX_JSON_DEPTH`]. One pass, no allocation; whether it is
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
