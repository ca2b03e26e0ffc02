//! Evicts keys and sessions that have ended.

use std::sync::Arc;

use baton_nats::{Bus, Revocations};
use tokio::sync::Notify;
use uuid::Uuid;

use super::credentials::Credentials;
use super::watch::CredentialWatch;

/// Evicts ended keys and sessions from the caches, and wakes the tasks that close what they opened.
#[derive(Clone)]
pub(crate) struct Revoker {
    pub(crate) bus: Bus,
    pub(crate) credentials: Credentials,
    pub(crate) watch: CredentialWatch,
    /// Notified when a credential has ended, so that its programs' connections are closed.
    pub(crate) ended: Arc<Notify>,
}

impl Revoker {
    /// Evicts an ended key or session here and at the other ingresses.
    pub(crate) async fn evict_everywhere(&self, credential: Uuid) {
        self.evict(credential);
        // If the message is lost, the other ingresses notice at their next look, seconds later.
        if let Err(error) = self.bus.announce_revoked(credential).await {
            tracing::debug!(%error, "a revocation was not announced");
        }
    }

    /// Evicts the keys and sessions that other ingresses announce.
    pub(crate) async fn hear(self, mut revocations: Revocations) {
        while let Some(credential) = revocations.next().await {
            self.evict(credential);
        }
    }

    fn evict(&self, credential: Uuid) {
        self.credentials.forget(credential);
        self.watch.wake();
        self.ended.notify_one();
    }
}
