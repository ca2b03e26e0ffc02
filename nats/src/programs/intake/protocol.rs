//! The part of NATS's protocol that a server sends to a client that only subscribes. Pure.
//!
//! The decoder splits lines as the server does: at ASCII space and tab only. The server allows
//! every other byte in a subject.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

/// The longest line, in bytes. The server's greeting names all servers of its cluster.
pub const MAX_LINE: usize = 64 << 10;
/// The largest size that a line may name, in bytes: the most that a server can be configured to
/// accept.
const MAX_SIZE: usize = 64 << 20;

/// One message of the server in its protocol.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// Information about the server, as JSON.
    Info(Bytes),
    /// A message.
    Message(Message),
    /// A message that was skipped because its payload is too large.
    TooLarge {
        /// The subscription's number.
        sid: u64,
    },
    /// A question whether this client is alive.
    Ping,
    /// The answer to such a question.
    Pong,
    /// An acknowledgement without content.
    Ok,
    /// An error message.
    Error(String),
}

/// A message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The subscription's number.
    pub sid: u64,
    /// The subject, as it was published.
    pub subject: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// Omits strangers' text.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info(_) => f.write_str("Info"),
            Self::Message(message) => message.fmt(f),
            Self::TooLarge { sid } => write!(f, "TooLarge({sid})"),
            Self::Ping => f.write_str("Ping"),
            Self::Pong => f.write_str("Pong"),
            Self::Ok => f.write_str("Ok"),
            Self::Error(error) => write!(f, "Error({error:?})"),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("sid", &self.sid)
            .field("subject", &self.subject.escape_ascii().to_string())
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// A reason for which bytes are not a line of the server. It ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line is longer than [`MAX_LINE`].
    #[error("a line of the server is longer than {MAX_LINE} bytes")]
    LongLine,
    /// A line ends without a carriage return.
    #[error("a line of the server does not end with CR LF")]
    LineEnd,
    /// A line begins with an unknown word.
    #[error("a line of the server begins with an unknown word")]
    UnknownWord,
    /// A message's line is not `MSG <subject> <sid> [<reply>] <size>`.
    #[error("the line before a message cannot be read")]
    MessageLine,
    /// A payload is not as long as its line says.
    #[error("a message does not end where its line says")]
    PayloadEnd,
}

/// A decoder of frames from bytes as they arrive.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// No line ends before this offset of the buffer.
    searched: usize,
    max_payload: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Line,
    /// A message's line was read: its payload and CR LF follow.
    Payload {
        sid: u64,
        subject: Bytes,
        size: usize,
    },
    /// A message that is too large: so many bytes are skipped, including CR LF.
    Skip {
        sid: u64,
        left: usize,
    },
}

impl Decoder {
    /// Returns a decoder that keeps no payload longer than this.
    pub fn new(max_payload: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            max_payload,
            state: State::Line,
        }
    }

    /// Returns the buffer for the next bytes. Call [`Decoder::decode`] until it returns `None`
    /// before adding more.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the number of bytes that belong to no frame yet.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the next frame, if it is complete.
    pub fn decode(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            match &mut self.state {
                State::Line => {
                    let Some(line) = self.line()? else {
                        return Ok(None);
                    };
                    if let Some(frame) = self.read_line(&line)? {
                        return Ok(Some(frame));
                    }
                }
                State::Payload { size, .. } => {
                    let size = *size;
                    if self.buffer.len() < size + 2 {
                        return Ok(None);
                    }
                    if &self.buffer[size..size + 2] != b"\r\n" {
                        return Err(ProtocolError::PayloadEnd);
                    }
                    // Copies, because a slice would keep the whole buffer for as long as a message waits.
                    let payload = Bytes::copy_from_slice(&self.buffer[..size]);
                    self.buffer.advance(size + 2);
                    let State::Payload { sid, subject, .. } =
                        std::mem::replace(&mut self.state, State::Line)
                    else {
                        continue;
                    };
                    return Ok(Some(Frame::Message(Message {
                        sid,
                        subject,
                        payload,
                    })));
                }
                State::Skip { sid, left } => {
                    let there = self.buffer.len().min(*left);
                    self.buffer.advance(there);
                    *left -= there;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let sid = *sid;
                    self.state = State::Line;
                    return Ok(Some(Frame::TooLarge { sid }));
                }
            }
        }
    }

    /// Returns the next line without its end.
    fn line(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let Some(found) = memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_LINE {
                Err(ProtocolError::LongLine)
            } else {
                Ok(None)
            };
        };
        let end = self.searched + found;
        if end > MAX_LINE {
            return Err(ProtocolError::LongLine);
        }
        self.searched = 0;
        let line = Bytes::copy_from_slice(&self.buffer[..end]);
        self.buffer.advance(end + 1);
        match line.strip_suffix(b"\r") {
            Some(rest) => Ok(Some(line.slice_ref(rest))),
            None => Err(ProtocolError::LineEnd),
        }
    }

    /// Returns a line's frame; `None` if its payload follows.
    fn read_line(&mut self, line: &Bytes) -> Result<Option<Frame>, ProtocolError> {
        let word_end = line
            .iter()
            .position(|byte| is_space(*byte))
            .unwrap_or(line.len());
        let rest = line.slice(word_end..);
        Ok(Some(match &line[..word_end] {
            b"MSG" => {
                self.state = self.message(&rest)?;
                return Ok(None);
            }
            b"INFO" => Frame::Info(rest),
            b"PING" => Frame::Ping,
            b"PONG" => Frame::Pong,
            b"+OK" => Frame::Ok,
            b"-ERR" => Frame::Error(rest.trim_ascii().escape_ascii().to_string()),
            _ => return Err(ProtocolError::UnknownWord),
        }))
    }

    /// Reads `<subject> <sid> [<reply>] <size>`. Ignores the reply, because a program chose it.
    fn message(&self, rest: &Bytes) -> Result<State, ProtocolError> {
        let mut tokens = rest
            .split(|byte| is_space(*byte))
            .filter(|token| !token.is_empty());
        let (Some(subject), Some(sid), Some(third)) = (tokens.next(), tokens.next(), tokens.next())
        else {
            return Err(ProtocolError::MessageLine);
        };
        let size = match (tokens.next(), tokens.next()) {
            (None, _) => third,
            (Some(size), None) => size,
            (Some(_), Some(_)) => return Err(ProtocolError::MessageLine),
        };
        let sid = number(sid).ok_or(ProtocolError::MessageLine)?;
        let size = number(size)
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| *size <= MAX_SIZE)
            .ok_or(ProtocolError::MessageLine)?;
        Ok(if size > self.max_payload {
            State::Skip {
                sid,
                left: size + 2,
            }
        } else {
            State::Payload {
                sid,
                subject: rest.slice_ref(subject),
                size,
            }
        })
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Reads decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    if !(1..=19).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, ProtocolError> {
        let mut decoder = Decoder::new(16);
        decoder.buffer().extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.decode()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn message(subject: &str, sid: u64, payload: &str) -> Frame {
        Frame::Message(Message {
            sid,
            subject: subject.to_owned().into(),
            payload: payload.to_owned().into(),
        })
    }

    #[test]
    fn lines_are_read_as_the_server_writes_them() {
        let frames = read(
            b"INFO {\"a\":1}\r\n+OK\r\nPING\r\nPONG\r\nMSG a.b 1 2\r\nhi\r\n\
              MSG a.b 1 _R_.x 0\r\n\r\n-ERR 'Stale Connection'\r\n",
        )
        .unwrap();
        let expected = [
            Frame::Info(Bytes::from_static(b" {\"a\":1}")),
            Frame::Ok,
            Frame::Ping,
            Frame::Pong,
            message("a.b", 1, "hi"),
            message("a.b", 1, ""),
            Frame::Error("\\'Stale Connection\\'".to_owned()),
        ];
        assert_eq!(frames, expected);
    }

    #[test]
    fn only_ascii_space_and_tab_part_a_line() {
        for space in [
            "\u{3000}", "\u{a0}", "\u{2028}", "\u{b}", "\u{c}", "\u{1680}", "\u{85}",
        ] {
            let subject = format!("history.x{space}17");
            let line = format!("MSG {subject} 2 3\r\nabc\r\n");
            assert_eq!(
                read(line.as_bytes()).unwrap(),
                [message(&subject, 2, "abc")]
            );
        }
        let tabs = read(b"MSG\ta.b \t 2\t\t3\r\nabc\r\n").unwrap();
        assert_eq!(tabs, [message("a.b", 2, "abc")]);
    }

    #[test]
    fn what_is_too_large_is_passed_over_without_being_kept() {
        let large = "x".repeat(17);
        let frames = read(format!("MSG a 1 17\r\n{large}\r\nPING\r\n").as_bytes()).unwrap();
        assert_eq!(frames, [Frame::TooLarge { sid: 1 }, Frame::Ping]);
        let mut decoder = Decoder::new(16);
        decoder.buffer().extend_from_slice(b"MSG a 1 60000000\r\n");
        assert_eq!(decoder.decode(), Ok(None));
        for _ in 0..1_000 {
            decoder.buffer().extend_from_slice(&[b'x'; 1_000]);
            assert_eq!(decoder.decode(), Ok(None));
            assert_eq!(decoder.pending(), 0);
        }
    }

    #[test]
    fn what_a_server_does_not_say_ends_the_connection() {
        let long = "x".repeat(MAX_LINE + 2);
        for (bytes, error) in [
            (&b"HMSG a 1 12 12\r\n"[..], ProtocolError::UnknownWord),
            (b"msg a 1 2\r\n", ProtocolError::UnknownWord),
            (b"\r\n", ProtocolError::UnknownWord),
            (b"PING\n", ProtocolError::LineEnd),
            (b"MSG a 1\r\n", ProtocolError::MessageLine),
            (b"MSG a x 1\r\n", ProtocolError::MessageLine),
            (b"MSG a 1 b c 1\r\n", ProtocolError::MessageLine),
            (b"MSG a 1 -1\r\n", ProtocolError::MessageLine),
            (
                b"MSG a 1 99999999999999999999\r\n",
                ProtocolError::MessageLine,
            ),
            (b"MSG a 1 67108865\r\n", ProtocolError::MessageLine),
            (b"MSG a 1 2\r\nabc\r\n", ProtocolError::PayloadEnd),
            (long.as_bytes(), ProtocolError::LongLine),
        ] {
            assert_eq!(read(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }
}
