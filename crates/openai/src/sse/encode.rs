//! Writes events.

use std::fmt::{Display, Write};

use bytes::{BufMut, BytesMut};
use memchr::memchr2;

/// Appends one event. `name` and `id` must not contain line ends; `data` may have several lines.
pub fn event(out: &mut BytesMut, id: Option<&dyn Display>, name: Option<&str>, data: &[u8]) {
    out.reserve(data.len() + 64);
    if let Some(id) = id {
        out.put_slice(b"id: ");
        // A growing buffer accepts everything.
        let _ = write!(out, "{id}");
        out.put_u8(b'\n');
    }
    if let Some(name) = name {
        debug_assert!(!name.contains(['\r', '\n']));
        out.put_slice(b"event: ");
        out.put_slice(name.as_bytes());
        out.put_u8(b'\n');
    }
    let mut rest = data;
    loop {
        out.put_slice(b"data: ");
        let Some(end) = memchr2(b'\n', b'\r', rest) else {
            out.put_slice(rest);
            out.put_slice(b"\n\n");
            return;
        };
        out.put_slice(&rest[..end]);
        out.put_u8(b'\n');
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
}

/// Appends a heartbeat. It ends with a single line end, because openai-python makes an empty event
/// of a comment and an empty line once the stream has used ids.
pub fn ping(out: &mut BytesMut) {
    out.put_slice(b": ping\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_fields_in_order_and_pings_no_empty_line() {
        let mut out = BytesMut::new();
        event(&mut out, Some(&7_u64), Some("text.delta"), b"{}");
        ping(&mut out);
        event(&mut out, None, None, b"a\r\nb\nc");
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "id: 7\nevent: text.delta\ndata: {}\n\n: ping\ndata: a\ndata: b\ndata: c\n\n",
        );
    }
}
