//! Submissions: `submit.<tenant>.<key>.<lane>`, which programs reach as
//! `jobs.<tenant>.<key>.<lane>`.
//!
//! A service and not a stream: the ledger holds every answered submission, and its program repeats
//! an unanswered one under the same run id.
//!
//! `resubmit.<tenant>.<key>.<lane>`, which no program reaches, takes messages that an operator
//! resubmits from DEAD. It comes on the connection of the roles: its publisher is the operator's
//! user, and its subject names the key.

use async_nats::{Message, Subject};
use baton_protocol::{ApiKeyId, Lane, RunId, TenantId};
use bytes::Bytes;

use super::intake::Address;
use super::requests::{Answer, QUEUE, Refusal, Reply};
use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

const VERB: &str = "submit";

/// One message of a program, not decoded yet.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The tenant, from the subject.
    pub tenant: TenantId,
    /// The key that published it, from the subject: the broker lets no other key publish there.
    pub key: ApiKeyId,
    /// The queue, from the subject.
    pub lane: Lane,
    /// Whether it comes from DEAD, and so is already counted and kept.
    pub again: bool,
    /// The message.
    pub payload: Bytes,
    /// The operator's inbox, if it comes from DEAD.
    reply: Option<Subject>,
}

/// The outcome of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionAnswer {
    /// Accepted, now or before, or refused.
    pub answer: Answer,
    /// Whether it had been accepted before.
    pub replayed: bool,
}

impl SubmissionAnswer {
    /// Returns a refusal.
    pub const fn refused(refusal: Refusal) -> Self {
        Self {
            answer: Answer::Refused(refusal),
            replayed: false,
        }
    }
}

/// Operators' resubmissions from DEAD, for as long as this ingress listens.
#[derive(Debug)]
pub struct Resubmissions {
    subscription: Subscription,
}

impl Resubmissions {
    /// Returns the next one; `None` once the connection is gone for good, or after
    /// [`Resubmissions::stop`] and the last one. Cancel-safe.
    pub async fn next(&mut self) -> Option<Submission> {
        loop {
            let message = self.subscription.next().await?;
            match Submission::again(message) {
                Ok(submission) => return Some(submission),
                Err(subject) => tracing::warn!(%subject, "an operator's message without ids"),
            }
        }
    }

    /// Unsubscribes. Other ingresses get later messages; those that were delivered to this one are
    /// still to be read.
    pub async fn stop(&mut self) {
        // On an error the subscription has ended already, so no more messages come.
        if let Err(error) = self.subscription.drain().await {
            tracing::debug!(%error, "a subscription was not given up");
        }
    }
}

impl Submission {
    pub(super) const fn heard(tenant: TenantId, key: ApiKeyId, lane: Lane, payload: Bytes) -> Self {
        Self {
            tenant,
            key,
            lane,
            again: false,
            payload,
            reply: None,
        }
    }

    /// Reads an operator's message; fails with its subject if that has another form.
    fn again(message: Message) -> Result<Self, Subject> {
        let Some(Address::Submission { tenant, key, lane }) =
            subjects::of_resubmission(&message.subject)
        else {
            return Err(message.subject);
        };
        Ok(Self {
            again: true,
            reply: message.reply,
            ..Self::heard(tenant, key, lane, message.payload)
        })
    }
}

impl Bus {
    /// Subscribes to operators' resubmissions, shared with all other ingresses.
    pub async fn resubmissions(&self) -> Result<Resubmissions, BusError> {
        let (consumer, subject) = (Consumer::Resubmissions, subjects::ALL_RESUBMISSIONS);
        let subscription = self.listen_in_group(consumer, subject, QUEUE).await?;
        Ok(Resubmissions { subscription })
    }

    /// Answers on the run's own subject, or on that of [`RunId::nil`] if the run is unknown. A
    /// waiting operator gets the same answer.
    pub async fn answer_submission(
        &self,
        submission: &Submission,
        run: Option<RunId>,
        request_id: Option<&str>,
        answer: &SubmissionAnswer,
    ) -> Result<(), BusError> {
        let reply = Reply {
            replayed: answer.replayed,
            ..Reply::new(VERB, run, request_id, &answer.answer)
        };
        let payload = reply.encode();
        let about = run.unwrap_or_else(RunId::nil);
        self.reply(submission.tenant, about, payload.clone())
            .await?;
        match &submission.reply {
            Some(inbox) if submission.again => {
                let client = self.connected_client().ok_or(BusError::Disconnected)?;
                Ok(client.publish(inbox.clone(), payload).await?)
            }
            _ => Ok(()),
        }
    }
}
