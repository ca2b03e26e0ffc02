//! The quarantine: DEAD keeps messages that cannot be processed, with the reason, for an operator.

use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject, header};
use baton_protocol::{ApiKeyId, RunId};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::PublishError;
use super::delivery::Delivery;
use super::stranded::stored_at;
use crate::bus::Bus;
use crate::events::ReadError;
use crate::programs::submissions::Submission;
use crate::{streams, subjects};

const REASON: HeaderName = HeaderName::from_static("Baton-Reason");
const STREAM_SEQ: HeaderName = HeaderName::from_static("Baton-Job-Sequence");
const RUN: HeaderName = HeaderName::from_static("Baton-Run");
const LENGTH: HeaderName = HeaderName::from_static("Baton-Length");
const MAX_REASON: usize = 1_024;

/// The most bytes of a message that DEAD keeps, from its beginning.
pub const KEPT_OF_A_LETTER: usize = 64 << 10;

/// A message in DEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its sequence in DEAD.
    pub seq: u64,
    /// The time at which it was quarantined.
    pub stored_at: DateTime<Utc>,
    /// The subject that it arrived on.
    pub subject: String,
    /// The reason.
    pub reason: String,
    /// The API key that published it, if a program did. The subject proves it, because only
    /// ingresses may write there.
    pub publisher: Option<ApiKeyId>,
    /// The run that it names, if it could be read.
    pub run: Option<RunId>,
    /// The message itself, or its first [`KEPT_OF_A_LETTER`] bytes.
    pub payload: Bytes,
    /// The full length of the message in bytes.
    pub length: u64,
}

impl Bus {
    /// Stores a copy of the delivery in DEAD with the reason, and returns its sequence there.
    /// Settle the delivery only after this. A repeat within the duplicate window stores no second
    /// copy.
    pub async fn quarantine(&self, delivery: &Delivery, reason: &str) -> Result<u64, PublishError> {
        // The same id for each delivery of one message, and another id for a message that reuses
        // the sequence after the stream was lost.
        let id = format!(
            "{}-{}",
            delivery.stream_seq,
            delivery.stored_at.timestamp_nanos_opt().unwrap_or_default()
        );
        let (subject, payload) = (&delivery.subject, &delivery.payload);
        self.bury(subject, payload, delivery.stream_seq, id, reason, None)
            .await
    }

    /// Quarantines the job of a run that was given up. One copy is kept, however many messages name
    /// the run.
    pub async fn quarantine_run(
        &self,
        delivery: &Delivery,
        run: RunId,
        reason: &str,
    ) -> Result<u64, PublishError> {
        let id = format!("{}-{run}", delivery.tenant);
        let (subject, payload) = (&delivery.subject, &delivery.payload);
        self.bury(subject, payload, delivery.stream_seq, id, reason, Some(run))
            .await
    }

    pub(super) async fn bury(
        &self,
        subject: &Subject,
        payload: &Bytes,
        stream_seq: u64,
        id: String,
        reason: &str,
        run: Option<RunId>,
    ) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        headers.insert(REASON, one_line(reason));
        headers.insert(STREAM_SEQ, HeaderValue::from(stream_seq));
        if let Some(run) = run {
            headers.insert(RUN, run.to_string());
        }
        self.store_letter(subjects::dead(subject), headers, payload)
            .await
    }

    /// Stores a copy of a program's message that is no submission, with the reason.
    pub async fn quarantine_submission(
        &self,
        submission: &Submission,
        run: Option<RunId>,
        reason: &str,
    ) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::NATS_MESSAGE_ID,
            format!("{:032x}", rand::random::<u128>()),
        );
        headers.insert(REASON, one_line(reason));
        if let Some(run) = run {
            headers.insert(RUN, run.to_string());
        }
        let (tenant, key, lane) = (submission.tenant, submission.key, submission.lane);
        let subject = subjects::dead_submission(tenant, key, lane);
        self.store_letter(subject, headers, &submission.payload)
            .await
    }

    /// Stores a letter. Of a long one it stores the beginning and the length, so that one publisher
    /// does not displace the letters of others.
    async fn store_letter(
        &self,
        subject: Subject,
        mut headers: HeaderMap,
        payload: &Bytes,
    ) -> Result<u64, PublishError> {
        headers.insert(LENGTH, payload.len().to_string());
        let kept = payload.slice(..payload.len().min(KEPT_OF_A_LETTER));
        Ok(self.store(subject, headers, kept).await?)
    }

    /// Returns the first message in DEAD with a sequence of at least `seq`.
    pub async fn dead_letter(&self, seq: u64) -> Result<Option<DeadLetter>, ReadError> {
        let found = self.first_stored(streams::DEAD, ">", seq).await?;
        Ok(found.map(DeadLetter::read))
    }
}

impl DeadLetter {
    /// Returns whether the whole message was kept.
    pub fn is_whole(&self) -> bool {
        self.payload.len() as u64 >= self.length
    }

    fn read(message: StreamMessage) -> Self {
        let header = |name: HeaderName| message.headers.get(name).map(HeaderValue::as_str);
        let subject = message.subject.as_str();
        Self {
            seq: message.sequence,
            stored_at: stored_at(&message),
            subject: subjects::before_dead(subject).to_owned(),
            reason: header(REASON).unwrap_or_default().to_owned(),
            publisher: subjects::of_submission(subjects::before_dead(subject))
                .map(|address| address.key()),
            run: header(RUN).and_then(|run| run.parse().ok()),
            // Older versions kept the whole message and stored no length.
            length: header(LENGTH)
                .and_then(|length| length.parse().ok())
                .unwrap_or(message.payload.len() as u64),
            payload: message.payload,
        }
    }
}

fn one_line(reason: &str) -> String {
    let cut = reason.floor_char_boundary(MAX_REASON);
    reason[..cut].replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_header() {
        assert_eq!(one_line("a\r\nb"), "a  b");
        assert_eq!(one_line(&"ü".repeat(1_000)).len(), MAX_REASON);
    }
}
