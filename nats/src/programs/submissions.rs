//! Submissions: `submit.<tenant>.<key>.<lane>`, which programs reach as `jobs.<tenant>.<key>.<lane>`.
//!
//! A service and not a stream: what an ingress has answered is in the ledger, and what nobody has
//! answered is its program's to publish again, under the same run id.
//!
//! `resubmit.<tenant>.<key>.<lane>`, which no program reaches, takes what an operator has looked at in
//! DEAD. It comes on the connection of the roles: its publisher is the operator's user, and its
//! subject says for which key.

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

/// One message of a program's, unread.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The tenant, from the subject.
    pub tenant: TenantId,
    /// The key that published it, from the subject: the broker lets nobody else publish there.
    pub key: ApiKeyId,
    /// The queue, from the subject.
    pub lane: Lane,
    /// Whether it comes from DEAD, and so has been counted, and is kept, already.
    pub again: bool,
    /// The message.
    pub payload: Bytes,
    /// The operator's inbox, if it comes from DEAD.
    reply: Option<Subject>,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionAnswer {
    /// Accepted, now or before, or not.
    pub answer: Answer,
    /// Whether it had been accepted before.
    pub replayed: bool,
}

impl SubmissionAnswer {
    /// A refusal.
    pub const fn refused(refusal: Refusal) -> Self {
        Self {
            answer: Answer::Refused(refusal),
            replayed: false,
        }
    }
}

/// Submissions that an operator takes out of DEAD, for as long as this ingress listens.
#[derive(Debug)]
pub struct Resubmissions {
    subscription: Subscription,
}

impl Resubmissions {
    /// The next one; `None` once the connection is closed for good, or after the last one after
    /// [`Resubmissions::stop`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Submission> {
        loop {
            let message = self.subscription.next().await?;
            match Submission::again(message) {
                Ok(submission) => return Some(submission),
                Err(subject) => tracing::warn!(%subject, "an operator's message without ids"),
            }
        }
    }

    /// Takes no more: others get what comes from now on, and what was handed to this ingress before
    /// is still to be read.
    pub async fn stop(&mut self) {
        // Closed otherwise, and then there is nothing to come either.
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

    /// An operator's, or the subject that has another form.
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
    /// Takes what operators submit again, together with every other ingress.
    pub async fn resubmissions(&self) -> Result<Resubmissions, BusError> {
        let (consumer, subject) = (Consumer::Resubmissions, subjects::ALL_RESUBMISSIONS);
        let subscription = self.listen_in_group(consumer, subject, QUEUE).await?;
        Ok(Resubmissions { subscription })
    }

    /// Answers on the run's own subject, or on that of [`RunId::nil`] if it is not known which run it
    /// is about. An operator, who waits for an answer, is given it as well.
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
