//! Nudges: core NATS messages that only save time. They may be lost, because receivers look at the
//! rows anyway.

use std::time::Duration;

use async_nats::Subject;
use baton_protocol::{RunId, TenantId, WorkerId};
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::presence::PresenceQuestion;
use crate::subjects;
use crate::subscription::Subscription;

/// A message to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nudge {
    /// A client asked to cancel a run that the worker holds, or sent it a message: the worker should
    /// renew its lease now, which finds both.
    Cancel {
        /// The run's tenant.
        tenant: TenantId,
        /// The run.
        run: RunId,
    },
    /// A scheduler asks whether the worker is alive; the worker answers with [`Bus::say_here`].
    AreYouThere(PresenceQuestion),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    tenant: TenantId,
    run: RunId,
}

/// The nudges of one worker, for as long as it listens.
#[derive(Debug)]
pub struct Nudges {
    subscription: Subscription,
}

impl Nudges {
    /// Returns the next nudge; `None` once the connection is gone for good. Cancel-safe.
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
    /// Asks a worker to renew the lease of a run that it holds, which shows a request to cancel it and
    /// the messages to it. Nothing confirms that it heard.
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

    /// Subscribes to this worker's nudges.
    pub async fn worker_nudges(&self, worker: WorkerId) -> Result<Nudges, BusError> {
        let subscription = self
            .listen(Consumer::Nudges, subjects::worker_nudges(worker))
            .await?;
        Ok(Nudges { subscription })
    }

    /// Asks the other ingresses whether a client of theirs follows this run or may return soon.
    /// Returns false if none answers within `patience`.
    pub async fn is_attached_elsewhere(&self, run: RunId, patience: Duration) -> bool {
        let Some(client) = self.connected_client() else {
            return false;
        };
        let asked = client.request(subjects::ATTACHED, run.to_string().into());
        matches!(tokio::time::timeout(patience, asked).await, Ok(Ok(_)))
    }

    /// Subscribes to the questions of other ingresses.
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

/// Questions of other ingresses, for as long as this one listens.
#[derive(Debug)]
pub struct AttachmentQuestions {
    bus: Bus,
    subscription: Subscription,
}

/// A question whether a client of this ingress follows a run. Only a yes is answered.
#[derive(Debug)]
pub struct AttachmentQuestion {
    bus: Bus,
    run: RunId,
    reply: Subject,
}

impl AttachmentQuestions {
    /// Returns the next question; `None` once the connection is gone for good. Cancel-safe.
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
    /// Returns the run in question.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// Answers yes.
    pub async fn yes(self) -> Result<(), BusError> {
        let client = self.bus.connected_client().ok_or(BusError::Disconnected)?;
        Ok(client.publish(self.reply, "yes".into()).await?)
    }
}
