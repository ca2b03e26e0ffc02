//! Keeps a run's lease during the work, and reports when the work must stop: `keep_lease` of
//! `baton-worker`, with a task for each run instead of one for all.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::{Duration, Instant};

use baton_protocol::Fence;
use baton_protocol::liveness::SIGN_OF_LIFE_EVERY;
use baton_store::Renewal;
use baton_worker::lease::Lease;

use crate::guard::Guard;
use crate::ledger::Lost;
use crate::links::Service;
use crate::mailbox::Mailbox;
use crate::worker::{Delivery, LEASE, RENEW_EVERY, Worker};

/// The interval of looks.
const TICK: Duration = Duration::from_millis(50);
/// The time that a renewal waits for the broker.
const BROKER_PATIENCE: Duration = Duration::from_secs(1);
/// The pause after the ledger did not answer.
const LEDGER_RETRY: Duration = Duration::from_millis(250);

/// A reason for which the work must stop at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled(String),
    LeaseLost,
    LeaseUnconfirmed,
    Cut,
}

/// A run's lease, for the time of the work.
pub(super) struct Hold<'a> {
    pub(super) worker: &'a Worker,
    pub(super) delivery: Delivery,
    pub(super) fence: Fence,
    lease: RefCell<Lease>,
    asked: Mailbox<()>,
    not_before: Cell<Option<Instant>>,
}

impl<'a> Hold<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        delivery: Delivery,
        fence: Fence,
        lease: Lease,
        asked: Mailbox<()>,
    ) -> Self {
        Self {
            worker,
            delivery,
            fence,
            lease: RefCell::new(lease),
            asked,
            not_before: Cell::new(None),
        }
    }

    pub(super) fn lease(&self) -> Lease {
        *self.lease.borrow()
    }

    /// Records that the ledger accepted a statement sent at `sent`.
    pub(super) fn confirmed(&self, sent: Instant) {
        let lease = self.lease().confirmed(sent);
        self.lease.replace(lease);
    }

    /// Waits until a side effect may begin that nothing else guards.
    pub(super) async fn may_begin(&self) {
        let sim = &self.worker.sim;
        while !self.lease().may_begin(sim.instant()) {
            self.asked.put(());
            sim.sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn until_stopped(&self) -> Stop {
        let sim = &self.worker.sim;
        loop {
            let (due, give_up) = (self.due(), self.lease().give_up_at());
            tokio::select! {
                biased;
                () = self.worker.cut.raised() => return Stop::Cut,
                () = sim.sleep_until(sim.millis_of(give_up)) => {
                    if sim.setup.without == Some(Guard::GiveUp) {
                        pending::<()>().await;
                    }
                    sim.excuse(self.worker.process);
                    return Stop::LeaseUnconfirmed;
                }
                () = self.asked.take() => while self.asked.is_filled() {
                    self.asked.take().await;
                },
                () = sim.sleep_until(sim.millis_of(due)) => if self.due() > sim.instant() {
                    continue;
                },
            }
            let round = tokio::select! {
                biased;
                round = self.round() => round,
                () = sim.sleep_until(sim.millis_of(give_up)) => continue,
                () = self.worker.cut.raised() => return Stop::Cut,
            };
            match round {
                Some(Err(Lost)) if sim.setup.without == Some(Guard::GiveUp) => pending().await,
                Some(Err(Lost)) => return Stop::LeaseLost,
                Some(Ok(renewal)) => {
                    if let Some(reason) = renewal.cancel_requested {
                        return Stop::Cancelled(reason);
                    }
                }
                None => {}
            }
        }
    }

    /// Returns the time of the next write to the ledger.
    fn due(&self) -> Instant {
        let now = self.worker.sim.instant();
        let lease = self.lease();
        let renewal = lease.sent() + RENEW_EVERY;
        let not_before = self.not_before.get();
        let due = not_before.map_or(renewal, |earliest| renewal.max(earliest));
        let mut probes = self.worker.probes.borrow_mut();
        if self.worker.sim.setup.without == Some(Guard::SignOfLife) {
            due
        } else if probes.one_is_silent(now) {
            due.min(lease.last_confirmed() + SIGN_OF_LIFE_EVERY)
        } else {
            // Checked again at that time.
            due.min(probes.silence_begins().unwrap_or(due).max(now + TICK))
        }
    }

    /// Executes one statement; `None` without an answer.
    async fn round(&self) -> Option<Result<Renewal, Lost>> {
        let Worker { sim, process, .. } = self.worker;
        let reached = tokio::select! {
            biased;
            pong = sim.ask(*process, Service::Broker, |_| ()) => pong.is_ok(),
            () = sim.sleep(BROKER_PATIENCE) => false,
        };
        let sent = sim.instant();
        let not_before = (!reached).then(|| sent + SIGN_OF_LIFE_EVERY);
        self.not_before.set(not_before);
        let (fence, length) = (self.fence, reached.then_some(LEASE));
        let renewed = sim.ask(*process, Service::Ledger, move |sim| {
            let now = sim.now();
            sim.world.borrow_mut().ledger.renew(&fence, length, now)
        });
        let Ok(answer) = renewed.await else {
            sim.sleep(LEDGER_RETRY).await;
            self.asked.put(());
            return None;
        };
        if answer.is_ok() {
            let lease = if reached {
                self.lease().renewed(sent)
            } else {
                self.lease().confirmed(sent)
            };
            self.lease.replace(lease);
            if reached {
                let seq = self.delivery.seq;
                sim.send(*process, Service::Broker, move |sim| sim.in_progress(seq));
            }
        }
        Some(answer)
    }
}
