//! Resubmits messages from DEAD once an operator has mended the cause.

use async_nats::{HeaderMap, Subject, header};
use baton_protocol::TenantId;
use bytes::Bytes;

use super::PublishError;
use super::quarantine::DeadLetter;
use crate::bus::{Bus, Unanswered};
use crate::programs::intake::Address;
use crate::subjects;

/// The outcome for a message out of DEAD. Its copy there stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// An ingress took the submission and gave this answer.
    Answered(Bytes),
    /// JOBS holds the job again at this sequence.
    Stored(u64),
}

/// A reason for which the message was not resubmitted.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    /// Nothing takes messages on its subject.
    #[error("nobody takes messages on `{0}`")]
    NoTaker(String),
    /// An older version quarantined it, which did not verify the publisher.
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
    /// No ingress is running.
    #[error("no ingress is there to take it")]
    NoIngress,
    /// An ingress may have taken it: submitting it again does no harm.
    #[error("no ingress has answered")]
    NoAnswer,
    /// JOBS did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl DeadLetter {
    /// Returns its tenant, if it was a submission.
    pub fn tenant(&self) -> Option<TenantId> {
        match subjects::of_submission(&self.subject)? {
            Address::Submission { tenant, .. } => Some(tenant),
            _ => None,
        }
    }
}

impl Bus {
    /// Resubmits a message from DEAD: a submission to an ingress, for the key that published it; a
    /// job to JOBS. Both are safe to repeat, because each names its run.
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

    /// Publishes on a subject that names the key. Only the operator's user may publish there, so
    /// the message needs no further proof.
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
