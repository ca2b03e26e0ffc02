//! The W3C trace context and the request id of a run. Strangers write them, so only the exact form
//! is kept: they become headers of messages and of requests to the model.

/// Returns whether this is a `traceparent` of version 00: 55 characters, lower-case hexadecimal,
/// neither id zero. Forms of later versions are refused.
pub fn is_traceparent(given: &str) -> bool {
    let mut fields = given.split('-');
    let mut field = |length: usize| {
        fields.next().filter(|field| {
            field.len() == length
                && field
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
    let (version, trace, parent, flags) = (field(2), field(32), field(16), field(2));
    version == Some("00")
        && trace.is_some_and(|trace| !is_zero(trace))
        && parent.is_some_and(|parent| !is_zero(parent))
        && flags.is_some()
        && fields.next().is_none()
}

/// The longest request id that is kept.
pub const MAX_REQUEST_ID: usize = 128;

/// Returns whether this is a valid request id: 1 to 128 visible ASCII characters.
pub fn is_request_id(given: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_has_the_form_of_version_00_or_is_none() {
        assert!(is_traceparent(GOOD));
        assert!(is_traceparent(&GOOD.replace("-01", "-ff")));
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        for bad in [
            "",
            "00-trace",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-extra"),
            &format!("{GOOD}\r"),
            &format!(" {GOOD}"),
            &GOOD.replace("00-4", "01-4"),
            &GOOD.replace("00-4", "ff-4"),
            &GOOD.replace('4', "g"),
            &GOOD.replace("4bf9", "\u{662}\u{663}"),
            &zero_trace,
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &"0".repeat(55),
            &"a".repeat(64 << 10),
        ] {
            assert!(!is_traceparent(bad), "{bad:.80}");
        }
    }

    #[test]
    fn a_request_id_is_short_and_visible() {
        assert!(is_request_id("order-17/retry.2") && is_request_id(&"x".repeat(MAX_REQUEST_ID)));
        for bad in [
            "",
            "two words",
            "a\0b",
            "a\rb",
            "a\u{202e}b",
            &"x".repeat(129),
        ] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }
}
