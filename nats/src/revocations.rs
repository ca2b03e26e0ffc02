//! The news that a credential is not good any more, from the ingress where that was asked for to
//! all others. Core NATS: the truth is in the ledger, which every ingress looks at within seconds
//! anyway; this only saves that time.

use uuid::Uuid;

use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// The credentials that are announced as revoked, for as long as this listens.
#[derive(Debug)]
pub struct Revocations {
    subscription: Subscription,
}

impl Revocations {
    /// The id of the next API key or session that was revoked; `None` once the connection is closed
    /// for good. Cancel-safe.
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
    /// Tells every ingress, this one included, that a key or a session was revoked. Nobody confirms
    /// that it was heard.
    pub async fn announce_revoked(&self, credential: Uuid) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let payload = credential.as_hyphenated().to_string();
        Ok(client.publish(subjects::REVOKED, payload.into()).await?)
    }

    /// Listens to what is revoked.
    pub async fn revocations(&self) -> Result<Revocations, BusError> {
        let subscription = self
            .listen(Consumer::Revocations, subjects::REVOKED)
            .await?;
        Ok(Revocations { subscription })
    }
}
