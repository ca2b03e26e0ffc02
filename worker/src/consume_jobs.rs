//! Pulls as many jobs as there are free slots, and only while the ledger answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use baton_nats::{Delivery, JobSource};
use baton_protocol::Lane;
use baton_service::telemetry;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use crate::metrics;
use crate::run_job::JobEnd;
use crate::runner::JobRunner;

/// The time for which the broker keeps a pull open. It is short, because a drain waits for the end
/// of the last pull, and until then a job that was just handed over may return. Ending the
/// subscription does not shorten it: a job under way at that moment would be lost until the ack
/// wait is over.
const PULL_EXPIRES: Duration = Duration::from_millis(500);
/// The delay of a background job that found no free slot.
const NO_SLOT: Duration = Duration::from_secs(1);
/// The interval of checks while the ledger is unavailable.
const LEDGER_RECHECK: Duration = Duration::from_millis(500);

/// The active runs: each returns its lane and the end of its job.
type Runs = JoinSet<(Lane, JobEnd)>;

/// The taken slots. Some are reserved for interactive runs, so that these never wait for background
/// ones.
struct Slots {
    all: usize,
    background_most: usize,
    interactive: usize,
    background: usize,
}

impl Slots {
    const fn free(&self, lane: Lane) -> usize {
        let free = self.all.saturating_sub(self.interactive + self.background);
        match lane {
            Lane::Interactive => free,
            Lane::Background => {
                let more = self.background_most.saturating_sub(self.background);
                if more < free { more } else { free }
            }
        }
    }

    const fn of(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Background => &mut self.background,
        }
    }
}

/// Pulls and runs jobs until the soft stop; then hands over the active runs, and returns when none
/// is left.
pub(crate) async fn consume_jobs(
    runner: Arc<JobRunner>,
    mut interactive: JobSource,
    mut background: JobSource,
) {
    let mut slots = Slots {
        all: runner.config.slots,
        background_most: runner.config.slots - runner.config.interactive_slots,
        interactive: 0,
        background: 0,
    };
    let mut runs: Runs = JoinSet::new();
    let mut ledger_answers = true;
    loop {
        let (for_interactive, for_background) = if ledger_answers {
            (slots.free(Lane::Interactive), slots.free(Lane::Background))
        } else {
            (0, 0)
        };
        let pulled = tokio::select! {
            biased;
            () = runner.shutdown.soft.cancelled() => break,
            Some(ended) = runs.join_next() => {
                // A task that was aborted or panicked outside the runner returns no end.
                if let Ok(end) = ended {
                    ledger_answers &= note_end(end, &mut slots);
                }
                continue;
            }
            jobs = interactive.pull(for_interactive, PULL_EXPIRES) => jobs,
            jobs = background.pull(for_background, PULL_EXPIRES) => jobs,
            () = tokio::time::sleep(LEDGER_RECHECK), if !ledger_answers => {
                ledger_answers = runner.store.ping().await.is_ok();
                continue;
            }
        };
        let Ok(jobs) = pulled else { break };
        for delivery in jobs {
            let lane = delivery.lane;
            // Both lanes are pulled for the same free slots. An interactive job is taken even so; a
            // background one can wait.
            if lane == Lane::Background && slots.free(lane) == 0 {
                give_back(&delivery).await;
                continue;
            }
            *slots.of(lane) += 1;
            let runner = Arc::clone(&runner);
            runs.spawn(async move {
                // A panic in the runner itself costs this run a failure, and other runs nothing.
                let end = AssertUnwindSafe(Box::pin(runner.run_job(delivery)))
                    .catch_unwind()
                    .await;
                (lane, end.unwrap_or(JobEnd::Panicked))
            });
        }
    }
    drain(&runner, interactive, background, runs).await;
}

/// Waits for the active runs to finish their step and be handed over. Those still active at the
/// deadline are cut, and handed over as well; then the process stays until that count was scraped.
async fn drain(runner: &JobRunner, interactive: JobSource, background: JobSource, mut runs: Runs) {
    tracing::info!(runs = runs.len(), "draining");
    let patience = PULL_EXPIRES + Duration::from_secs(1);
    let sources = async { tokio::join!(interactive.stop(patience), background.stop(patience)) };
    let runs_end = async {
        let deadline = tokio::time::sleep(runner.config.drain);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = runs.join_next() => match ended {
                    Some(_) => {}
                    None => return,
                },
                () = &mut deadline, if !runner.cut.is_cancelled() => {
                    tracing::warn!(runs = runs.len(), "the drain's deadline: cutting what runs");
                    metrics::drain_cut(runs.len());
                    runner.cut.cancel();
                }
            }
        }
    };
    let drained = async {
        tokio::join!(sources, runs_end);
        if runner.cut.is_cancelled() {
            telemetry::next_scrape().await;
        }
    };
    tokio::select! {
        () = drained => {}
        () = runner.shutdown.hard.cancelled() => {}
    }
}

/// Frees the run's slot, and returns whether the ledger answered.
fn note_end((lane, end): (Lane, JobEnd), slots: &mut Slots) -> bool {
    let taken = slots.of(lane);
    *taken = taken.saturating_sub(1);
    if end == JobEnd::Panicked {
        tracing::error!("a run's task panicked; its lease runs out, and the failure counts");
    }
    end != JobEnd::DatabaseDown
}

async fn give_back(delivery: &Delivery) {
    if let Err(error) = delivery.nak(Some(NO_SLOT)).await {
        tracing::debug!(%error, "a job could not be given back and will come again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_runs_leave_slots_for_interactive_ones() {
        let mut slots = Slots {
            all: 8,
            background_most: 5,
            interactive: 0,
            background: 0,
        };
        assert_eq!(
            (slots.free(Lane::Interactive), slots.free(Lane::Background)),
            (8, 5)
        );
        *slots.of(Lane::Background) = 5;
        assert_eq!(
            (slots.free(Lane::Interactive), slots.free(Lane::Background)),
            (3, 0)
        );
        *slots.of(Lane::Interactive) = 3;
        assert_eq!(
            (slots.free(Lane::Interactive), slots.free(Lane::Background)),
            (0, 0)
        );
        *slots.of(Lane::Background) = 0;
        assert_eq!(
            (slots.free(Lane::Interactive), slots.free(Lane::Background)),
            (5, 5)
        );
    }
}
