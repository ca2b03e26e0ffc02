//! Submissions: `submit.<tenant>.<lane>`, which programs reach as `jobs.<tenant>.<lane>`.
//!
//! A service and not a stream: what an ingress has answered is in the ledger, and what nobody has
//! answered is its program's to publish again, under the same run id. `resubmit.<tenant>.<lane>`,
//! which no program reaches, takes what an operator has looked at in DEAD.

use super::requests::{Answer, NoPublisher, Publisher, QUEUE, Refusal, Reply, visible};
use crate::bus::{Bus, BusError};
use crate::jobs::JobHeaders;
use crate::subjects;
use async_nats::{Message, Subject, Subscriber};
use baton_protocol::{Lane, RunId, TenantId};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{Select, select};

const VERB: &str = "submit";
const MAX_REQUEST_ID: usize = 128;

/// One message of a program's, unread.
#[derive(Debug, Clone)]
pub struct Submission {
    /// For whom, from the subject; or what is wrong with that.
    pub tenant: Result<TenantId, String>,
    /// In which queue, from the subject; or what is wrong with that.
    pub lane: Result<Lane, String>,
    /// Who published it, as the server says.
    pub publisher: Result<Publisher, NoPublisher>,
    /// Whether it comes from DEAD, and so has been counted, and is kept, already.
    pub again: bool,
    /// What travels beside it.
    pub headers: JobHeaders,
    /// The message.
    pub payload: Bytes,
    /// The subject that it came on, as it is kept in DEAD.
    pub(crate) subject: Subject,
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

/// What programs submit, for as long as this ingress listens.
#[derive(Debug)]
pub struct Submissions {
    subscriptions: Select<Subscriber, Subscriber>,
}

impl Submissions {
    /// The next one; `None` once the connection is closed for good, or behind the last one after
    /// [`Submissions::stop`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Submission> {
        Some(Submission::read(self.subscriptions.next().await?))
    }

    /// Takes no more: others get what comes from now on, and what was handed to this ingress before
    /// is still to be read.
    pub async fn stop(&mut self) {
        let (submitted, again) = self.subscriptions.get_mut();
        for subscription in [submitted, again] {
            // Closed otherwise, and then there is nothing to come either.
            if let Err(error) = subscription.drain().await {
                tracing::debug!(%error, "a subscription was not given up");
            }
        }
    }
}

impl Submission {
    fn read(message: Message) -> Self {
        let Message {
            subject,
            reply,
            payload,
            headers,
            ..
        } = message;
        let headers = headers.as_ref();
        let subjects::OfSubmission {
            tenant,
            lane,
            again,
        } = subjects::of_submission(&subject);
        Self {
            tenant,
            lane,
            publisher: if again {
                Publisher::vouched_for(headers)
            } else {
                Publisher::stamped(headers)
            },
            again,
            headers: JobHeaders {
                request_id: visible(headers, JobHeaders::REQUEST_ID, MAX_REQUEST_ID),
                ..JobHeaders::read(headers)
            },
            payload,
            subject: if again {
                subjects::before_resubmission(&subject)
            } else {
                subject
            },
            reply,
        }
    }

    /// The subject that it was published on, within Baton's account.
    pub fn subject(&self) -> &str {
        self.subject.as_str()
    }
}

impl Bus {
    /// Takes submissions, together with every other ingress.
    pub async fn submissions(&self) -> Result<Submissions, BusError> {
        let take = |subject| self.client().queue_subscribe(subject, QUEUE.to_owned());
        let submitted = take(subjects::ALL_SUBMISSIONS).await?;
        let again = take(subjects::ALL_RESUBMISSIONS).await?;
        Ok(Submissions {
            subscriptions: select(submitted, again),
        })
    }

    /// Answers on the run's own subject, or on that of [`RunId::nil`] if it is not known which run it
    /// is about. An operator, who waits for an answer, is given it as well.
    pub async fn answer_submission(
        &self,
        submission: &Submission,
        run: Option<RunId>,
        answer: &SubmissionAnswer,
    ) -> Result<(), BusError> {
        let request_id = submission.headers.request_id.as_deref();
        let reply = Reply {
            replayed: answer.replayed,
            ..Reply::new(VERB, run, request_id, &answer.answer)
        };
        let payload = reply.encode();
        if let Ok(tenant) = submission.tenant {
            let about = run.unwrap_or_else(RunId::nil);
            self.reply(tenant, about, payload.clone()).await?;
        }
        match &submission.reply {
            Some(inbox) if submission.again => {
                let client = self.connected_client().ok_or(BusError::Disconnected)?;
                Ok(client.publish(inbox.clone(), payload).await?)
            }
            _ => Ok(()),
        }
    }
}
