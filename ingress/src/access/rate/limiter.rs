//! Decides about requests together with all other ingresses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_nats::{AppendError, Bus, Limited, ReadError, StreamSeq};
use baton_service::SharedClock;
use moka::future::Cache;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::log::{RateLimits, RateLog, Standing};
use crate::metrics;

/// The longest time to wait for one answer of the broker before this ingress decides alone.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);
/// The time for which it then decides alone before it asks the broker again.
const ALONE_FOR: Duration = Duration::from_secs(1);
/// The most lost races in a row. In each of them another ingress made progress.
const ROUNDS: u64 = 100;
/// The number of lost races after which this ingress pauses, to let the others finish.
const POLITE_AFTER: u64 = 3;
/// The number of entries in the cache, the latest to ask. The authoritative logs are on the broker.
const REMEMBERED: u64 = 100_000;
/// The time for which a log is kept beyond its longest window, for clocks that differ.
const MARGIN: Duration = Duration::from_mins(1);

/// The decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) admitted: bool,
    /// The state of the limit after the decision.
    pub(crate) standing: Standing,
}

/// Keeps the rate limits of all callers and addresses.
pub(crate) struct RateLimiter {
    bus: Bus,
    clock: SharedClock,
    patience: Duration,
    known: Cache<Limited, Arc<Entry>>,
    alone_until: Mutex<Option<Instant>>,
}

/// The known state of one caller.
#[derive(Default)]
struct Entry {
    seen: Mutex<Seen>,
    /// Requests that wait for a decision.
    waiting: Mutex<Vec<Waiting>>,
    /// Its holder decides for all waiting requests.
    turn: tokio::sync::Mutex<()>,
}

/// A waiting request, and the number of units that it counts as.
struct Waiting {
    decide: oneshot::Sender<Decision>,
    units: u32,
}

#[derive(Clone, Default)]
struct Seen {
    /// As last read from or written to the broker, at `seq`.
    log: RateLog,
    seq: StreamSeq,
    /// Admissions decided without the broker.
    alone: RateLog,
}

impl Seen {
    /// Returns all admissions known here.
    fn whole(&self, limits: RateLimits) -> RateLog {
        let mut log = self.log.clone();
        log.merge(limits, &self.alone);
        log
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the broker did not answer in time")]
    Slow,
    #[error("too many others were faster")]
    Contended,
    #[error("what is stored there is no log of this version")]
    Unreadable,
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] AppendError),
}

impl RateLimiter {
    pub(crate) fn new(bus: Bus, clock: SharedClock, patience: Duration) -> Self {
        Self {
            bus,
            clock,
            patience,
            known: Cache::new(REMEMBERED),
            alone_until: Mutex::new(None),
        }
    }

    /// Decides about one request; `None` if nothing limits it.
    pub(crate) async fn ask(&self, who: Limited, limits: RateLimits) -> Option<Decision> {
        self.ask_for(who, limits, 1).await
    }

    /// Like [`RateLimiter::ask`], for a request that counts as `units`.
    pub(crate) async fn ask_for(
        &self,
        who: Limited,
        limits: RateLimits,
        units: u32,
    ) -> Option<Decision> {
        if limits.are_none() {
            return None;
        }
        // Callers go on for as long as their answers stream, and would keep its place.
        Box::pin(self.count(who, limits, units)).await
    }

    async fn count(&self, who: Limited, limits: RateLimits, units: u32) -> Option<Decision> {
        let entry = self.known.get_with(who, async { Arc::default() }).await;
        if let Some(refusal) = self.refusal(&entry, limits, units) {
            return Some(refusal);
        }
        loop {
            let (decide, mut decided) = oneshot::channel();
            locked(&entry.waiting).push(Waiting { decide, units });
            let _turn = entry.turn.lock().await;
            if let Ok(decision) = decided.try_recv() {
                return Some(decision);
            }
            self.decide_for_all(&entry, who, limits).await;
            // No decision: another task took this request with its own and was cancelled.
            if let Ok(decision) = decided.try_recv() {
                return Some(decision);
            }
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().timestamp_millis()
    }

    /// Refuses if the known state suffices for that.
    fn refusal(&self, entry: &Entry, limits: RateLimits, units: u32) -> Option<Decision> {
        let now = self.now();
        let standing = locked(&entry.seen).whole(limits).standing(limits, now);
        (standing.remaining < units).then_some(Decision {
            admitted: false,
            standing,
        })
    }

    async fn decide_for_all(&self, entry: &Entry, who: Limited, limits: RateLimits) {
        let mut waiting = std::mem::take(&mut *locked(&entry.waiting));
        waiting.retain(|one| !one.decide.is_closed());
        let wanted = waiting
            .iter()
            .fold(0, |sum: u32, one| sum.saturating_add(one.units));
        let (mut left, standing) = self.admit(entry, who, limits, wanted).await;
        for one in waiting {
            let admitted = one.units <= left;
            if admitted {
                left -= one.units;
            }
            let decision = Decision { admitted, standing };
            // A cancelled request has no use for its decision.
            let _gone = one.decide.send(decision);
        }
    }

    /// Returns how many of `wanted` units are admitted, and the resulting state.
    async fn admit(
        &self,
        entry: &Entry,
        who: Limited,
        limits: RateLimits,
        wanted: u32,
    ) -> (u32, Standing) {
        if !self.is_alone() {
            match self.admit_together(entry, who, limits, wanted).await {
                Ok(decided) => {
                    if locked(&self.alone_until).take().is_some() {
                        metrics::rate_limits_alone(false);
                        tracing::info!("rate limits are shared again");
                    }
                    return decided;
                }
                Err(error) => {
                    let until = self.clock.monotonic() + ALONE_FOR;
                    if locked(&self.alone_until).replace(until).is_none() {
                        metrics::rate_limits_alone(true);
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "rate limits are kept by this ingress alone"
                        );
                    }
                }
            }
        }
        metrics::rate_decision_alone();
        let now = self.now();
        let mut seen = locked(&entry.seen);
        let mut log = seen.whole(limits);
        let admitted = log.admit(limits, now, wanted);
        seen.alone.admit(limits, now, admitted);
        (admitted, log.standing(limits, now))
    }

    async fn admit_together(
        &self,
        entry: &Entry,
        who: Limited,
        limits: RateLimits,
        wanted: u32,
    ) -> Result<(u32, Standing), Failure> {
        let matters = u64::try_from(limits.longest_window()).unwrap_or_default();
        let keep = Duration::from_millis(matters) + MARGIN;
        let mut seen = locked(&entry.seen).clone();
        for round in 0..ROUNDS {
            let now = self.now();
            let mut log = seen.whole(limits);
            let admitted = log.admit(limits, now, wanted);
            let standing = log.standing(limits, now);
            if admitted == 0 {
                return Ok((0, standing));
            }
            let payload = log.encode()?.into();
            let stored = self.bus.replace_rate_log(who, seen.seq, keep, payload);
            match timeout(self.patience, stored)
                .await
                .map_err(|_| Failure::Slow)?
            {
                Ok(seq) => {
                    let alone = RateLog::default();
                    *locked(&entry.seen) = Seen { log, seq, alone };
                    return Ok((admitted, standing));
                }
                Err(AppendError::WrongLast) => {}
                Err(error) => return Err(error.into()),
            }
            if round >= POLITE_AFTER {
                sleep(Duration::from_millis(rand::random_range(0..=round))).await;
            }
            let stored = timeout(self.patience, self.bus.rate_log(who));
            match stored.await.map_err(|_| Failure::Slow)?? {
                Some(stored) => {
                    seen.log = RateLog::decode(&stored.payload).ok_or(Failure::Unreadable)?;
                    seen.seq = stored.seq;
                }
                // No entry in it mattered still; or the broker has lost its disk, and the log known
                // here is all that remains.
                None => seen.seq = StreamSeq::NONE,
            }
            *locked(&entry.seen) = seen.clone();
        }
        Err(Failure::Contended)
    }

    fn is_alone(&self) -> bool {
        locked(&self.alone_until).is_some_and(|until| self.clock.monotonic() < until)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
