//! Reading stored events back: the tip, and pages of the log.

use std::time::Duration;

use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind};
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode, header};
use baton_protocol::{RunId, TenantId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::time::timeout;

use super::{END_UNBROKEN, ReadError, StoredEvents, StreamSeq};
use crate::bus::Bus;
use crate::foreign::Consumer;
use crate::streams;
use crate::subjects::{self, api};
use crate::subscription::covers;

/// The most messages of one request: a page of them takes about three milliseconds.
const PAGE: usize = 256;
/// The most bytes of one request; direct get has no other flow control.
const PAGE_BYTES: usize = 1 << 20;
/// The longest time until the next message of a page.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The status that ends a page: `StatusCode` has no name for it.
const END_OF_PAGE: u16 = 204;
const PENDING: HeaderName = HeaderName::from_static("Nats-Num-Pending");

/// The state of EVENTS at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsState {
    /// The time at which the broker made the stream; it identifies the stream.
    pub created_at: DateTime<Utc>,
    /// The position of the last message. A stream restored from an older copy uses later numbers
    /// again.
    pub last_seq: u64,
}

#[derive(Deserialize)]
struct StreamInfo {
    created: DateTime<Utc>,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: u64,
}

/// A part of a run's log.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// In the order of the log.
    pub(crate) messages: Vec<StoredEvents>,
    /// The number of stored messages after them.
    pub(crate) remaining: u64,
}

impl Page {
    /// Returns the position to read on from; `None` at the end.
    pub(crate) fn next(&self) -> Option<StreamSeq> {
        let last = self.messages.last().filter(|_| self.remaining > 0)?;
        Some(StreamSeq(last.seq.0 + 1))
    }
}

/// Reads the leader's answer to a request for one message; `None` if there is no such message.
pub(crate) fn if_any<T>(answer: Result<T, RawMessageError>) -> Result<Option<T>, ReadError> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(error) if error.error_code().0 == 10059 => {
                Err(ReadError::NoStream)
            }
            RawMessageErrorKind::JetStream(error) => Err(ReadError::Refused(error.to_string())),
            RawMessageErrorKind::InvalidSubject => Err(ReadError::Refused(error.to_string())),
            RawMessageErrorKind::Other => Err(ReadError::NoAnswer),
        },
    }
}

impl Bus {
    /// Refuses a stored message that is not on the requested subject.
    pub(crate) fn expect_stored(&self, asked: &str, stored: &str) -> Result<(), ReadError> {
        if covers(asked, stored) {
            return Ok(());
        }
        self.foreign().drop_message(Consumer::Log, stored);
        let wrong = format!("a message on another subject than `{asked}`");
        Err(ReadError::Unreadable(wrong))
    }

    /// Returns the state of EVENTS at this moment. Costs one request.
    pub async fn events_state(&self) -> Result<EventsState, ReadError> {
        let info: StreamInfo = self
            .ask(api::EVENTS_INFO.into(), bytes::Bytes::new())
            .await?;
        Ok(EventsState {
            created_at: info.created,
            last_seq: info.state.last_seq,
        })
    }

    /// Returns the number of messages in a run's log.
    pub async fn count_events(&self, tenant: TenantId, run: RunId) -> Result<u64, ReadError> {
        let page = self.read_page(tenant, run, StreamSeq::NONE, 1).await?;
        Ok(page.messages.len() as u64 + page.remaining)
    }

    /// Returns the last message of a run's log from the stream's leader. Appends must compare with
    /// this one, because replicas lag.
    pub async fn event_tip(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Option<StoredEvents>, ReadError> {
        if !self.is_connected() {
            return Err(ReadError::Disconnected);
        }
        let stream = self
            .jetstream()
            .get_stream_no_info(streams::EVENTS)
            .await
            .map_err(|error| ReadError::Refused(error.to_string()))?;
        let subject = subjects::events(tenant, run);
        let tip = stream.get_last_raw_message_by_subject(&subject).await;
        let Some(message) = if_any(tip)? else {
            return Ok(None);
        };
        self.expect_stored(&subject, &message.subject)?;
        Ok(Some(StoredEvents {
            seq: StreamSeq(message.sequence),
            payload: message.payload,
        }))
    }

    /// Returns the last message of a run's log from any replica: cheap, but possibly outdated.
    pub async fn event_tip_direct(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Option<StoredEvents>, ReadError> {
        let subject = api::direct_get_tip(tenant, run);
        let message = self.request(subject, None, bytes::Bytes::new()).await?;
        match message.status {
            None => {
                self.expect_stored(&subjects::events(tenant, run), stored_subject(&message))?;
                Ok(Some(StoredEvents {
                    seq: sequence(&message)?,
                    payload: message.payload,
                }))
            }
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(_) => Err(refused(&message)),
        }
    }

    /// Returns whether the log is known to have its end and to be unbroken, see
    /// [`EventLines`](super::EventLines).
    pub async fn ends_unbroken(&self, tenant: TenantId, run: RunId) -> Result<bool, ReadError> {
        let subject = api::direct_get_tip(tenant, run);
        let message = self.request(subject, None, bytes::Bytes::new()).await?;
        Ok(message.status.is_none()
            && covers(&subjects::events(tenant, run), stored_subject(&message))
            && message
                .headers
                .is_some_and(|headers| headers.get(END_UNBROKEN).is_some()))
    }

    /// Returns up to `max` messages of a run's log from any replica, beginning at position `from`.
    /// Fewer than `max` means that there were no more.
    pub async fn read_events(
        &self,
        tenant: TenantId,
        run: RunId,
        from: StreamSeq,
        max: usize,
    ) -> Result<Vec<StoredEvents>, ReadError> {
        let mut read = Vec::new();
        let mut from = from;
        while read.len() < max {
            let page = self.read_page(tenant, run, from, max - read.len()).await?;
            let next = page.next();
            read.extend(page.messages);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(read)
    }

    /// Reads one page, which is shorter than `max` if it reaches the page's limits.
    pub(crate) async fn read_page(
        &self,
        tenant: TenantId,
        run: RunId,
        from: StreamSeq,
        max: usize,
    ) -> Result<Page, ReadError> {
        let client = self.connected_client().ok_or(ReadError::Disconnected)?;
        let mut link = self.link();
        let lost_before = link.borrow_and_update().down;
        let inbox = client.new_inbox();
        let mut answers = self
            .listen(Consumer::Log, inbox.clone())
            .await
            .map_err(|_closed| ReadError::Disconnected)?;
        let subject = subjects::events(tenant, run);
        let request = format!(
            r#"{{"batch":{},"max_bytes":{PAGE_BYTES},"seq":{},"next_by_subj":"{}"}}"#,
            // One place is for the message that ends the page.
            max.min(PAGE)
                .min(self.subscription_capacity().saturating_sub(1))
                .max(1),
            from.0.max(1),
            subject.as_str(),
        );
        client
            .publish_with_reply(api::DIRECT_GET_EVENTS, inbox, request.into())
            .await
            .map_err(|_closed| ReadError::Disconnected)?;

        let mut page = Page::default();
        loop {
            let answer = tokio::select! {
                biased;
                answer = timeout(MESSAGE_TIMEOUT, answers.next()) => answer,
                _lost = link.wait_for(|link| link.down != lost_before) => Ok(None),
            };
            let Ok(Some(message)) = answer else {
                return Err(ReadError::NoAnswer);
            };
            // Within a page each message names the one before it (zero for the first), and the end
            // names the last, so a lost one shows.
            let complete = |headers: Option<&HeaderMap>| {
                let before = page
                    .messages
                    .last()
                    .map_or(0, |last: &StoredEvents| last.seq.0);
                number(headers, header::NATS_LAST_SEQUENCE) == Some(before)
            };
            match message.status.map(|status| status.as_u16()) {
                None if complete(message.headers.as_ref()) => {
                    self.expect_stored(&subject, stored_subject(&message))?;
                    let seq = sequence(&message)?;
                    page.messages.push(StoredEvents {
                        seq,
                        payload: message.payload,
                    });
                }
                Some(END_OF_PAGE) if complete(message.headers.as_ref()) => {
                    page.remaining = number(message.headers.as_ref(), PENDING).unwrap_or(0);
                    return Ok(page);
                }
                None | Some(END_OF_PAGE) => return Err(ReadError::NoAnswer),
                Some(404) => return Ok(page),
                Some(503) => return Err(ReadError::NoStream),
                Some(_) => return Err(refused(&message)),
            }
        }
    }
}

/// Returns the subject that a stored message was published on, from its headers.
fn stored_subject(message: &Message) -> &str {
    let headers = message.headers.as_ref();
    headers
        .and_then(|headers| headers.get(header::NATS_SUBJECT))
        .map_or("", HeaderValue::as_str)
}

/// Returns the position of a stored message, from its headers.
pub(super) fn sequence(message: &Message) -> Result<StreamSeq, ReadError> {
    number(message.headers.as_ref(), header::NATS_SEQUENCE)
        .map(StreamSeq)
        .ok_or_else(|| ReadError::Unreadable("a stored message without its sequence".into()))
}

fn number(headers: Option<&HeaderMap>, name: HeaderName) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}

fn refused(message: &Message) -> ReadError {
    ReadError::Refused(message.description.clone().unwrap_or_default())
}
