//! `sequence_number`: the position of a frame in a response's stream.

use std::fmt;
use std::str::FromStr;

use baton_protocol::EventId;

/// The position of a frame: the event that caused it, its place among the frames of that event, and
/// the number of items that the stream has shown and the record does not have.
///
/// It depends on nothing but the run's log, so that every server gives a frame the same number.
/// Numbers rise by event, then by frame. The lowest three bits count the extra items (withdrawn ones
/// and second parts). They never decide the order. They tell a server that has only the record at
/// which `output_index` the next item of a resumed stream opens.
///
/// The numbers of a run's first attempt begin at zero and fit 31 bits up to its two-millionth event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SequenceNumber {
    /// The event; [`EventId::ORIGIN`] for the frames before the first event.
    pub event: EventId,
    /// The place among the frames of the event, below [`SequenceNumber::FRAMES`].
    pub frame: u8,
    /// The extra items so far; [`SequenceNumber::MANY`] means that many or more.
    pub extra: u8,
}

const EXTRA_BITS: u32 = 3;
const FRAME_BITS: u32 = 7;
/// Bits of the position within an attempt: 16 million events.
const POSITION_BITS: u32 = 24;

impl SequenceNumber {
    /// The most frames of one event.
    pub const FRAMES: u8 = 1 << FRAME_BITS;
    /// The count of extra items at which exact counting ends.
    pub const MANY: u8 = (1 << EXTRA_BITS) - 1;

    /// Returns the number as the wire has it.
    pub const fn as_u64(self) -> u64 {
        // The first attempt's numbers begin at zero, so that they are small in most streams.
        let attempt = (self.event.attempt() as u64).saturating_sub(1);
        (((attempt << POSITION_BITS | self.event.n() as u64) << FRAME_BITS) | self.frame as u64)
            << EXTRA_BITS
            | self.extra as u64
    }

    /// Reads a number of the wire. Every number has a reading; whether there is such an event is the
    /// log's to say.
    pub const fn from_u64(number: u64) -> Self {
        let extra = (number & ((1 << EXTRA_BITS) - 1)) as u8;
        let number = number >> EXTRA_BITS;
        let frame = (number & ((1 << FRAME_BITS) - 1)) as u8;
        let number = number >> FRAME_BITS;
        let n = (number & ((1 << POSITION_BITS) - 1)) as u32;
        let attempt = (number >> POSITION_BITS) as u32;
        let event = if attempt == 0 && n == 0 {
            EventId::ORIGIN
        } else {
            EventId::new(attempt + 1, n)
        };
        Self {
            event,
            frame,
            extra,
        }
    }

    /// Returns whether a client that has seen the frame at `cursor` has seen the one here.
    pub fn is_seen_at(self, cursor: Self) -> bool {
        (self.event, self.frame) <= (cursor.event, cursor.frame)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_u64().fmt(f)
    }
}

/// A `starting_after` that is no number of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a sequence number: send the `sequence_number` of the last event that you have \
     seen, a whole number"
)]
pub struct InvalidSequenceNumber(String);

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(given: &str) -> Result<Self, InvalidSequenceNumber> {
        given
            .parse()
            .ok()
            // Larger ones are beyond the last attempt that there can be.
            .filter(|number| *number < 1 << 58)
            .map(Self::from_u64)
            .ok_or_else(|| InvalidSequenceNumber(given.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_numbers_are_small() {
        let at = |event, frame| SequenceNumber {
            event,
            frame,
            extra: 0,
        };
        assert_eq!(at(EventId::ORIGIN, 0).as_u64(), 0);
        assert_eq!(at(EventId::ORIGIN, 1).as_u64(), 8);
        assert_eq!(at(EventId::new(1, 1), 0).as_u64(), 1 << 10);
        assert!(at(EventId::new(1, 2_000_000), 127).as_u64() < 1 << 31);
        assert!(
            at(EventId::new(500_000, 1), 0).as_u64() < 1 << 53,
            "readers with doubles"
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in ["", "x", "-1", "1.5", "18446744073709551615"] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad}");
        }
    }

    fn numbers() -> impl Strategy<Value = SequenceNumber> {
        (1_u32..5_000, 1_u32..100_000, 0_u8..128, 0_u8..8).prop_map(|(attempt, n, frame, extra)| {
            SequenceNumber {
                event: EventId::new(attempt, n),
                frame,
                extra,
            }
        })
    }

    proptest! {
        #[test]
        fn numbers_read_back_and_order_as_frames_do(a in numbers(), b in numbers()) {
            prop_assert_eq!(SequenceNumber::from_u64(a.as_u64()), a);
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            if (a.event, a.frame) != (b.event, b.frame) {
                prop_assert_eq!(a.as_u64() < b.as_u64(), a.is_seen_at(b));
            }
        }
    }
}
