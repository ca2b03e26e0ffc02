//! How the world treats messages, and until when.

use crate::time::Millis;

/// Until then, faults strike.
pub(crate) const STORM: Millis = 60_000;

/// How the world treats messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages, so many are lost.
    pub(crate) loss: u64,
    /// Of a thousand, so many take seconds.
    pub(crate) late: u64,
    /// Of a thousand live events, so many are heard twice.
    pub(crate) twice: u64,
    /// Of a thousand requests, so many are the last thing that a process does.
    pub(crate) deadly: u64,
    /// Of a thousand requests, so many leave only after the process was frozen for a while.
    pub(crate) freezing: u64,
}
