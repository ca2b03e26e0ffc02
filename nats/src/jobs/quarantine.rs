//! Messages that are no jobs: kept, with the reason, and never delivered again.

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};

use super::PublishError;
use super::delivery::Delivery;
use crate::bus::Bus;
use crate::subjects;

const REASON: HeaderName = HeaderName::from_static("Baton-Reason");
const STREAM_SEQ: HeaderName = HeaderName::from_static("Baton-Job-Sequence");
const MAX_REASON: usize = 1_024;

impl Bus {
    /// Stores a copy of the delivery in DEAD with the reason, and waits until it is stored: its
    /// sequence there. Only then is the delivery to be acked. Repeating it stores no second copy
    /// within the duplicate window.
    pub async fn quarantine(&self, delivery: &Delivery, reason: &str) -> Result<u64, PublishError> {
        let mut headers = HeaderMap::new();
        // The same for each delivery of one message, and another for one that was given the same
        // sequence after the stream was lost.
        let id = format!(
            "{}-{}",
            delivery.stream_seq,
            delivery.stored_at.timestamp_nanos_opt().unwrap_or_default()
        );
        headers.insert(header::NATS_MESSAGE_ID, id);
        headers.insert(REASON, one_line(reason));
        headers.insert(STREAM_SEQ, HeaderValue::from(delivery.stream_seq));
        let subject = subjects::dead(&delivery.subject);
        Ok(self
            .store(subject, headers, delivery.payload.clone())
            .await?)
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
