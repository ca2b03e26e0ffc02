//! Out of DEAD and back on its way, because somebody has mended what was wrong.

use async_nats::{HeaderMap, Subject, header};
use baton_protocol::TenantId;
use bytes::Bytes;

use super::PublishError;
use super::quarantine::DeadLetter;
use crate::bus::{Bus, Unanswered};
use crate::programs::intake::Address;
use crate::subjects;

/// What became of a message out of DEAD. Its copy there stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// An ingress took the submission, and answered so.
    Answered(Bytes),
    /// JOBS holds the job again, at this sequence.
    Stored(u64),
}

/// Why it is not on its way.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    /// It came on a subject that nobody takes anything from.
    #[error("nobody takes messages on `{0}`")]
    NoTaker(String),
    /// An older version has set it aside, which took the publisher's word for who that was.
    #[error(
        "its subject does not name the key that published it, as those of older versions do not: \
         have its program submit it again"
    )]
    NoPublisher,
    /// It was too long to be kept whole.
    #[error(
        "only the first {kept} of its {length} bytes are kept: have its program submit it again"
    )]
    Cut {
        /// Bytes in DEAD.
        kept: usize,
        /// Bytes that it had.
        length: u64,
    },
    /// No ingress is there to take it.
    #[error("no ingress is there to take it")]
    NoIngress,
    /// An ingress may have taken it, or may not: submitting it again does no harm.
    #[error("no ingress has answered")]
    NoAnswer,
    /// JOBS did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl DeadLetter {
    /// The tenant that it is for, if it was a submission.
    pub fn tenant(&self) -> Option<TenantId> {
        match subjects::of_submission(&self.subject)? {
            Address::Submission { tenant, .. } => Some(tenant),
            _ => None,
        }
    }
}

impl Bus {
    /// Puts a message out of DEAD on its way once more: a submission to an ingress, on behalf of
    /// the key that published it; a job to JOBS. Both are safe to repeat: a submission names its
    /// run, and so does a job.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<Replayed, NotReplayed> {
        if !letter.is_whole() {
            return Err(NotReplayed::Cut {
                kept: letter.payload.len(),
                length: letter.length,
            });
        }
        if letter.subject.starts_with("submit.") {
            let Some(Address::Submission { tenant, key, lane }) =
                subjects::of_submission(&letter.subject)
            else {
                return Err(NotReplayed::NoPublisher);
            };
            let subject = subjects::resubmissions(tenant, key, lane);
            return self.resubmit(subject, letter).await;
        }
        if let Some((tenant, lane)) = subjects::of_job(&letter.subject) {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::NATS_MESSAGE_ID,
                format!("{:032x}", rand::random::<u128>()),
            );
            let stored = self.store(
                subjects::jobs(tenant, lane),
                headers,
                letter.payload.clone(),
            );
            return Ok(Replayed::Stored(stored.await.map_err(PublishError::from)?));
        }
        Err(NotReplayed::NoTaker(letter.subject.clone()))
    }

    /// The operator's user is allowed to publish there, and the subject names the key: no word of
    /// the publisher is needed.
    async fn resubmit(
        &self,
        subject: Subject,
        letter: &DeadLetter,
    ) -> Result<Replayed, NotReplayed> {
        match self.request(subject, None, letter.payload.clone()).await {
            Ok(answer) => Ok(Replayed::Answered(answer.payload)),
            Err(Unanswered::NobodyThere) => Err(NotReplayed::NoIngress),
            Err(Unanswered::NotSent) => Err(PublishError::Disconnected.into()),
            Err(Unanswered::TooLarge(reason)) => Err(PublishError::Refused(reason).into()),
            Err(Unanswered::Unknown) => Err(NotReplayed::NoAnswer),
        }
    }
}
