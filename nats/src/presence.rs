//! Which workers are there, as far as the bus can tell.
//!
//! A worker says hello, and is asked again and again from then on. While it lives it answers. When
//! its process dies, its connection is closed and with it the subscription to its subject, and the
//! broker itself answers that nobody is there: at once, instead of a silence that may mean anything.
//!
//! That answer is a hint and not a proof: a worker that is connecting again, or stands behind a
//! broken route of a broker cluster, is not there either. Nothing may be taken from a worker because
//! of it alone.

use std::time::Duration;

use async_nats::{Message, Subject};
use baton_protocol::WorkerId;
use uuid::Uuid;

use crate::bus::{Bus, BusError, Unanswered};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// What the bus knows of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answered.
    Here,
    /// It is not connected to any broker that this process's broker knows of.
    Nobody,
    /// No answer came: it may be frozen, or the question or the answer got lost.
    Unknown,
}

/// "Are you there?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceQuestion {
    /// Who asks: the same for all questions of one process.
    pub by: Uuid,
    reply: Subject,
}

impl PresenceQuestion {
    pub(crate) fn read(message: &Message) -> Option<Self> {
        Some(Self {
            by: Uuid::try_parse_ascii(&message.payload).ok()?,
            reply: message.reply.clone()?,
        })
    }
}

/// The workers that say hello, for as long as somebody listens.
#[derive(Debug)]
pub struct Hellos {
    subscription: Subscription,
}

impl Hellos {
    /// The next worker that says hello, for the first time or again; `None` once the connection is
    /// closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<WorkerId> {
        loop {
            let message = self.subscription.next().await?;
            let worker = Uuid::try_parse_ascii(&message.payload);
            match worker {
                Ok(worker) => return Some(WorkerId::from_uuid(worker)),
                Err(error) => tracing::warn!(%error, "an unreadable hello"),
            }
        }
    }
}

impl Bus {
    /// Tells whoever watches over workers that this one is there and wants to be asked. Nobody
    /// confirms that it was heard: say it again every few seconds.
    pub async fn say_hello(&self, worker: WorkerId) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client
            .publish(subjects::HELLO, worker.to_string().into())
            .await?)
    }

    /// Listens for workers.
    pub async fn hellos(&self) -> Result<Hellos, BusError> {
        let subscription = self.listen(Consumer::Hellos, subjects::HELLO).await?;
        Ok(Hellos { subscription })
    }

    /// Asks a worker whether it is there, and waits at most `patience` for the answer.
    pub async fn ask_worker(&self, worker: WorkerId, by: Uuid, patience: Duration) -> Presence {
        let asked = self.request(
            subjects::worker_ask(worker),
            None,
            by.to_string().into_bytes().into(),
        );
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(_)) => Presence::Here,
            Ok(Err(Unanswered::NobodyThere)) => Presence::Nobody,
            Ok(Err(Unanswered::NotSent | Unanswered::Unknown | Unanswered::TooLarge(_)))
            | Err(_) => Presence::Unknown,
        }
    }

    /// Answers a question.
    pub async fn say_here(&self, question: PresenceQuestion) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client.publish(question.reply, "here".into()).await?)
    }
}
