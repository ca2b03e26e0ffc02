//! Whether a role can still do its work, as `/livez` says.

use std::sync::{Arc, OnceLock};

/// Whether a process is beyond repair. Clones share it; it never recovers, because a process that
/// could would be unready, not dead.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    reason: Arc<OnceLock<String>>,
}

impl Liveness {
    /// Alive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares it dead. The first reason stays.
    pub fn fail(&self, reason: impl Into<String>) {
        let _first_stays = self.reason.set(reason.into());
    }

    /// Why it is dead, if it is.
    pub fn failed(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}
