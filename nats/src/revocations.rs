//! Announces revoked credentials from one ingress to all others. Core NATS, because it only saves
//! time: every ingress looks at the ledger within seconds anyway.

use uuid::Uuid;

use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// Announced revocations, for as long as the caller listens.
#[derive(Debug)]
pub struct Revocations {
    subscription: Subscription,
}

impl Revocations {
    /// Returns the id of the next API key or session that was revoked; `None` once the connection
    /// is gone for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Uuid> {
        loop {
            let message = self.subscription.next().await?;
            let id = std::str::from_utf8(&message.payload)
                .ok()
                .and_then(|id| Uuid::try_parse(id).ok());
            if id.is_some() {
                return id;
            }
            tracing::warn!("an unreadable announcement of a revoked credential");
        }
    }
}

impl Bus {
    /// Announces to every ingress, this one included, that a key or a session was revoked. Nothing
    /// confirms that they heard.
    pub async fn announce_revoked(&self, credential: Uuid) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let payload = credential.as_hyphenated().to_string();
        Ok(client.publish(subjects::REVOKED, payload.into()).await?)
    }

    /// Subscribes to revocations.
    pub async fn revocations(&self) -> Result<Revocations, BusError> {
        let subscription = self
            .listen(Consumer::Revocations, subjects::REVOKED)
            .await?;
        Ok(Revocations { subscription })
    }
}
