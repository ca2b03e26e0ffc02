//! Submissions: `submit.<tenant>.<lane>`, which programs reach as `jobs.<tenant>.<lane>`.
//!
//! A service and not a stream: what an ingress has answered is in the ledger, and what nobody has
//! answered is its program's to publish again, under the same run id. `resubmit.<tenant>.<lane>`,
//! which no program reaches, takes what an operator has looked at in DEAD.

use async_nats::{Message, Subject, Subscriber};
use baton_protocol::{Lane, RunId, TenantId};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{Select, select};
use serde::Serialize;

use super::{Answer, NoPublisher, Publisher, QUEUE, Refusal, Reply, visible};
use crate::bus::{Bus, BusError};
use crate::jobs::JobHeaders;
use crate::{streams, subjects};

const VERB: &str = "submit";
const MAX_REQUEST_ID: usize = 128;
/// Added to the HTTP status of a refusal: the broker's own codes are five digits that begin with 1.
const ERR_CODE: u32 = 60_000;

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
    /// Where the run's job is stored; nothing if it is not known to be, or was not published now.
    pub job: Option<u64>,
}

impl SubmissionAnswer {
    /// A refusal.
    pub const fn refused(refusal: Refusal) -> Self {
        Self {
            answer: Answer::Refused(refusal),
            replayed: false,
            job: None,
        }
    }
}

/// What JetStream's clients take for the answer of a stream, with ours around it.
#[derive(Serialize)]
struct Receipt<'a> {
    #[serde(flatten)]
    jetstream: JetStream,
    #[serde(flatten)]
    reply: Reply<'a>,
    /// The refusal, word for word: `error` is the broker's shape, which has no place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a Refusal>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JetStream {
    Stored {
        stream: &'static str,
        seq: u64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    Refused {
        error: StreamError,
    },
}

#[derive(Serialize)]
struct StreamError {
    code: u16,
    err_code: u32,
    description: String,
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

    /// Answers: on the run's own subject, if the run is known, and where the publisher waits, if it
    /// does. There the answer is also what JetStream's clients expect of a stream.
    pub async fn answer_submission(
        &self,
        submission: &Submission,
        run: Option<RunId>,
        answer: &SubmissionAnswer,
    ) -> Result<(), BusError> {
        let request_id = submission.headers.request_id.as_deref();
        let reply = Reply::new(VERB, run, request_id, &answer.answer);
        if let (Ok(tenant), Some(run)) = (&submission.tenant, run) {
            self.reply(*tenant, run, reply.encode()).await?;
        }
        let receipt = receipt(reply, answer);
        self.reply_to_inbox(submission.reply.as_ref(), receipt)
            .await
    }
}

fn receipt(reply: Reply<'_>, answer: &SubmissionAnswer) -> Bytes {
    let (jetstream, refusal) = match &answer.answer {
        Answer::Done { .. } => {
            let stored = JetStream::Stored {
                stream: streams::JOBS,
                seq: answer.job.unwrap_or_default(),
                duplicate: answer.replayed,
            };
            (stored, None)
        }
        Answer::Refused(refusal) => {
            let error = StreamError {
                code: refusal.status,
                err_code: ERR_CODE + u32::from(refusal.status),
                description: format!("{}: {}", refusal.code, refusal.message),
            };
            (JetStream::Refused { error }, Some(refusal))
        }
    };
    let receipt = Receipt {
        jetstream,
        reply: Reply {
            error: None,
            ..reply
        },
        refusal,
    };
    // Strings, ids and names always serialise.
    serde_json::to_vec(&receipt).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use baton_protocol::RunStatus;
    use serde_json::{Value, json};

    use super::*;

    fn receipt_of(answer: &SubmissionAnswer) -> Value {
        let run = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let reply = Reply::new(VERB, Some(run), Some("mine"), &answer.answer);
        serde_json::from_slice(&receipt(reply, answer)).unwrap()
    }

    #[test]
    fn a_receipt_is_what_a_stream_would_answer_and_more() {
        let accepted = SubmissionAnswer {
            answer: Answer::Done {
                status: RunStatus::Queued,
            },
            replayed: false,
            job: Some(7),
        };
        assert_eq!(
            receipt_of(&accepted),
            json!({
                "stream": "JOBS", "seq": 7, "v": 1, "verb": "submit", "ok": true,
                "run_id": "01890a5d-ac96-774b-bcce-b302099a8057", "request_id": "mine",
                "status": "queued",
            })
        );
        let again = SubmissionAnswer {
            replayed: true,
            job: None,
            ..accepted
        };
        assert_eq!(receipt_of(&again)["duplicate"], true);
        let refused = receipt_of(&SubmissionAnswer::refused(Refusal {
            status: 429,
            code: "rate_limited".into(),
            message: "slower".into(),
            param: None,
            retry_after: Some(3),
        }));
        assert_eq!(
            refused["error"],
            json!({"code": 429, "err_code": 60_429, "description": "rate_limited: slower"})
        );
        assert_eq!(
            refused["refusal"],
            json!({"code": "rate_limited", "message": "slower", "retry_after": 3})
        );
        assert_eq!(
            (&refused["ok"], &refused["stream"]),
            (&json!(false), &Value::Null)
        );
    }
}
