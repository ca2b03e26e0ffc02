//! Keeps the leases of all runs that a worker holds, and stops the work on a run when it must stop.
//!
//! One task renews all leases, in one statement at a time. Each run waits for the ledger's answers
//! concurrently with its work, and gives up by the clock if none comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_protocol::liveness::SIGN_OF_LIFE_EVERY;
use baton_protocol::{ClaimToken, Fence, RunId};
use baton_service::{SharedClock, config::WorkerConfig};
use baton_store::{Renewal, WaitingInput};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::health_probes::HealthProbes;
use crate::lease::Lease;
use crate::world::{Broker, Delivery, InProgress as _, Ledger as _, Servers, World};

/// The longest time that a renewal waits for the broker; a slower answer counts as none.
const BROKER_PATIENCE: Duration = Duration::from_secs(1);
/// The pause before the next round after the ledger did not answer.
const LEDGER_RETRY: Duration = Duration::from_millis(250);

/// The reason why the work must stop at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A cancel was requested, with this reason.
    Cancelled(String),
    /// Another attempt holds the run, or the run has ended.
    LeaseLost,
    /// The ledger or the broker did not answer in time.
    LeaseUnconfirmed,
    /// The drain's deadline has come.
    Cut,
}

/// The handle that keeps a job's message in progress.
type InProgressOf<W> = <DeliveryOf<W> as Delivery>::InProgress;
/// The job that a worker pulled.
pub(crate) type DeliveryOf<W> = <<W as World>::Broker as Broker>::Delivery;

/// Keeps the leases of a worker's runs.
pub struct LeaseKeeper<W: World = Servers> {
    store: W::Ledger,
    bus: W::Broker,
    clock: SharedClock,
    lease: Duration,
    renew_every: Duration,
    held: Mutex<BTreeMap<ClaimToken, Arc<Held<W>>>>,
    probes: Mutex<HealthProbes>,
    /// Notified when a renewal is due earlier than known before.
    wake: Notify,
}

/// A run that this worker holds.
struct Held<W: World> {
    fence: Fence,
    message: InProgressOf<W>,
    state: watch::Sender<State>,
    /// The messages that wait for the run.
    waiting: watch::Sender<Vec<WaitingInput>>,
}

#[derive(Debug, Clone)]
struct State {
    lease: Lease,
    /// A task waits for the ledger's answer.
    asked: bool,
    stop: Option<Stop>,
}

/// A run's lease, for the duration of the work on the run.
pub struct Hold<'a, W: World = Servers> {
    keeper: &'a LeaseKeeper<W>,
    held: Arc<Held<W>>,
}

impl<W: World> LeaseKeeper<W> {
    /// Makes the keeper of a worker that holds nothing yet.
    pub fn new(
        store: W::Ledger,
        bus: W::Broker,
        clock: SharedClock,
        config: &WorkerConfig,
    ) -> Self {
        Self {
            store,
            bus,
            clock,
            lease: config.lease,
            renew_every: config.renew_every,
            held: Mutex::default(),
            probes: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Keeps the lease that a claim was granted, and keeps the run's message in progress.
    pub fn hold(&self, fence: Fence, lease: Lease, message: InProgressOf<W>) -> Hold<'_, W> {
        let state = State {
            lease,
            asked: false,
            stop: None,
        };
        let held = Arc::new(Held {
            fence,
            message,
            state: watch::Sender::new(state),
            waiting: watch::Sender::default(),
        });
        self.lock_held().insert(fence.token, Arc::clone(&held));
        self.wake.notify_one();
        Hold { keeper: self, held }
    }

    /// Handles a message that the ledger has news of a run. A nudge carries no order: it makes the
    /// keeper look now instead of at the next renewal, so a lost one only costs time.
    pub fn nudge(&self, run: RunId) {
        for held in self.lock_held().values() {
            if held.fence.run == run {
                held.state.send_modify(|state| state.asked = true);
            }
        }
        self.wake.notify_one();
    }

    /// Handles a scheduler's probe of this worker.
    pub fn asked_for(&self, by: Uuid) {
        let now = self.clock.monotonic();
        let is_first = {
            let mut probes = self.lock_probes();
            let is_first = probes.silence_begins().is_none();
            probes.asked(by, now);
            is_first
        };
        if is_first {
            // The keeper may sleep until a renewal, and the silence begins before.
            self.wake.notify_one();
        }
    }

    /// Renews until dropped.
    pub async fn keep(&self) {
        let mut link = self.bus.link();
        // Set after a round that did not reach the broker: no renewal is due before.
        let mut not_before = None;
        loop {
            let now = self.clock.monotonic();
            let due = self.due(now, not_before);
            if !due.now.is_empty() {
                let reached = self.round(&due.now).await;
                not_before = (!reached).then(|| self.clock.monotonic() + SIGN_OF_LIFE_EVERY);
                continue;
            }
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                // The broker may be back.
                Ok(()) = link.changed() => not_before = None,
                () = sleep_until(due.next.unwrap_or(now).into()), if due.next.is_some() => {}
            }
        }
    }

    /// Renews all due leases in one statement. Returns whether the broker answered: a worker
    /// without an answer shows that it lives, but does not renew, because it would hold runs that
    /// it cannot serve.
    async fn round(&self, due: &[Arc<Held<W>>]) -> bool {
        let answers = timeout(BROKER_PATIENCE, self.bus.answers()).await;
        let reached = answers.unwrap_or(false);
        let fences: Vec<Fence> = due.iter().map(|held| held.fence).collect();
        for held in due {
            held.state.send_if_modified(|state| {
                state.asked = false;
                false
            });
        }
        let sent = self.clock.monotonic();
        let length = reached.then_some(self.lease);
        match self.store.renew_leases(&fences, length).await {
            Ok(answers) => {
                for (held, answer) in due.iter().zip(answers) {
                    held.answered(answer, sent, reached);
                }
            }
            Err(error) => {
                tracing::warn!(%error, runs = due.len(), "leases could not be renewed yet");
                for held in due {
                    held.state.send_if_modified(|state| {
                        state.asked = true;
                        false
                    });
                }
                sleep(LEDGER_RETRY).await;
                return reached;
            }
        }
        if reached {
            let all = async {
                for held in due {
                    if let Err(error) = held.message.in_progress().await {
                        tracing::debug!(%error, "a message was not kept in progress");
                    }
                }
            };
            let _in_time = timeout(BROKER_PATIENCE, all).await;
        }
        reached
    }

    /// Returns the leases to renew now, and the time of the next renewal.
    fn due(&self, now: Instant, not_before: Option<Instant>) -> Due<W> {
        let (unseen, silence_begins) = {
            let mut probes = self.lock_probes();
            (probes.one_is_silent(now), probes.silence_begins())
        };
        let held = self.lock_held();
        let mut due = Due {
            now: Vec::new(),
            all: false,
            next: None,
        };
        // Leases that are due soon are renewed together with those that are due now.
        let mut soon = Vec::new();
        for held in held.values() {
            let state = held.state.borrow();
            if state.stop.is_some() {
                continue;
            }
            let renewal = state.lease.sent() + self.renew_every;
            let mut at = not_before.map_or(renewal, |earliest| renewal.max(earliest));
            if unseen {
                at = at.min(state.lease.last_confirmed() + SIGN_OF_LIFE_EVERY);
            }
            if state.asked || at <= now {
                due.now.push(Arc::clone(held));
                due.all |= !state.asked;
            } else {
                if at <= now + self.renew_every / 2 {
                    soon.push(Arc::clone(held));
                }
                due.next = Some(due.next.map_or(at, |next: Instant| next.min(at)));
            }
        }
        if due.all {
            due.now.extend(soon);
        }
        if !held.is_empty() && !unseen {
            due.next = due.next.into_iter().chain(silence_begins).min();
        }
        due
    }

    /// Returns whether any run is held.
    #[cfg(test)]
    pub(crate) fn holds_any(&self) -> bool {
        !self.lock_held().is_empty()
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, BTreeMap<ClaimToken, Arc<Held<W>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_probes(&self) -> std::sync::MutexGuard<'_, HealthProbes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leases to renew, and the time of the next renewal.
struct Due<W: World> {
    now: Vec<Arc<Held<W>>>,
    /// Whether one of them is due by time, not only because a task asked.
    all: bool,
    next: Option<Instant>,
}

impl<W: World> Held<W> {
    /// Takes the ledger's answer to a statement that was sent at `sent`.
    fn answered(&self, mut answer: Option<Renewal>, sent: Instant, renewed: bool) {
        if let Some(renewal) = &mut answer {
            let found = std::mem::take(&mut renewal.waiting);
            self.waiting.send_if_modified(|waiting| {
                let is_news = *waiting != found;
                *waiting = found;
                is_news
            });
        }
        self.state.send_modify(|state| match answer {
            None => state.stop = Some(Stop::LeaseLost),
            Some(renewal) => {
                state.lease = if renewed {
                    state.lease.renewed(sent)
                } else {
                    state.lease.confirmed(sent)
                };
                state.stop = renewal.cancel_requested.map(Stop::Cancelled);
            }
        });
    }
}

impl<W: World> Hold<'_, W> {
    /// Waits until the work must stop. Runs concurrently with the work.
    pub async fn until_stopped(&self, cut: &CancellationToken) -> Stop {
        let mut state = self.held.state.subscribe();
        loop {
            let give_up = {
                let state = state.borrow_and_update();
                if let Some(stop) = &state.stop {
                    return stop.clone();
                }
                state.lease.give_up_at()
            };
            tokio::select! {
                biased;
                () = cut.cancelled() => return Stop::Cut,
                // The sender is held here, so it is never dropped.
                _ = state.changed() => {}
                () = sleep_until(give_up.into()) => return Stop::LeaseUnconfirmed,
            }
        }
    }

    /// Returns the messages that wait for the run, as each renewal finds them.
    pub fn waiting_inputs(&self) -> watch::Receiver<Vec<WaitingInput>> {
        self.held.waiting.subscribe()
    }

    /// Returns the current lease.
    pub fn lease(&self) -> Lease {
        self.held.state.borrow().lease
    }

    /// Notes that the ledger accepted a write of this attempt that was sent at `sent`.
    pub fn confirmed(&self, sent: Instant) {
        self.held
            .state
            .send_modify(|state| state.lease = state.lease.confirmed(sent));
    }

    /// Waits until the ledger has confirmed the run so recently that a side effect may begin.
    /// Usually it has; otherwise the keeper asks it. Waits forever if it does not answer: the end
    /// of the lease stops the work, and with it this wait.
    pub async fn may_begin(&self) {
        let mut state = self.held.state.subscribe();
        loop {
            let now = self.keeper.clock.monotonic();
            if state.borrow_and_update().lease.may_begin(now) {
                return;
            }
            self.held.state.send_if_modified(|state| {
                state.asked = true;
                false
            });
            self.keeper.wake.notify_one();
            let _sender_is_held_here = state.changed().await;
        }
    }

    /// Stops the renewal of the lease.
    pub fn let_go(&self) {
        self.keeper.lock_held().remove(&self.held.fence.token);
    }
}

impl<W: World> Drop for Hold<'_, W> {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests;
