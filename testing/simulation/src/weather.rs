//! The rates of faults, and the time of their end.

use crate::time::Millis;

/// The time until which faults strike.
pub(crate) const STORM: Millis = 60_000;

/// The rates of faults.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Lost messages, in a thousand.
    pub(crate) loss: u64,
    /// Messages that take seconds, in a thousand.
    pub(crate) late: u64,
    /// Live events that are delivered twice, in a thousand.
    pub(crate) twice: u64,
    /// Requests that are the last action of their process, in a thousand.
    pub(crate) deadly: u64,
    /// Requests that leave only after a freeze of their process, in a thousand.
    pub(crate) freezing: u64,
}
