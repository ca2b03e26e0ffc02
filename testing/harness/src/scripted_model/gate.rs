//! A point at which a scripted answer waits until the test lets it go on.

use std::sync::Arc;

use tokio::sync::watch;

/// Closed until it is opened, then open for good. Clones share it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed one.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // The sender is in `self`: it is there while we wait.
        let mut opened = self.0.subscribe();
        let _ = opened.wait_for(|open| *open).await;
    }
}
