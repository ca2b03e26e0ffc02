//! The position of an event in its run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The position of an event in its run: strictly increasing and the same on every server. It
/// outlives the stream that carries the event. Zero is the position before the first event.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(transparent)]
pub struct EventId(u64);

impl EventId {
    /// The position before the first event of any attempt.
    pub const ORIGIN: Self = Self(0);

    /// Returns the id of the `n`-th event of `attempt`; both count from 1.
    pub const fn new(attempt: u32, n: u32) -> Self {
        Self(((attempt as u64) << 32) | n as u64)
    }

    /// Returns the attempt that wrote the event.
    pub const fn attempt(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the position within the attempt.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is asked for"
    )]
    pub const fn n(self) -> u32 {
        self.0 as u32
    }

    /// Returns the id as one number, as in JSON, in `Last-Event-ID` and in SQL.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Wraps a stored or received number.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// Returns the next id of the same attempt.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cursor that is not a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an event id: send the `id` of the last event that you have seen, a whole number"
)]
pub struct InvalidEventId(String);

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(given: &str) -> Result<Self, InvalidEventId> {
        given
            .parse()
            .map(Self)
            .map_err(|_| InvalidEventId(given.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_by_attempt_first() {
        let id = EventId::new(3, 7);
        assert_eq!((id.attempt(), id.n()), (3, 7));
        assert!(EventId::new(2, u32::MAX) < EventId::new(3, 1));
        assert_eq!(id.next(), EventId::new(3, 8));
        assert!("12x".parse::<EventId>().is_err());
    }
}
