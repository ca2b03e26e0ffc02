//! Shows strangers' text with escapes, because a terminal obeys control characters, and
//! bidirectional marks make a line look like another one.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes all characters that a terminal would obey or hide, line breaks too; for one field of a
/// line.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// As [`visible`], but keeps line breaks and tabs; for a whole text.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// As [`visible_lines`], for bytes that may not be text.
pub(crate) fn visible_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&visible_lines(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _written = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Writes JSON on one line, with escapes in place of all characters that a terminal would obey.
pub(crate) fn visible_json(json: &serde_json::Value) -> String {
    let plain = json.to_string();
    let mut shown = String::with_capacity(plain.len());
    for c in plain.chars() {
        if is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _written = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Returns whether it is a control character, a line or paragraph separator, a mark of direction,
/// or a character without width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_the_rest_stays() {
        for plain in ["", "Jörg O'Hara", "हिन्दी", "a\\nb", "{\"x\": \"✓\"}"] {
            assert_eq!(visible(plain), plain);
        }
        for (given, shown) in [
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("admin\u{202e}txt", "admin\\u{202e}txt"),
            ("a\u{2028}b\u{200b}", "a\\u{2028}b\\u{200b}"),
        ] {
            assert_eq!(visible(given), shown);
        }
        assert_eq!(visible_lines("a\n\tb\u{7}"), "a\n\tb\\u{7}");
        assert_eq!(visible_bytes(b"a\xff\x1b\nb"), "a\\xff\\u{1b}\nb");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"by": "a\u{202e}b\u{1b}\u{e0041}ü"});
        let shown = visible_json(&value);
        assert!(!shown.contains(is_hidden), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }
}
