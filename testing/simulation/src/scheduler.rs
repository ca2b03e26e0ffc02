//! A scheduler: the sweep of `baton-scheduler`, with its rule for lost jobs, and the watch over the
//! workers, with its rule for dead ones.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use baton_nats::Presence;
use baton_protocol::liveness::ASK_EVERY;
use baton_protocol::{RunId, WorkerId};
use baton_scheduler::rescue_runs::job_is_gone;
use baton_scheduler::watch_workers::{Verdict, Watched};
use baton_store::QueuedJob;
use uuid::Uuid;

use crate::accusation::name;
use crate::executor::ProcessId;
use crate::fleet::Fleet;
use crate::guard::Guard;
use crate::jobs::ACK_WAIT;
use crate::links::Service;
use crate::network::Unanswered;
use crate::world::Sim;

const SWEEP_EVERY: Duration = Duration::from_secs(5);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a scheduler.
pub(crate) fn start(sim: &Sim, fleet: &Rc<Fleet>, number: u64) -> ProcessId {
    let process = sim.start_process(format!("scheduler {number}"));
    if sim.setup.without != Some(Guard::Sweep) {
        let handle = sim.clone();
        sim.spawn(process, async move {
            loop {
                handle.sleep(SWEEP_EVERY).await;
                // The next sweep repeats a failed one.
                let _ = sweep(&handle, process).await;
            }
        });
    }
    if sim.setup.without != Some(Guard::TerminalEvent) {
        let handle = sim.clone();
        sim.spawn(process, async move {
            let mut seen = None;
            loop {
                handle.sleep(SWEEP_EVERY).await;
                // The next look repeats a failed one.
                let _ = repair_ends(&handle, process, &mut seen).await;
            }
        });
    }
    let watch = Watch {
        sim: sim.clone(),
        fleet: Rc::clone(fleet),
        process,
        me: Uuid::from_u128(number.into()),
        workers: HashMap::new(),
    };
    sim.spawn(process, watch.run());
    process
}

/// One worker, and the versions of its runs' rows when it was first missed.
struct Known {
    watched: Watched,
    rows: Vec<(RunId, u64)>,
}

/// The watch over the workers.
struct Watch {
    sim: Sim,
    fleet: Rc<Fleet>,
    process: ProcessId,
    me: Uuid,
    workers: HashMap<WorkerId, Known>,
}

impl Watch {
    async fn run(mut self) {
        loop {
            self.sim.sleep(ASK_EVERY).await;
            for worker in self.fleet.worker_ids() {
                let now = self.sim.instant();
                self.workers.entry(worker).or_insert(Known {
                    watched: Watched::Greeted(now),
                    rows: Vec::new(),
                });
            }
            let mut workers: Vec<WorkerId> = self.workers.keys().copied().collect();
            workers.sort_unstable();
            for worker in workers {
                self.look(worker).await;
            }
        }
    }

    async fn look(&mut self, worker: WorkerId) {
        let (fleet, me) = (Rc::clone(&self.fleet), self.me);
        let asked = self.sim.ask(self.process, Service::Broker, move |sim| {
            let Some(worker) = fleet.worker(worker) else {
                return Presence::Nobody;
            };
            let unseen = sim.with_process(worker.process, |process| process.unseen_until);
            if unseen > sim.now() || !sim.is_alive(worker.process) {
                Presence::Nobody
            } else if sim.is_within_earshot(worker.process) {
                worker.asked_for(me);
                Presence::Here
            } else {
                Presence::Unknown
            }
        });
        let presence = tokio::select! {
            biased;
            presence = asked => presence.unwrap_or(Presence::Unknown),
            () = self.sim.sleep(Duration::from_millis(500)) => Presence::Unknown,
        };
        let now = self.sim.instant();
        let Some(known) = self.workers.remove(&worker) else {
            return;
        };
        let next = match known.watched.judge(presence, now) {
            Verdict::Forget => return,
            Verdict::Watch => Known {
                watched: match (presence, known.watched) {
                    (Presence::Here, _) => Watched::Answered(now),
                    (Presence::Unknown, Watched::Suspect { answered, .. }) => {
                        Watched::Answered(answered)
                    }
                    (_, watched) => watched,
                },
                rows: known.rows,
            },
            Verdict::Suspect { answered } => self.suspect(worker, answered).await,
            Verdict::Take { answered } => {
                self.take(worker, known.rows).await;
                Known {
                    watched: Watched::Answered(answered),
                    rows: Vec::new(),
                }
            }
        };
        self.workers.insert(worker, next);
    }

    async fn suspect(&self, worker: WorkerId, answered: Instant) -> Known {
        let rows = self.sim.ask(self.process, Service::Ledger, move |sim| {
            sim.world.borrow().ledger.held_by(worker)
        });
        match rows.await {
            Ok(rows) if !rows.is_empty() => Known {
                watched: Watched::Suspect {
                    answered,
                    // Taken after the rows were read, because the silence counts from then.
                    since: self.sim.instant(),
                    rows: Vec::new(),
                },
                rows,
            },
            _ => Known {
                watched: Watched::Answered(answered),
                rows: Vec::new(),
            },
        }
    }

    async fn take(&self, worker: WorkerId, rows: Vec<(RunId, u64)>) {
        let taken = self.sim.ask(self.process, Service::Ledger, move |sim| {
            let now = sim.now();
            let mut world = sim.world.borrow_mut();
            let taken = world.ledger.requeue_silent(worker, &rows, now);
            drop(world);
            sim.judge_suspects();
            taken
        });
        for job in taken.await.unwrap_or_default() {
            self.sim.count(|counts| &mut counts.taken_early);
            self.sim.tell(self.process, || {
                format!("takes {} from a worker that is gone", name(job.run))
            });
            publish(&self.sim, self.process, &job).await;
        }
    }
}

async fn sweep(sim: &Sim, process: ProcessId) -> Result<(), Unanswered> {
    let expired = sim.ask(process, Service::Ledger, |sim| {
        let now = sim.now();
        let expired = sim.world.borrow_mut().ledger.requeue_expired(now);
        sim.judge_suspects();
        expired
    });
    for job in expired.await? {
        sim.count(|counts| &mut counts.expired_leases);
        sim.tell(process, || {
            format!("finds the lease of {} expired", name(job.run))
        });
        publish(sim, process, &job).await;
    }
    let undecided = sim.ask(process, Service::Ledger, |sim| {
        let now = sim.now();
        sim.world.borrow_mut().ledger.expire_approvals(now)
    });
    for job in undecided.await? {
        sim.count(|counts| &mut counts.expired_questions);
        publish(sim, process, &job).await;
    }
    let candidates = sim.ask(process, Service::Ledger, |sim| {
        let now = sim.now();
        let world = sim.world.borrow();
        world.ledger.unpublished(PUBLISH_TIMEOUT + ACK_WAIT, now)
    });
    let candidates = candidates.await?;
    if candidates.is_empty() {
        return Ok(());
    }
    let backlog = sim.ask(process, Service::Broker, |sim| {
        sim.world.borrow().jobs.backlog()
    });
    let backlog = backlog.await?;
    for job in &candidates {
        if job_is_gone(job.last_due_at(), &backlog, PUBLISH_TIMEOUT) {
            sim.count(|counts| &mut counts.republished);
            sim.tell(process, || format!("publishes {} again", name(job.run)));
            publish(sim, process, job).await;
        }
    }
    Ok(())
}

/// Appends the ends that no job leads to; after the broker lost something, those of all runs. `seen` is the
/// number of losses when that was last done.
async fn repair_ends(
    sim: &Sim,
    process: ProcessId,
    seen: &mut Option<u64>,
) -> Result<(), Unanswered> {
    let wiped = sim.ask(process, Service::Broker, |sim| {
        sim.world.borrow().jobs.wiped
    });
    let wiped = wiped.await?;
    let only_unlogged = *seen == Some(wiped);
    let ends = sim.ask(process, Service::Ledger, move |sim| {
        sim.world.borrow().ledger.ends(only_unlogged)
    });
    for (run, ended) in ends.await? {
        if only_unlogged && sim.setup.without == Some(Guard::UnloggedEnds) {
            continue;
        }
        if sim.repair_end(process, run, &ended).await.is_err() {
            return Err(Unanswered);
        }
        let marked = sim.ask(process, Service::Ledger, move |sim| {
            sim.world.borrow_mut().ledger.mark_end_logged(run);
        });
        marked.await?;
    }
    *seen = Some(wiped);
    Ok(())
}

async fn publish(sim: &Sim, process: ProcessId, job: &QueuedJob) {
    let run = job.run;
    let stored = sim.ask(process, Service::Broker, move |sim| sim.store_job(run));
    if stored.await.is_ok() {
        let marked = sim.ask(process, Service::Ledger, move |sim| {
            let now = sim.now();
            sim.world.borrow_mut().ledger.mark_published(run, now);
        });
        // If this fails, the job is published once more than needed.
        let _ = marked.await;
    }
}
