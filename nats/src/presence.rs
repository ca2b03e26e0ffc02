//! The workers that are alive, as far as the bus can tell.
//!
//! A worker says hello, and schedulers ask it repeatedly from then on. While it lives it answers.
//! When its process dies, the broker closes its connection and its subscription, and answers at
//! once that nobody is there; a silence could mean anything.
//!
//! That answer is a hint and no proof: a worker that is reconnecting, or that is behind a broken
//! route of a broker cluster, is not there either. Never take a run from a worker because of this
//! answer alone.

use std::time::Duration;

use async_nats::{Message, Subject};
use baton_protocol::WorkerId;
use uuid::Uuid;

use crate::bus::{Bus, BusError, Unanswered};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// A worker's presence on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answered.
    Here,
    /// It is not connected to any broker that this process's broker knows of.
    Nobody,
    /// No answer came: it may be frozen, or the question or the answer got lost.
    Unknown,
}

/// A question whether a worker is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceQuestion {
    /// The asking process: the same in all its questions.
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

/// The workers' hellos, for as long as the caller listens.
#[derive(Debug)]
pub struct Hellos {
    subscription: Subscription,
}

impl Hellos {
    /// Returns the next worker that says hello, for the first time or again; `None` once the
    /// connection is gone for good. Cancel-safe.
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
    /// Announces this worker to the schedulers, so that they ask for it. Nothing confirms that they
    /// heard: repeat it every few seconds.
    pub async fn say_hello(&self, worker: WorkerId) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client
            .publish(subjects::HELLO, worker.to_string().into())
            .await?)
    }

    /// Subscribes to workers' hellos.
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
