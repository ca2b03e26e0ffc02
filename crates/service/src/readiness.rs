//! A latch for readiness: set when every part is ready, and cleared for good by draining.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The readiness of a role. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<&'static str>,
    draining: bool,
}

/// A part that is still starting. Dropping it without [`Part::ready`] leaves the role unready,
/// because a part that failed must.
#[derive(Debug)]
#[must_use = "the role is not ready before this part has said so"]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

/// The latch's state, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatchState {
    /// Parts that are not ready yet.
    pub waiting: Vec<&'static str>,
    /// Whether the role is stopping.
    pub draining: bool,
}

impl Readiness {
    /// Makes a latch without parts, which is ready at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part that must be ready first.
    pub fn part(&self, name: &'static str) -> Part {
        self.change(|state| state.waiting.insert(name));
        Part {
            name,
            readiness: self.clone(),
        }
    }

    /// Marks the role as stopping: unready from now on.
    pub fn drain(&self) {
        self.change(|state| state.draining = true);
        metrics::gauge!(crate::metrics::DRAINING).set(1.0);
    }

    /// Returns whether the latch alone allows traffic.
    pub fn is_ready(&self) -> bool {
        self.change(|state| !state.draining && state.waiting.is_empty())
    }

    /// Returns the latch's state.
    pub fn state(&self) -> LatchState {
        self.change(|state| LatchState {
            waiting: state.waiting.iter().copied().collect(),
            draining: state.draining,
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Part {
    /// Marks this part as ready.
    pub fn ready(self) {
        self.readiness
            .change(|state| state.waiting.remove(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_parts_are_and_never_again_once_draining() {
        let readiness = Readiness::new();
        let (http, nats) = (readiness.part("http"), readiness.part("nats"));
        http.ready();
        assert_eq!(readiness.state().waiting, ["nats"]);
        nats.ready();
        assert!(readiness.is_ready());
        readiness.drain();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_part_that_is_lost_keeps_the_role_from_being_ready() {
        let readiness = Readiness::new();
        drop(readiness.part("nats"));
        assert!(!readiness.is_ready());
    }
}
