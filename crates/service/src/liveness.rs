//! The liveness of a role, as `/livez` reports it.

use std::sync::{Arc, OnceLock};

/// A mark that a process cannot recover. Clones share it. It is never cleared, because a process
/// that can recover is unready, not dead.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    reason: Arc<OnceLock<String>>,
}

impl Liveness {
    /// Makes a mark of a live process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks the process as dead. The first reason stays.
    pub fn fail(&self, reason: impl Into<String>) {
        let _first_stays = self.reason.set(reason.into());
    }

    /// Returns the reason of its death, if it is dead.
    pub fn failed(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}
