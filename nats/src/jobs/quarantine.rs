//! Messages that nobody can work on: kept in DEAD with the reason, for an operator to look at.

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
    /// Its place in DEAD.
    pub seq: u64,
    /// When it was set aside.
    pub stored_at: DateTime<Utc>,
    /// The subject that it came on.
    pub subject: String,
    /// Why nobody can work on it.
    pub reason: String,
    /// The API key that published it, if it was a program: the subject says so, and the broker lets
    /// ingresses alone write there.
    pub publisher: Option<ApiKeyId>,
    /// The run that it names, if it could be read.
    pub run: Option<RunId>,
    /// The message itself, or its first [`KEPT_OF_A_LETTER`] bytes.
    pub payload: Bytes,
    /// The number of bytes that the message had.
    pub length: u64,
}

impl Bus {
    /// Stores a copy of the delivery in DEAD with the reason, and waits until it is stored: its
    /// sequence there. Only then is the delivery to be settled. Repeating it stores no second copy
    /// within the duplicate window.
    pub async fn quarantine(&self, delivery: &Delivery, reason: &str) -> Result<u64, PublishError> {
        // The same for each delivery of one message, and another for one that was given the same
        // sequence after the stream was lost.
        let id = format!(
            "{}-{}",
            delivery.stream_seq,
            delivery.stored_at.timestamp_nanos_opt().unwrap_or_default()
        );
        let (subject, payload) = (&delivery.subject, &delivery.payload);
        self.bury(subject, payload, delivery.stream_seq, id, reason, None)
            .await
    }

    /// As [`Bus::quarantine`], for the job of a run that was given up: however many messages name
    /// the run, one copy is kept.
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

    /// Keeps a copy of what a program submitted and nobody can take, with the reason.
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

    /// Stores a letter, of a long one its beginning and its length: one publisher must not push out
    /// what others have left there.
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

    /// The first message in DEAD whose sequence is at least `seq`.
    pub async fn dead_letter(&self, seq: u64) -> Result<Option<DeadLetter>, ReadError> {
        let found = self.first_stored(streams::DEAD, ">", seq).await?;
        Ok(found.map(DeadLetter::read))
    }
}

impl DeadLetter {
    /// Whether the whole message was kept.
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
            // Older versions kept the whole of it.
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
