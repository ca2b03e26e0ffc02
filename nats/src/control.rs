//! Nudges: core NATS messages that may be lost, because the truth is in the rows and is looked at
//! anyway. They only save the time until then.

use std::time::Duration;

use async_nats::Subject;
use baton_protocol::{RunId, TenantId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::presence::PresenceQuestion;
use crate::subjects;
use crate::subscription::Subscription;

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nudge {
    /// Somebody asked to cancel a run that the worker holds: renew its lease now, and see.
    Cancel {
        /// The run's tenant.
        tenant: TenantId,
        /// The run.
        run: RunId,
    },
    /// Somebody asks whether the worker is there: to be answered by [`Bus::say_here`].
    AreYouThere(PresenceQuestion),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    tenant: TenantId,
    run: RunId,
}

/// What one worker is told, for as long as it listens.
#[derive(Debug)]
pub struct Nudges {
    subscription: Subscription,
}

impl Nudges {
    /// The next nudge; `None` once the connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Nudge> {
        loop {
            let message = self.subscription.next().await?;
            let verb = message.subject.rsplit('.').next().unwrap_or_default();
            if verb == subjects::ASK
                && let Some(question) = PresenceQuestion::read(&message)
            {
                return Some(Nudge::AreYouThere(question));
            }
            match (verb, serde_json::from_slice::<Wire>(&message.payload)) {
                ("cancel", Ok(Wire { tenant, run })) => return Some(Nudge::Cancel { tenant, run }),
                (_, Ok(_)) => tracing::debug!(verb, "a nudge that this build does not know"),
                (_, Err(error)) => tracing::warn!(%error, verb, "an unreadable nudge"),
            }
        }
    }
}

impl Bus {
    /// Tells a worker that a run which it holds is to be cancelled. Nobody confirms that it was
    /// heard.
    pub async fn nudge_worker(
        &self,
        worker: WorkerId,
        tenant: TenantId,
        run: RunId,
    ) -> Result<(), BusError> {
        let payload = format!(r#"{{"tenant":"{tenant}","run":"{run}"}}"#);
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client
            .publish(subjects::worker_cancel(worker), payload.into())
            .await?)
    }

    /// Listens to what this worker is told.
    pub async fn worker_nudges(&self, worker: WorkerId) -> Result<Nudges, BusError> {
        let subscription = self
            .listen(Consumer::Nudges, subjects::worker_nudges(worker))
            .await?;
        Ok(Nudges { subscription })
    }

    /// Asks the other ingresses whether a client of theirs is with this run, or may be back any
    /// moment. Silence for `patience` means no.
    pub async fn is_attached_elsewhere(&self, run: RunId, patience: Duration) -> bool {
        let Some(client) = self.connected_client() else {
            return false;
        };
        let asked = client.request(subjects::ATTACHED, run.to_string().into());
        matches!(tokio::time::timeout(patience, asked).await, Ok(Ok(_)))
    }

    /// What other ingresses ask.
    pub async fn attachment_questions(&self) -> Result<AttachmentQuestions, BusError> {
        let subscription = self
            .listen(Consumer::Attachments, subjects::ATTACHED)
            .await?;
        Ok(AttachmentQuestions {
            bus: self.clone(),
            subscription,
        })
    }
}

/// What other ingresses ask, for as long as this one listens.
#[derive(Debug)]
pub struct AttachmentQuestions {
    bus: Bus,
    subscription: Subscription,
}

/// "Is a client of yours with this run?" Only a yes is said.
#[derive(Debug)]
pub struct AttachmentQuestion {
    bus: Bus,
    run: RunId,
    reply: Subject,
}

impl AttachmentQuestions {
    /// The next question; `None` once the connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<AttachmentQuestion> {
        loop {
            let message = self.subscription.next().await?;
            let run = std::str::from_utf8(&message.payload)
                .ok()
                .and_then(|run| run.parse().ok());
            if let (Some(run), Some(reply)) = (run, message.reply) {
                return Some(AttachmentQuestion {
                    bus: self.bus.clone(),
                    run,
                    reply,
                });
            }
        }
    }
}

impl AttachmentQuestion {
    /// The run in question.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// Says yes.
    pub async fn yes(self) -> Result<(), BusError> {
        let client = self.bus.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client.publish(self.reply, "yes".into()).await?)
    }
}
