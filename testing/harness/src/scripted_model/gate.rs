//! A point at which a scripted answer waits until the test lets it continue.

use std::sync::Arc;

use tokio::sync::watch;

/// A gate that is closed until it is opened, and then stays open. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Makes a closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets every reply pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // The sender is in `self`, and so exists during the wait.
        let mut opened = self.0.subscribe();
        let _ = opened.wait_for(|open| *open).await;
    }
}
