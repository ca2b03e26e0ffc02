//! Virtual time as numbers.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Milliseconds since the simulation began.
pub(crate) type Millis = u64;

pub(crate) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the date of a moment.
pub(crate) fn date(at: Millis) -> DateTime<Utc> {
    // Never near the end of the calendar.
    DateTime::from_timestamp_millis(i64::try_from(at).unwrap_or(i64::MAX / 2)).unwrap_or_default()
}
