//! Keeps the leases of all runs that a worker holds, and says when the work on one must stop.
//!
//! One task renews them all, a statement at a time. Each run waits beside its work for what the
//! ledger says of it, and gives up by the clock if that says nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_nats::{Bus, InProgress};
use baton_protocol::liveness::SIGN_OF_LIFE_EVERY;
use baton_protocol::{ClaimToken, Fence, RunId};
use baton_service::{SharedClock, config::WorkerConfig};
use baton_store::{Renewal, Store};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::health_probes::HealthProbes;
use crate::lease::Lease;

/// How long a renewal waits for the broker. What takes longer counts as no round trip.
const BROKER_PATIENCE: Duration = Duration::from_secs(1);
/// How soon to go on after the ledger did not answer.
const LEDGER_RETRY: Duration = Duration::from_millis(250);

/// Why the work must stop at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody asked for it, with this reason.
    Cancelled(String),
    /// Another attempt holds the run, or the run has ended.
    LeaseLost,
    /// The ledger or the broker did not answer in time.
    LeaseUnconfirmed,
    /// The drain's deadline has come.
    Cut,
}

/// Keeps the leases of a worker's runs.
pub(crate) struct LeaseKeeper {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    lease: Duration,
    renew_every: Duration,
    held: Mutex<HashMap<ClaimToken, Arc<Held>>>,
    probes: Mutex<HealthProbes>,
    /// Something is due earlier than was known.
    wake: Notify,
}

/// A run that this worker holds.
struct Held {
    fence: Fence,
    message: InProgress,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
struct State {
    lease: Lease,
    /// Somebody waits for the ledger's word.
    asked: bool,
    stop: Option<Stop>,
}

/// A run's lease, for as long as somebody works on it.
pub(crate) struct Hold<'a> {
    keeper: &'a LeaseKeeper,
    held: Arc<Held>,
}

impl LeaseKeeper {
    pub(crate) fn new(store: Store, bus: Bus, clock: SharedClock, config: &WorkerConfig) -> Self {
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

    /// Keeps the lease that a claim was granted, and the message behind it in progress.
    pub(crate) fn hold(&self, fence: Fence, lease: Lease, message: InProgress) -> Hold<'_> {
        let state = State {
            lease,
            asked: false,
            stop: None,
        };
        let held = Arc::new(Held {
            fence,
            message,
            state: watch::Sender::new(state),
        });
        self.lock_held().insert(fence.token, Arc::clone(&held));
        self.wake.notify_one();
        Hold { keeper: self, held }
    }

    /// Somebody says that the ledger has news of a run. A nudge carries no order: it makes the
    /// keeper look now instead of at the next renewal, so that a lost one costs time only.
    pub(crate) fn nudge(&self, run: RunId) {
        for held in self.lock_held().values() {
            if held.fence.run == run {
                held.state.send_modify(|state| state.asked = true);
            }
        }
        self.wake.notify_one();
    }

    /// A scheduler asked whether this worker is there.
    pub(crate) fn asked_for(&self, by: Uuid) {
        let now = self.clock.monotonic();
        self.lock_probes().asked(by, now);
    }

    /// Renews until dropped.
    pub(crate) async fn keep(&self) {
        let mut link = self.bus.link();
        // After a round that did not reach the broker: not to be repeated before.
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
                () = self.wake.notified() => {}
                // The broker may be back.
                Ok(()) = link.changed() => not_before = None,
                () = sleep_until(due.next.unwrap_or(now).into()), if due.next.is_some() => {}
            }
        }
    }

    /// One statement for all that is due. Returns whether the broker answered: a worker that it does
    /// not answer shows that it lives, but does not renew, for it would hold runs that it cannot
    /// serve.
    async fn round(&self, due: &[Arc<Held>]) -> bool {
        let reached = matches!(timeout(BROKER_PATIENCE, self.bus.ping()).await, Ok(Ok(_)));
        let fences: Vec<Fence> = due.iter().map(|held| held.fence).collect();
        for held in due {
            held.state.send_if_modified(|state| {
                state.asked = false;
                false
            });
        }
        let sent = self.clock.monotonic();
        let length = reached.then_some(self.lease);
        match self.store.system().renew_leases(&fences, length).await {
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

    /// What is to be renewed now; or when, if nobody asks before.
    fn due(&self, now: Instant, not_before: Option<Instant>) -> Due {
        let (unseen, silence_begins) = {
            let mut probes = self.lock_probes();
            (probes.one_is_silent(now), probes.silence_begins())
        };
        let held = self.lock_held();
        let mut due = Due::default();
        // What is due soon goes along with what is due now.
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

    /// Whether any run is held.
    #[cfg(test)]
    pub(crate) fn holds_any(&self) -> bool {
        !self.lock_held().is_empty()
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, HashMap<ClaimToken, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_probes(&self) -> std::sync::MutexGuard<'_, HealthProbes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which leases are to be renewed, and when the next is.
#[derive(Default)]
struct Due {
    now: Vec<Arc<Held>>,
    /// Whether one of them is due by itself, and not only because somebody asked.
    all: bool,
    next: Option<Instant>,
}

impl Held {
    /// The ledger's answer to what was sent at `sent`.
    fn answered(&self, answer: Option<Renewal>, sent: Instant, renewed: bool) {
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

impl Hold<'_> {
    /// Runs beside the work, and ends only when the work must.
    pub(crate) async fn until_stopped(&self, cut: &CancellationToken) -> Stop {
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
                () = cut.cancelled() => return Stop::Cut,
                // The sender is held here: it does not go away.
                _ = state.changed() => {}
                () = sleep_until(give_up.into()) => return Stop::LeaseUnconfirmed,
            }
        }
    }

    /// The lease as it stands.
    pub(crate) fn lease(&self) -> Lease {
        self.held.state.borrow().lease
    }

    /// The ledger took something from this attempt that was sent at `sent`.
    pub(crate) fn confirmed(&self, sent: Instant) {
        self.held
            .state
            .send_modify(|state| state.lease = state.lease.confirmed(sent));
    }

    /// Waits until the ledger has confirmed the run so lately that a side effect may begin. It
    /// mostly has; else it is asked. Waits for ever if it does not answer: the lease's end stops the
    /// work, and this with it.
    pub(crate) async fn may_begin(&self) {
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

    /// From here on the lease is not renewed.
    pub(crate) fn let_go(&self) {
        self.keeper.lock_held().remove(&self.held.fence.token);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests;
