//! Events: appended by the holder of a run, read back, and followed.

pub(crate) mod attempts;
pub mod cursor;
pub mod follower;
pub(crate) mod read;
mod resume;

pub use read::EventsState;

use std::fmt;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use baton_protocol::{RunId, TenantId};
use bytes::Bytes;

use crate::bus::{Bus, Rejected, Unanswered};
use crate::subjects;

/// Marks the end of an unbroken log, see [`EventLines`].
const END_UNBROKEN: HeaderName = HeaderName::from_static("Baton-Unbroken");

/// A position in EVENTS. Clients never see one, because a stream that was lost and restored uses
/// its numbers again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSeq(u64);

impl StreamSeq {
    /// No message yet on the run's subject.
    pub const NONE: Self = Self(0);

    /// Returns the number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Wraps a number.
    pub const fn from_u64(seq: u64) -> Self {
        Self(seq)
    }
}

impl fmt::Display for StreamSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One message of EVENTS: one or more events of a run, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvents {
    /// Its position.
    pub seq: StreamSeq,
    /// Its lines; see `Event::lines`.
    pub payload: Bytes,
}

/// A reason for which an append is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another message is last on the run's subject, so this call stored nothing. An earlier call
    /// with a lost answer may have stored the same events, a newer attempt may have written, or
    /// all may have aged out. [`Bus::event_tip`] shows which.
    #[error("another message is last on the run's subject")]
    WrongLast,
    /// No answer: it may be stored, now or later. Repeat with the same bytes, or read the tip.
    #[error("NATS did not say whether it stored the events")]
    Unknown,
    /// There is no connection: not stored.
    #[error("not connected to NATS")]
    Disconnected,
    /// The server or the account is full: not stored.
    #[error("the event stream is full: {0}")]
    Full(String),
    /// There is no such stream, or it has no leader: not stored.
    #[error("no stream takes the events")]
    NoStream,
    /// The stream refused them for another reason, such as their size: not stored.
    #[error("NATS refused the events: {0}")]
    Refused(String),
}

/// A reason for which nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no connection.
    #[error("not connected to NATS")]
    Disconnected,
    /// No answer, or not all of it.
    #[error("NATS did not answer in time")]
    NoAnswer,
    /// There is no such stream or consumer, or it has no leader.
    #[error("the stream or consumer is missing")]
    NoStream,
    /// The broker refused.
    #[error("NATS refused the request: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("NATS gave an unreadable answer: {0}")]
    Unreadable(String),
}

impl From<Unanswered> for ReadError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::NotSent => Self::Disconnected,
            Unanswered::NobodyThere => Self::NoStream,
            Unanswered::Unknown => Self::NoAnswer,
            Unanswered::TooLarge(reason) => Self::Refused(reason),
        }
    }
}

impl From<Rejected> for AppendError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Unanswered(Unanswered::NotSent) => Self::Disconnected,
            Rejected::Unanswered(Unanswered::Unknown) => Self::Unknown,
            Rejected::Unanswered(Unanswered::NobodyThere) => Self::NoStream,
            Rejected::Unanswered(Unanswered::TooLarge(reason)) => Self::Refused(reason),
            Rejected::Refused(error) if error.is_wrong_last() => Self::WrongLast,
            Rejected::Refused(error) if error.is_full() => Self::Full(error.description),
            Rejected::Refused(error) => {
                Self::Refused(format!("{} ({})", error.description, error.err_code))
            }
        }
    }
}

/// Events to append, as lines of JSON.
#[derive(Debug, Clone)]
pub struct EventLines {
    /// The lines.
    pub lines: Bytes,
    /// Whether they end an unbroken log: it shows what the ledger has, in the same order, and nothing was
    /// withdrawn. The message has a header that says so; a log without one may be of either kind.
    pub end_unbroken: bool,
}

impl From<Bytes> for EventLines {
    fn from(lines: Bytes) -> Self {
        Self {
            lines,
            end_unbroken: false,
        }
    }
}

impl Bus {
    /// Appends events to a run's log if `expected` is last on its subject ([`StreamSeq::NONE`] if
    /// the subject is empty), and waits until they are stored.
    ///
    /// There is no message id: the expectation refuses a repeated append, and the tip shows whether
    /// the first one was stored.
    pub async fn append_events(
        &self,
        tenant: TenantId,
        run: RunId,
        expected: StreamSeq,
        events: impl Into<EventLines>,
    ) -> Result<StreamSeq, AppendError> {
        let EventLines {
            lines,
            end_unbroken,
        } = events.into();
        let mut headers = HeaderMap::new();
        if end_unbroken {
            headers.insert(END_UNBROKEN, HeaderValue::from(1_u64));
        }
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(expected.0),
        );
        Ok(StreamSeq(
            self.store(subjects::events(tenant, run), headers, lines)
                .await?,
        ))
    }
}
