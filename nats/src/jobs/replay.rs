//! Out of DEAD and back on its way, because somebody has mended what was wrong.

use async_nats::{HeaderMap, header};
use baton_protocol::{Lane, TenantId};
use bytes::Bytes;

use super::PublishError;
use super::quarantine::DeadLetter;
use crate::bus::{Bus, Unanswered};
use crate::programs::requests::PUBLISHER;
use crate::subjects::{self, OfSubmission};

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
    /// Whoever published it is not known: on whose behalf would it be submitted?
    #[error("nobody is known to have published it")]
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
    /// For whom it is.
    pub fn tenant(&self) -> Option<TenantId> {
        subjects::of_submission(&self.subject).tenant.ok()
    }
}

impl Bus {
    /// Puts a message out of DEAD on its way once more: a submission to an ingress, on behalf of
    /// whoever published it; a job to JOBS. Both are safe to repeat: a submission names its run, and
    /// so does a job.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<Replayed, NotReplayed> {
        if !letter.is_whole() {
            return Err(NotReplayed::Cut {
                kept: letter.payload.len(),
                length: letter.length,
            });
        }
        if letter.subject.starts_with("submit.")
            && let OfSubmission {
                tenant: Ok(tenant),
                lane: Ok(lane),
                ..
            } = subjects::of_submission(&letter.subject)
        {
            return self.resubmit(tenant, lane, letter).await;
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

    async fn resubmit(
        &self,
        tenant: TenantId,
        lane: Lane,
        letter: &DeadLetter,
    ) -> Result<Replayed, NotReplayed> {
        let publisher = letter
            .publisher
            .as_deref()
            .ok_or(NotReplayed::NoPublisher)?;
        let mut headers = HeaderMap::new();
        headers.insert(PUBLISHER, publisher);
        let subject = subjects::resubmissions(tenant, lane);
        match self
            .request(subject, Some(headers), letter.payload.clone())
            .await
        {
            Ok(answer) => Ok(Replayed::Answered(answer.payload)),
            Err(Unanswered::NobodyThere) => Err(NotReplayed::NoIngress),
            Err(Unanswered::NotSent) => Err(PublishError::Disconnected.into()),
            Err(Unanswered::TooLarge(reason)) => Err(PublishError::Refused(reason).into()),
            Err(Unanswered::Unknown) => Err(NotReplayed::NoAnswer),
        }
    }
}
