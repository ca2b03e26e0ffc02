//! The recent admissions of each rate limit's subject: one message each in the stream LIMITS.
//! Replacing it by compare-and-set makes one process's decision hold for all.
//!
//! A counter (`Nats-Incr`) would also be one round trip, but it adds without checking. An excess
//! shows only afterwards, must be taken back, and until then occupies the place of admissible
//! requests. The readers of the messages define their content.

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
    /// Its position, which a replacement names.
    pub seq: StreamSeq,
    /// Its content.
    pub payload: Bytes,
}

impl Bus {
    /// Returns the newest log from the stream's leader, or `None` if the stream has no log of it.
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

    /// Stores a log in place of the one at `expected` ([`StreamSeq::NONE`] for none), for `keep`,
    /// at least a second. [`AppendError::WrongLast`] means that another process was faster.
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
