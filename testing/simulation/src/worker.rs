//! A worker: pulls jobs for its free slots, claims, works, settles. The order of steps is that of
//! `baton-worker`, and so is every rule without waiting: the meaning of a claim for its message,
//! the lease, the turn machine, the resuming, the events, the demand.

mod attempt;
mod keep_lease;
mod model;
mod publisher;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use baton_nats::jobs::demand::{Demand, Pull};
use baton_protocol::{ClaimToken, RunId, WorkerId};
use baton_store::{Claim, ClaimOutcome, ClaimedRun};
use baton_worker::health_probes::HealthProbes;
use baton_worker::job_action::JobAction;
use baton_worker::lease::Lease;
use uuid::Uuid;

use crate::accusation::name;
use crate::executor::ProcessId;
use crate::guard::Guard;
use crate::jobs::Supply;
use crate::ledger::tenant;
use crate::links::Service;
use crate::mailbox::{Mailbox, Signal};
use crate::network::{PATIENCE, Unanswered};
use crate::time::{Millis, millis};
use crate::told_by_others::{ensure_parked_events, ensure_terminal_event};
use crate::worker::attempt::{Ending, run_attempt};
use crate::worker::keep_lease::Hold;
use crate::world::Sim;

/// The values of `baton-worker` and of its default configuration.
pub(crate) const LEASE: Duration = Duration::from_secs(20);
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Shorter than the default, so that turns are interrupted.
const DRAIN: Duration = Duration::from_secs(3);
pub(crate) const MAX_FAILURES: u32 = 3;
const DATABASE_RETRY: Duration = Duration::from_secs(1);
const LEDGER_RECHECK: Duration = Duration::from_millis(500);
/// Longer than the default, which only saves pulls.
const PULL_EXPIRES: Duration = Duration::from_secs(4);

/// A delivery of a job.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    seq: u64,
    run: RunId,
}

pub(crate) struct Worker {
    sim: Sim,
    pub(crate) process: ProcessId,
    pub(crate) id: WorkerId,
    slots: usize,
    /// Raised when it must stop.
    soft: Signal,
    /// Raised at the drain's deadline.
    cut: Signal,
    nudges: RefCell<HashMap<RunId, Mailbox<()>>>,
    probes: RefCell<HealthProbes>,
    busy: Cell<usize>,
    ledger_answers: Cell<bool>,
    ended: Mailbox<()>,
}

impl Worker {
    pub(crate) fn start(sim: &Sim, number: u64, slots: usize) -> Rc<Self> {
        let process = sim.start_process(format!("worker {number}"));
        let worker = Rc::new(Self {
            sim: sim.clone(),
            process,
            id: WorkerId::from_uuid(Uuid::from_u128(number.into())),
            slots,
            soft: Signal::default(),
            cut: Signal::default(),
            nudges: RefCell::default(),
            probes: RefCell::default(),
            busy: Cell::new(0),
            ledger_answers: Cell::new(true),
            ended: Mailbox::default(),
        });
        sim.tell(process, || "starts".into());
        sim.spawn(process, Rc::clone(&worker).consume_jobs());
        worker
    }

    /// Stops it, as SIGTERM does.
    pub(crate) fn stop(&self) {
        self.sim.tell(self.process, || "is told to stop".into());
        self.soft.raise();
    }

    /// Asks the worker to renew a run's lease now.
    pub(crate) fn nudge(&self, run: RunId) {
        if let Some(nudge) = self.nudges.borrow().get(&run) {
            nudge.put(());
        }
    }

    /// Records that a scheduler asked whether this worker is alive.
    pub(crate) fn asked_for(&self, by: Uuid) {
        let now = self.sim.instant();
        self.probes.borrow_mut().asked(by, now);
    }

    async fn consume_jobs(self: Rc<Self>) {
        let sim = &self.sim;
        let supply = Mailbox::<Supply>::default();
        let mut demand = Demand::default();
        loop {
            let free = if self.ledger_answers.get() {
                self.slots.saturating_sub(self.busy.get())
            } else {
                0
            };
            let now = sim.instant().into();
            demand.expire(now);
            if let Some(pull) = demand.shortfall(free) {
                self.ask_for_jobs(pull, &supply);
                demand.asked(pull, now, PULL_EXPIRES);
            }
            let deadline = demand
                .deadline()
                .map_or(Millis::MAX, |at| sim.millis_of(at.into_std()));
            tokio::select! {
                biased;
                () = self.soft.raised() => break,
                () = self.ended.take() => {}
                supplied = supply.take() => match supplied {
                    Supply::Job { seq, run } => {
                        demand.delivered();
                        self.take_job(Delivery { seq, run });
                    }
                    Supply::Ended { token, unserved } => {
                        if let Some(pull) = Pull::from_token(&token) {
                            demand.ended(pull, unserved);
                        }
                    }
                },
                () = sim.sleep_until(deadline), if deadline < Millis::MAX => {}
                () = sim.sleep(LEDGER_RECHECK), if !self.ledger_answers.get() => {
                    let answer = sim.ask(self.process, Service::Ledger, |_| ()).await;
                    self.ledger_answers.set(answer.is_ok());
                }
            }
        }
        self.drain().await;
    }

    fn ask_for_jobs(&self, pull: Pull, supply: &Mailbox<Supply>) {
        let (process, supply) = (self.process, supply.clone());
        self.sim.send(process, Service::Broker, move |sim| {
            sim.pull(process, pull.token(), pull.batch, PULL_EXPIRES, supply);
        });
    }

    fn take_job(self: &Rc<Self>, delivery: Delivery) {
        self.busy.set(self.busy.get() + 1);
        let worker = Rc::clone(self);
        self.sim.spawn(self.process, async move {
            worker.claim_and_work(delivery).await;
            worker.busy.set(worker.busy.get() - 1);
            worker.ended.put(());
        });
    }

    async fn drain(&self) {
        let deadline = self.sim.sleep(DRAIN);
        tokio::pin!(deadline);
        while self.busy.get() > 0 {
            tokio::select! {
                biased;
                () = self.ended.take() => {}
                () = &mut deadline, if !self.cut.is_raised() => self.cut.raise(),
            }
        }
        self.sim.tell(self.process, || "has stopped".into());
        let process = self.process;
        self.sim.after(0, move |sim| sim.kill(process));
    }

    async fn claim_and_work(&self, delivery: Delivery) {
        loop {
            let claim = self.new_claim(delivery);
            let sent = self.sim.instant();
            let Ok(outcome) = self.claim(&claim).await else {
                // The process is excused, because the claim may or may not have been granted.
                self.sim.excuse(self.process);
                self.nak(delivery, DATABASE_RETRY);
                self.ledger_answers.set(false);
                return;
            };
            match JobAction::from(outcome) {
                JobAction::Work(claimed) => {
                    self.sim.tell(self.process, || {
                        let attempt = claimed.fence.attempt;
                        format!("holds {} as attempt {attempt}", name(delivery.run))
                    });
                    let lease = Lease::granted(sent, LEASE);
                    if self.work(delivery, *claimed, lease).await == Ending::PerhapsEnded {
                        continue;
                    }
                }
                JobAction::RepairEnd(ended) => {
                    let told = self.sim.setup.without == Some(Guard::TerminalEvent)
                        || ensure_terminal_event(&self.sim, self.process, delivery.run, &ended)
                            .await
                            .is_ok();
                    if told {
                        self.ack(delivery);
                    } else {
                        self.nak(delivery, DATABASE_RETRY);
                    }
                }
                JobAction::RepairQuestions(parked) => {
                    if ensure_parked_events(&self.sim, self.process, delivery.run, parked)
                        .await
                        .is_ok()
                    {
                        self.ack(delivery);
                    } else {
                        self.nak(delivery, DATABASE_RETRY);
                    }
                }
                JobAction::ComeAgain(wait) => self.nak(delivery, wait),
                JobAction::Acknowledge => self.ack(delivery),
            }
            return;
        }
    }

    fn new_claim(&self, delivery: Delivery) -> Claim {
        Claim {
            tenant: tenant(),
            run: delivery.run,
            worker: self.id,
            token: ClaimToken::from_random(self.sim.bits()),
            lease: LEASE,
            job_seq: delivery.seq,
            max_failures: MAX_FAILURES,
        }
    }

    /// Claims, and repeats with the same token if the answer is lost.
    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, Unanswered> {
        let ask = |claim: Claim| {
            let (process, asked_at) = (self.process, self.sim.now());
            self.sim.ask(process, Service::Ledger, move |sim| {
                let now = sim.now();
                if now > asked_at + millis(PATIENCE) {
                    // The claimer may have given up waiting for this one.
                    sim.excuse(process);
                }
                let outcome = sim.world.borrow_mut().ledger.claim(&claim, process, now);
                sim.judge_suspects();
                outcome
            })
        };
        match ask(claim.clone()).await {
            Err(Unanswered) => {
                let mut again = claim.clone();
                if self.sim.setup.without == Some(Guard::RepeatableClaim) {
                    again.token = ClaimToken::from_random(self.sim.bits());
                }
                ask(again).await
            }
            outcome => outcome,
        }
    }

    async fn work(&self, delivery: Delivery, claimed: ClaimedRun, lease: Lease) -> Ending {
        let run = delivery.run;
        let nudge = Mailbox::default();
        self.nudges.borrow_mut().insert(run, nudge.clone());
        let hold = Hold::new(self, delivery, claimed.fence, lease, nudge);
        let attempt = claimed.fence.attempt;
        let ending = run_attempt(self, claimed, &hold).await;
        self.sim.tell(self.process, || {
            format!("attempt {attempt} of {}: {ending:?}", name(run))
        });
        match ending {
            // The decision publishes its own job.
            Ending::Ended | Ending::Parked => self.ack(delivery),
            Ending::HandedOver => {
                self.sim.count(|counts| &mut counts.hand_overs);
                self.nak_confirmed(delivery).await;
            }
            // The new holder settles the message.
            Ending::Lost | Ending::PerhapsEnded => {}
        }
        ending
    }

    fn ack(&self, delivery: Delivery) {
        self.sim.send(self.process, Service::Broker, move |sim| {
            sim.acknowledge(delivery.seq);
        });
    }

    fn nak(&self, delivery: Delivery, delay: Duration) {
        self.sim.send(self.process, Service::Broker, move |sim| {
            sim.give_back_job(delivery.seq, delay);
        });
    }

    async fn nak_confirmed(&self, delivery: Delivery) {
        let asked = self.sim.ask(self.process, Service::Broker, move |sim| {
            sim.give_back_job(delivery.seq, Duration::ZERO);
        });
        // Without a confirmation, the message is redelivered after the ack_wait.
        let _ = asked.await;
    }
}
