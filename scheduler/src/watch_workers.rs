//! Workers that died are noticed before their leases run out.
//!
//! Each worker that has said hello is asked whether it is there. One that answered before, and is
//! now on no connection that the broker knows of, is suspected: the state of its runs' rows is
//! noted. If by the end of a while it has not been seen again, and nobody has written to the rows,
//! the runs are taken. Why that takes nothing from a worker that lives stands at
//! [`baton_protocol::liveness`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_nats::{Bus, Presence};
use baton_protocol::WorkerId;
use baton_protocol::liveness::{SILENT_FOR, WATCHED_FOR};
use baton_service::SharedClock;
use baton_store::{RowState, Store};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::metrics;
use crate::rescue_runs::publish_rescued;

/// How many workers are asked at the same time.
const AT_ONCE: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many runs are taken from a worker at once; the next round takes the rest.
const BATCH: u32 = 1_000;

/// What is known of one worker.
#[derive(Debug)]
pub enum Watched {
    /// It said hello.
    Greeted(Instant),
    /// It answered, last at that time.
    Answered(Instant),
    /// It answered before, last at `answered`, and is not there any more: its runs' rows were in
    /// these states, at a time before `since`.
    Suspect {
        /// When it last answered.
        answered: Instant,
        /// A time after the look at its rows.
        since: Instant,
        /// Their states.
        rows: Vec<RowState>,
    },
}

/// What to do about a worker that has been asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    Watch,
    /// Note the state of its runs.
    Suspect {
        /// When it last answered.
        answered: Instant,
    },
    /// Take what nobody has written to.
    Take {
        /// When it last answered.
        answered: Instant,
    },
    /// Leave it to its leases.
    Forget,
}

impl Watched {
    /// What to do, now that the bus has said whether it is there. Pure.
    pub fn judge(&self, presence: Presence, now: Instant) -> Verdict {
        let (&Self::Greeted(heard)
        | &Self::Answered(heard)
        | &Self::Suspect {
            answered: heard, ..
        }) = self;
        match (presence, self) {
            (Presence::Here, _) => Verdict::Watch,
            _ if heard + WATCHED_FOR <= now => Verdict::Forget,
            (Presence::Unknown, _) | (Presence::Nobody, Self::Greeted(_)) => Verdict::Watch,
            (Presence::Nobody, &Self::Answered(answered)) => Verdict::Suspect { answered },
            (
                Presence::Nobody,
                &Self::Suspect {
                    answered, since, ..
                },
            ) => {
                if since + SILENT_FOR <= now {
                    Verdict::Take { answered }
                } else {
                    Verdict::Watch
                }
            }
        }
    }
}

/// Watches over the workers.
pub struct WatchWorkers {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    /// How this process is known to the workers.
    me: Uuid,
    workers: Mutex<HashMap<WorkerId, Watched>>,
}

impl WatchWorkers {
    /// Knows of no worker yet.
    pub fn new(store: Store, bus: Bus, clock: SharedClock) -> Self {
        Self {
            store,
            bus,
            clock,
            me: Uuid::from_u128(rand::random()),
            workers: Mutex::default(),
        }
    }

    /// Hears who says hello, until the connection is closed for good; `newcomer` is told of workers
    /// that were not known.
    pub async fn listen(&self, newcomer: &Notify) -> anyhow::Result<()> {
        let mut hellos = self.bus.hellos().await?;
        while let Some(worker) = hellos.next().await {
            let now = self.clock.monotonic();
            let mut workers = self.lock();
            if let std::collections::hash_map::Entry::Vacant(new) = workers.entry(worker) {
                new.insert(Watched::Greeted(now));
                newcomer.notify_one();
            }
        }
        Ok(())
    }

    /// Asks every worker once, and acts on what is heard.
    pub async fn look(&self) -> anyhow::Result<()> {
        let workers: Vec<WorkerId> = self.lock().keys().copied().collect();
        let mut answers = stream::iter(workers)
            .map(async |worker| {
                let presence = self.bus.ask_worker(worker, self.me, PATIENCE).await;
                (worker, presence)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((worker, presence)) = answers.next().await {
            self.act(worker, presence).await?;
        }
        let seen = |watched: &&Watched| matches!(watched, Watched::Answered(_));
        metrics::workers_seen(self.lock().values().filter(seen).count());
        Ok(())
    }

    async fn act(&self, worker: WorkerId, presence: Presence) -> anyhow::Result<()> {
        let now = self.clock.monotonic();
        let Some(watched) = self.lock().remove(&worker) else {
            return Ok(());
        };
        let (next, done) = match watched.judge(presence, now) {
            Verdict::Forget => return Ok(()),
            Verdict::Watch => match (presence, watched) {
                (Presence::Here, _) => (Watched::Answered(now), Ok(())),
                // Not known to be gone: what was noted may be outdated by a sign that got lost.
                (Presence::Unknown, Watched::Suspect { answered, .. }) => {
                    (Watched::Answered(answered), Ok(()))
                }
                (_, watched) => (watched, Ok(())),
            },
            Verdict::Suspect { answered } => self.suspect(worker, answered).await,
            Verdict::Take { answered } => {
                let done = match &watched {
                    Watched::Suspect { rows, .. } => self.take(worker, rows).await,
                    Watched::Greeted(_) | Watched::Answered(_) => Ok(()),
                };
                // What it did not leave alone is looked at again.
                (Watched::Answered(answered), done)
            }
        };
        self.lock().insert(worker, next);
        done
    }

    /// Notes in which state the worker's runs are, if it holds any.
    async fn suspect(&self, worker: WorkerId, answered: Instant) -> (Watched, anyhow::Result<()>) {
        match self.store.system().held_by(worker, BATCH).await {
            Ok(rows) if rows.is_empty() => (Watched::Answered(answered), Ok(())),
            Ok(rows) => {
                tracing::info!(worker.id = %worker, runs = rows.len(), "a worker is not seen");
                // Only now: the silence is counted from after the look.
                let since = self.clock.monotonic();
                let suspect = Watched::Suspect {
                    answered,
                    since,
                    rows,
                };
                (suspect, Ok(()))
            }
            Err(error) => (Watched::Answered(answered), Err(error.into())),
        }
    }

    async fn take(&self, worker: WorkerId, rows: &[RowState]) -> anyhow::Result<()> {
        let taken = self.store.system().requeue_silent(worker, rows).await?;
        for job in &taken {
            tracing::info!(
                tenant.id = %job.tenant, run.id = %job.run, worker.id = %worker,
                "a run is taken from a worker that is gone"
            );
            metrics::taken_early();
            publish_rescued(&self.store, &self.bus, job).await;
        }
        metrics::spared(rows.len() - taken.len().min(rows.len()));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkerId, Watched>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_suspected_only_if_it_answered_and_taken_from_only_after_its_silence() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let suspect = Watched::Suspect {
            answered: start,
            since: at(1_000),
            rows: vec![],
        };
        let (greeted, answered) = (Watched::Greeted(start), Watched::Answered(start));
        for (watched, presence, now, verdict) in [
            (&greeted, Presence::Here, at(1), Verdict::Watch),
            (&greeted, Presence::Nobody, at(1), Verdict::Watch),
            (
                &greeted,
                Presence::Nobody,
                start + WATCHED_FOR,
                Verdict::Forget,
            ),
            (&answered, Presence::Here, at(1), Verdict::Watch),
            (&answered, Presence::Unknown, at(1), Verdict::Watch),
            (
                &answered,
                Presence::Nobody,
                at(1),
                Verdict::Suspect { answered: start },
            ),
            (&suspect, Presence::Here, at(9_000), Verdict::Watch),
            (&suspect, Presence::Unknown, at(9_000), Verdict::Watch),
            (
                &suspect,
                Presence::Nobody,
                at(999) + SILENT_FOR,
                Verdict::Watch,
            ),
            (
                &suspect,
                Presence::Nobody,
                at(1_000) + SILENT_FOR,
                Verdict::Take { answered: start },
            ),
            // Too long ago for the worker to remember that it was asked.
            (
                &suspect,
                Presence::Nobody,
                start + WATCHED_FOR,
                Verdict::Forget,
            ),
            (
                &answered,
                Presence::Nobody,
                start + WATCHED_FOR,
                Verdict::Forget,
            ),
        ] {
            assert_eq!(
                watched.judge(presence, now),
                verdict,
                "{watched:?} {presence:?}"
            );
        }
    }
}
