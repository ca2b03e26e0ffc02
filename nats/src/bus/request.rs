//! Requests with a precise outcome: answered, refused, not sent, or unknown.

use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use serde::Deserialize;

use super::Bus;

/// A reason for having no answer to a request.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// There is no connection: nothing left the process.
    NotSent,
    /// It may have arrived, or may arrive later.
    Unknown,
    /// Nobody subscribes to the subject: it had no effect.
    NobodyThere,
    /// It is larger than the broker accepts.
    TooLarge(String),
}

/// A reason for which a stream did not store a message.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// No answer came.
    Unanswered(Unanswered),
    /// The stream refused it.
    Refused(ApiError),
}

/// A refusal by JetStream.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    /// Returns whether the append named another last message than the subject has.
    pub(crate) const fn is_wrong_last(&self) -> bool {
        matches!(self.err_code, 10071 | 10164)
    }

    /// Returns whether the stream, the account or the server is full.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self.err_code, 10077 | 10023 | 10028 | 10047)
    }

    /// Returns whether there is no such message.
    pub(crate) const fn is_no_message(&self) -> bool {
        self.err_code == 10037
    }

    /// Returns whether there is no such stream or consumer.
    pub(crate) const fn is_missing(&self) -> bool {
        matches!(self.err_code, 10059 | 10014)
    }
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

impl Bus {
    /// Sends a request and waits for its answer for five seconds, or until its connection is lost,
    /// because the answer cannot arrive after that.
    pub(crate) async fn request(
        &self,
        subject: Subject,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Unanswered> {
        if !self.is_connected() {
            return Err(Unanswered::NotSent);
        }
        let mut link = self.link();
        let lost_before = link.borrow_and_update().down;
        let mut request = Request::new().payload(payload);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        tokio::select! {
            biased;
            answer = self.client().send_request(subject, request) => answer.map_err(|error| {
                match error.kind() {
                    RequestErrorKind::NoResponders => Unanswered::NobodyThere,
                    RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                        Unanswered::TooLarge(error.to_string())
                    }
                    RequestErrorKind::TimedOut | RequestErrorKind::Other => Unanswered::Unknown,
                }
            }),
            _lost = link.wait_for(|link| link.down != lost_before) => Err(Unanswered::Unknown),
        }
    }

    /// Publishes to a stream, waits until the message is stored, and returns its sequence.
    pub(crate) async fn store(
        &self,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<u64, Rejected> {
        let answer = self
            .request(subject, Some(headers), payload)
            .await
            .map_err(Rejected::Unanswered)?;
        match serde_json::from_slice::<PubAck>(&answer.payload) {
            Ok(PubAck {
                error: Some(error), ..
            }) => Err(Rejected::Refused(error)),
            Ok(PubAck { seq, error: None }) if seq > 0 => Ok(seq),
            // Something other than a stream answered.
            _ => Err(Rejected::Unanswered(Unanswered::Unknown)),
        }
    }

    /// Returns the client if it is connected, so that writing to it does not wait.
    pub(crate) fn connected_client(&self) -> Option<&Client> {
        self.is_connected().then(|| self.client())
    }
}
