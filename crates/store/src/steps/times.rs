//! The times of a model turn.

use std::time::Duration;

use crate::columns::int8;

/// The times of a model turn, as its worker measured them; without them for a turn that nobody measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// From asking the model to the end of its answer.
    pub took: Option<Duration>,
    /// From asking the model to its first output; `None` if there was none.
    pub first_token: Option<Duration>,
}

impl TurnTimes {
    pub(crate) fn duration_ms(&self) -> Option<i64> {
        self.took.map(milliseconds)
    }

    pub(crate) fn first_token_ms(&self) -> Option<i64> {
        self.first_token.map(milliseconds)
    }
}

fn milliseconds(time: Duration) -> i64 {
    int8(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
