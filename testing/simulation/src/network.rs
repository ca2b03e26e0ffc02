//! The network between the processes: requests and answers are delayed and may get lost in either
//! direction; and faults that strike a process just as it sends.

use std::future::pending;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::executor::ProcessId;
use crate::links::Service;
use crate::mailbox::Mailbox;
use crate::time::{Millis, millis};
use crate::weather::Weather;
use crate::world::Sim;

/// The longest wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the longest wait for a service's answer.
pub(crate) fn patience(with: Service) -> Duration {
    if with == Service::Outside {
        Duration::from_mins(5)
    } else {
        PATIENCE
    }
}

/// Waits for an answer; for ever if it is lost, which the process does not learn.
pub(crate) async fn arrival<T>(answer: oneshot::Receiver<T>) -> T {
    match answer.await {
        Ok(answer) => answer,
        Err(_) => pending().await,
    }
}

/// There was no answer: the request may have been done, may be done later, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl Sim {
    fn weather(&self) -> Weather {
        self.world.borrow().weather
    }

    /// Returns the delay of a message; `None` if it is lost.
    fn travel(&self, lossy: bool) -> Option<Millis> {
        let weather = self.weather();
        if lossy && self.per_mille(weather.loss) {
            self.count(|counts| &mut counts.lost_messages);
            return None;
        }
        Some(if lossy && self.per_mille(weather.late) {
            let most = if self.per_mille(300) { 40_000 } else { 8_000 };
            self.between(1_000, most)
        } else {
            self.between(1, 30)
        })
    }

    fn is_cut(&self, process: ProcessId, service: Service, back: bool) -> bool {
        let now = self.now();
        self.with_process(process, |process| {
            let cut = process.links.of(service);
            cut.is_some_and(|cut| if back { cut.1 > now } else { cut.0 > now })
        })
    }

    /// Returns the delay of a message until its arrival; `None` if it is lost.
    fn departs(&self, from: ProcessId, to: Service) -> Option<Millis> {
        let mut weather = self.weather();
        if to == Service::Outside {
            // A crash does the most harm here.
            weather.deadly *= 4;
        }
        let mut delay = 0;
        if self.per_mille(weather.deadly) {
            self.count(|counts| &mut counts.crashes);
            self.after(0, move |sim| sim.kill(from));
            if self.per_mille(500) {
                return None;
            }
        } else if self.per_mille(weather.freezing) {
            // Frozen between the decision to send and the message.
            delay = self.between(1_000, 60_000);
            self.count(|counts| &mut counts.freezes);
            self.freeze(from, delay);
        }
        if self.is_cut(from, to, false) {
            return None;
        }
        Some(delay + self.travels(from, to)?)
    }

    /// Returns the delay of a message between a process and a service, in either direction.
    fn travels(&self, process: ProcessId, service: Service) -> Option<Millis> {
        let travels = self.travel(service != Service::Outside);
        if service == Service::Ledger {
            let late = travels.unwrap_or(millis(PATIENCE));
            if late > 100 {
                let until = self.now() + late;
                self.with_process(process, |process| {
                    process.unheard_until = process.unheard_until.max(until);
                });
            }
        }
        travels
    }

    /// Returns whether a question would reach the process and its answer return.
    pub(crate) fn is_within_earshot(&self, process: ProcessId) -> bool {
        !self.is_frozen(process)
            && !self.is_cut(process, Service::Broker, false)
            && !self.is_cut(process, Service::Broker, true)
            && self.travel(true).is_some_and(|delay| delay < 200)
    }

    /// Sometimes strikes the process just before it receives a message.
    fn strike_at_word(&self, process: ProcessId) {
        let weather = self.weather();
        if self.per_mille(weather.deadly / 2) {
            self.count(|counts| &mut counts.crashes);
            self.kill(process);
        } else if self.per_mille(weather.freezing) {
            self.count(|counts| &mut counts.freezes);
            // Long enough for its runs to be taken early, or for its leases to expire.
            let most = if self.per_mille(600) { 18_000 } else { 60_000 };
            self.freeze(process, self.between(6_000, most));
        }
    }

    /// Sends a message without an answer.
    pub(crate) fn send(&self, from: ProcessId, to: Service, then: impl FnOnce(&Self) + 'static) {
        if let Some(delay) = self.departs(from, to) {
            self.after(delay, then);
        }
    }

    /// Sends a request: it is done at one moment, and the sender gets the answer later.
    pub(crate) async fn ask<T: 'static>(
        &self,
        from: ProcessId,
        to: Service,
        done: impl FnOnce(&Self) -> T + 'static,
    ) -> Result<T, Unanswered> {
        let (slot, answer) = oneshot::channel();
        self.request(from, to, done, slot);
        tokio::select! {
            biased;
            answer = arrival(answer) => Ok(answer),
            () = self.sleep(patience(to)) => {
                self.count(|counts| &mut counts.unanswered);
                Err(Unanswered)
            }
        }
    }

    /// Sends a request; the answer goes to `slot`, unless it or the request is lost.
    pub(crate) fn request<T: 'static>(
        &self,
        from: ProcessId,
        to: Service,
        done: impl FnOnce(&Self) -> T + 'static,
        slot: oneshot::Sender<T>,
    ) {
        self.send(from, to, move |sim| {
            let result = done(sim);
            if !sim.is_cut(from, to, true)
                && let Some(delay) = sim.travels(from, to)
            {
                sim.after(delay, move |sim| {
                    sim.strike_at_word(from);
                    // The sender may have given up.
                    let _ = slot.send(result);
                });
            }
        });
    }

    /// Delivers an unrequested message to a process.
    pub(crate) fn bring<T: 'static>(
        &self,
        to: ProcessId,
        from: Service,
        mailbox: &Mailbox<T>,
        item: T,
    ) {
        if self.is_cut(to, from, true) {
            return;
        }
        if let Some(delay) = self.travel(true) {
            let mailbox = mailbox.clone();
            self.after(delay, move |_| mailbox.put(item));
        }
    }
}
