//! What was admitted lately, for whoever is limited: one message each in the stream LIMITS, replaced
//! by compare-and-set, which is what makes a decision of one process a decision of all.
//!
//! A counter (`Nats-Incr`) would be one round trip as well, but it adds without asking: what exceeds
//! the limit is known only afterwards and has to be taken back, and until then it takes the place of
//! what should have been admitted. What the messages hold is their readers' affair.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::Bytes;

use crate::bus::Bus;
use crate::events::read::if_any;
use crate::events::{AppendError, ReadError, StreamSeq};
use crate::limited::Limited;
use crate::{streams, subjects};

/// A log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRateLog {
    /// Where it is stored: what replaces it names this.
    pub seq: StreamSeq,
    /// What was stored.
    pub payload: Bytes,
}

impl Bus {
    /// The newest log, from the stream's leader; nothing if there was none, or none any more.
    pub async fn rate_log(&self, of: Limited) -> Result<Option<StoredRateLog>, ReadError> {
        if !self.is_connected() {
            return Err(ReadError::Disconnected);
        }
        let stream = self
            .jetstream()
            .get_stream_no_info(streams::LIMITS)
            .await
            .map_err(|error| ReadError::Refused(error.to_string()))?;
        let subject = subjects::rate_log(of);
        let last = stream.get_last_raw_message_by_subject(&subject).await;
        let Some(message) = if_any(last)? else {
            return Ok(None);
        };
        self.expect_stored(&subject, &message.subject)?;
        Ok(Some(StoredRateLog {
            seq: StreamSeq::from_u64(message.sequence),
            payload: message.payload,
        }))
    }

    /// Stores a log in the place of the one at `expected` ([`StreamSeq::NONE`]: of none), for `keep`,
    /// at least a second. [`AppendError::WrongLast`] means that somebody else was faster.
    pub async fn replace_rate_log(
        &self,
        of: Limited,
        expected: StreamSeq,
        keep: Duration,
        payload: Bytes,
    ) -> Result<StreamSeq, AppendError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.as_u64().to_string(),
        );
        headers.insert(header::NATS_MESSAGE_TTL, keep.as_secs().max(1).to_string());
        let stored = self.store(subjects::rate_log(of), headers, payload).await?;
        Ok(StreamSeq::from_u64(stored))
    }
}
