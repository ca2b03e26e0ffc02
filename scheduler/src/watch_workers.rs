//! Requeues the runs of dead workers before their leases expire.
//!
//! It asks each worker that has said hello whether it is alive. A worker that answered before, and
//! now has no connection that the broker knows of, is suspected: its runs' rows are noted. If it
//! stays away for a while, and its rows are unchanged, its runs are requeued.
//! [`baton_protocol::liveness`] explains why that takes nothing from a live worker.

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

/// The number of workers that are asked at a time.
const AT_ONCE: usize = 64;
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most runs that are taken from a worker at once; the next round takes the rest.
const BATCH: u32 = 1_000;

/// The state of one worker.
#[derive(Debug)]
pub enum Watched {
    /// It said hello.
    Greeted(Instant),
    /// It answered, last at this time.
    Answered(Instant),
    /// It answered before, last at `answered`, and is now absent. Its runs' rows had these states
    /// at a time before `since`.
    Suspect {
        /// The time of its last answer.
        answered: Instant,
        /// A time after its rows were read.
        since: Instant,
        /// The states of its rows.
        rows: Vec<RowState>,
    },
}

/// The action for a worker after a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    Watch,
    /// Note the states of its runs' rows.
    Suspect {
        /// The time of its last answer.
        answered: Instant,
    },
    /// Requeue the runs with unchanged rows.
    Take {
        /// The time of its last answer.
        answered: Instant,
    },
    /// Leave its runs to their leases.
    Forget,
}

impl Watched {
    /// Returns the action for its presence on the bus. Pure.
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

/// A watch over the workers.
pub struct WatchWorkers {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    /// The id of this process for the workers.
    me: Uuid,
    workers: Mutex<HashMap<WorkerId, Watched>>,
}

impl WatchWorkers {
    /// Makes a watch without workers.
    pub fn new(store: Store, bus: Bus, clock: SharedClock) -> Self {
        Self {
            store,
            bus,
            clock,
            me: Uuid::from_u128(rand::random()),
            workers: Mutex::default(),
        }
    }

    /// Receives hellos until the connection is gone for good, and notifies `newcomer` of each new
    /// worker.
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

    /// Asks every worker once, and acts on the answers. If that fails for one worker, goes on with
    /// the others, and returns the first error.
    pub async fn look(&self) -> anyhow::Result<()> {
        let workers: Vec<WorkerId> = self.lock().keys().copied().collect();
        let mut answers = stream::iter(workers)
            .map(async |worker| {
                let presence = self.bus.ask_worker(worker, self.me, PATIENCE).await;
                (worker, presence)
            })
            .buffer_unordered(AT_ONCE);
        let mut acted = Ok(());
        while let Some((worker, presence)) = answers.next().await {
            acted = acted.and(self.act(worker, presence).await);
        }
        let seen = |watched: &&Watched| matches!(watched, Watched::Answered(_));
        metrics::workers_seen(self.lock().values().filter(seen).count());
        acted
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
                // The worker may be alive, so the noted states may be outdated by a lost sign of
                // life.
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
                // Rows that it did write to are noted again.
                (Watched::Answered(answered), done)
            }
        };
        self.lock().insert(worker, next);
        done
    }

    /// Notes the states of the worker's rows, if it holds any runs.
    async fn suspect(&self, worker: WorkerId, answered: Instant) -> (Watched, anyhow::Result<()>) {
        match self.store.system().held_by(worker, BATCH).await {
            Ok(rows) if rows.is_empty() => (Watched::Answered(answered), Ok(())),
            Ok(rows) => {
                tracing::info!(worker.id = %worker, runs = rows.len(), "a worker is absent from the bus");
                // Taken after the rows were read, because the silence counts from then.
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
                "requeued a run of a worker that is gone"
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
            // Too long ago: the worker no longer remembers the question.
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
