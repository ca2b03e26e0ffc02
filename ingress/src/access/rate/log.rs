//! A log of recent admissions, small enough to travel with every decision.
//!
//! To keep a limit of L in a window, admissions are remembered for as long as the window.
//! Remembering L times would be exact but long; counting by slices of time is short but wrong at
//! their edges. Here adjacent admissions share a *cell*, which holds their number and the time of
//! the last of them, and is forgotten when that one has left the window. A cell takes up to L/50
//! admissions, so that
//!
//! - never more than L are admitted in any window, because none is forgotten too early;
//! - none is refused while fewer than 0.98 L were admitted in the window before it: only the oldest
//!   cell can hold admissions that have left the window, and those are fewer than L/50;
//! - a log has about a hundred cells at most, whatever L is.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The number of full cells that a limit is divided into.
const CELLS_PER_LIMIT: u32 = 50;
/// The version of the encoding.
const VERSION: u8 = 1;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// The most requests that are admitted; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RateLimits {
    /// In any 60 seconds.
    pub(crate) per_minute: u32,
    /// In any 24 hours.
    pub(crate) per_day: u32,
}

impl RateLimits {
    pub(crate) const fn are_none(self) -> bool {
        self.per_minute == 0 && self.per_day == 0
    }

    /// Returns the longest limited window in milliseconds, after which all of a log is obsolete.
    pub(crate) const fn longest_window(self) -> i64 {
        if self.per_day == 0 { MINUTE_MS } else { DAY_MS }
    }
}

/// The state of the limit with the least remaining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Seconds, rounded up, until more remains than now; 0 if there are no recent admissions.
    pub(crate) reset: u32,
}

/// The admissions in the last minute and the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RateLog {
    minute: Cells,
    day: Cells,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<Cells> {
    v: u8,
    minute: Cells,
    day: Cells,
}

impl RateLog {
    /// Admits up to `wanted` requests at `now`, in milliseconds since 1970, and returns their
    /// number. Writers with different clocks agree on the latest time that any of them has written.
    pub(crate) fn admit(&mut self, limits: RateLimits, now: i64, wanted: u32) -> u32 {
        let now = self.not_before_the_last(now);
        let mut admitted = wanted;
        for (cells, limit, window) in self.windows(limits) {
            cells.forget(now - window);
            admitted = admitted.min(limit.saturating_sub(cells.total()));
        }
        self.record(limits, now, admitted);
        admitted
    }

    /// Returns the state of the tightest limit at `now`.
    pub(crate) fn standing(&self, limits: RateLimits, now: i64) -> Standing {
        let now = self.not_before_the_last(now);
        let mut log = self.clone();
        let mut tightest: Option<Standing> = None;
        for (cells, limit, window) in log.windows(limits) {
            cells.forget(now - window);
            let remaining = limit.saturating_sub(cells.total());
            let reset = cells
                .time_below(limit)
                .map_or(0, |at| seconds_up(at + window - now));
            let here = Standing {
                limit,
                remaining,
                reset,
            };
            if tightest.is_none_or(|other| {
                (here.remaining, u32::MAX - here.reset) < (other.remaining, u32::MAX - other.reset)
            }) {
                tightest = Some(here);
            }
        }
        tightest.unwrap_or(Standing {
            limit: 0,
            remaining: 0,
            reset: 0,
        })
    }

    /// Adds admissions that were decided elsewhere and are not yet known here.
    pub(crate) fn merge(&mut self, limits: RateLimits, other: &Self) {
        for (cells, more, limit) in [
            (&mut self.minute, &other.minute, limits.per_minute),
            (&mut self.day, &other.day, limits.per_day),
        ] {
            if limit > 0 && !more.0.is_empty() {
                cells.merge(more, cell_size(limit));
            }
        }
    }

    /// Records admissions that were decided elsewhere.
    fn record(&mut self, limits: RateLimits, now: i64, admitted: u32) {
        if admitted == 0 {
            return;
        }
        for (cells, limit, _) in self.windows(limits) {
            cells.push(now, admitted, cell_size(limit));
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Encoded {
            v: VERSION,
            minute: &self.minute,
            day: &self.day,
        })
    }

    /// Decodes a log; `None` if it has another version, or is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let encoded: Encoded<Cells> = serde_json::from_slice(bytes).ok()?;
        (encoded.v == VERSION).then_some(Self {
            minute: encoded.minute,
            day: encoded.day,
        })
    }

    fn not_before_the_last(&self, now: i64) -> i64 {
        let last = |cells: &Cells| cells.0.back().map(|cell| cell.0);
        now.max(last(&self.minute).unwrap_or(now))
            .max(last(&self.day).unwrap_or(now))
    }

    /// Returns the limited windows.
    fn windows(&mut self, limits: RateLimits) -> impl Iterator<Item = (&mut Cells, u32, i64)> {
        [
            (&mut self.minute, limits.per_minute, MINUTE_MS),
            (&mut self.day, limits.per_day, DAY_MS),
        ]
        .into_iter()
        .filter(|(_, limit, _)| *limit > 0)
    }
}

fn cell_size(limit: u32) -> u32 {
    (limit / CELLS_PER_LIMIT).max(1)
}

fn seconds_up(milliseconds: i64) -> u32 {
    u32::try_from((milliseconds.max(1) + 999) / 1_000).unwrap_or(u32::MAX)
}

/// The time of the last admission, and the number of admissions. Cells are in order, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cell(i64, u32);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Cells(VecDeque<Cell>);

impl Cells {
    /// Drops the cells with a last admission at `end` or before.
    fn forget(&mut self, end: i64) {
        while self.0.front().is_some_and(|cell| cell.0 <= end) {
            self.0.pop_front();
        }
    }

    fn total(&self) -> u32 {
        self.0
            .iter()
            .fold(0, |total: u32, cell| total.saturating_add(cell.1))
    }

    /// Returns the time of the last admission that has to leave before fewer than `limit` remain.
    fn time_below(&self, limit: u32) -> Option<i64> {
        let mut total = self.total();
        let mut at = None;
        for cell in &self.0 {
            at = Some(cell.0);
            total = total.saturating_sub(cell.1);
            if total < limit {
                break;
            }
        }
        at
    }

    fn push(&mut self, at: i64, count: u32, size: u32) {
        match self.0.back_mut() {
            // Admissions of one moment leave the window together, so they need no second cell.
            Some(last) if last.0 == at => last.1 = last.1.saturating_add(count),
            Some(last) if last.1.saturating_add(count) <= size => {
                last.0 = at;
                last.1 += count;
            }
            _ => self.0.push_back(Cell(at, count)),
        }
    }

    fn merge(&mut self, other: &Self, size: u32) {
        let mut all: Vec<Cell> = self.0.drain(..).chain(other.0.iter().copied()).collect();
        all.sort_by_key(|cell| cell.0);
        for cell in all {
            self.push(cell.0, cell.1, size);
        }
    }
}

#[cfg(test)]
mod tests;
