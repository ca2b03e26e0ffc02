//! Questions for a run's history: `history.<tenant>.<key>`. Programs cannot read the stream of
//! events itself, because permission to read it by subject would be permission to read all of it.

use baton_protocol::{ApiKeyId, BadMessage, EventId, HistoryMessage, RunId, TenantId};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::intake::Place;
use super::requests::Refusal;
use crate::bus::{Bus, BusError};
use crate::subjects;

/// The most bytes of events in one answer.
pub const MAX_PAGE_BYTES: usize = 448 << 10;

/// A question.
#[derive(Debug, Clone)]
pub struct HistoryQuestion {
    /// The tenant, from the subject.
    pub tenant: TenantId,
    /// The key that published it, from the subject: the broker lets no other key publish there.
    pub key: ApiKeyId,
    /// The question, or the error in it.
    pub message: Result<HistoryMessage, BadMessage>,
}

/// A part of a run's events.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// The events, each as it is stored.
    pub events: Vec<Bytes>,
    /// The cursor for the next question; none if no more events are stored.
    pub next_after: Option<EventId>,
    /// Whether the last event is the run's last.
    pub done: bool,
}

#[derive(Serialize)]
struct Page<'a> {
    v: u32,
    /// Null if it could not be read.
    run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    ok: bool,
    events: Vec<&'a RawValue>,
    next_after: Option<EventId>,
    done: bool,
}

#[derive(Serialize)]
struct Refused<'a> {
    v: u32,
    /// Null if it could not be read.
    run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    ok: bool,
    error: &'a Refusal,
}

/// Questions, for as long as this ingress listens.
#[derive(Debug)]
pub struct HistoryQuestions {
    heard: mpsc::Receiver<UnreadQuestion>,
}

/// A question in the queue. Its reader decodes it, so that the connection's task does not spend
/// time on it.
#[derive(Debug)]
pub(super) struct UnreadQuestion {
    pub(super) tenant: TenantId,
    pub(super) key: ApiKeyId,
    pub(super) payload: Bytes,
    pub(super) _place: Place,
}

impl HistoryQuestions {
    pub(super) fn new(heard: mpsc::Receiver<UnreadQuestion>) -> Self {
        Self { heard }
    }

    /// Returns the next question; `None` after the last one, once the connection was stopped.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<HistoryQuestion> {
        let unread = self.heard.recv().await?;
        Some(HistoryQuestion {
            tenant: unread.tenant,
            key: unread.key,
            message: HistoryMessage::decode(&unread.payload),
        })
    }
}

impl HistoryQuestion {
    /// Returns the run, if it can be read.
    pub fn run(&self) -> Option<RunId> {
        match &self.message {
            Ok(message) => Some(message.run_id),
            Err(bad) => bad.run_id,
        }
    }

    fn request_id(&self) -> Option<&str> {
        match &self.message {
            Ok(message) => message.request_id.as_deref(),
            Err(bad) => bad.request_id.as_deref(),
        }
    }
}

impl Bus {
    /// Answers on a subject of the run's own, or on that of [`RunId::nil`] if the run is unknown.
    pub async fn answer_history(
        &self,
        question: &HistoryQuestion,
        answer: &Result<HistoryPage, Refusal>,
    ) -> Result<(), BusError> {
        let run = question.run();
        let payload = encode(run, question.request_id(), answer);
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let subject = subjects::past(question.tenant, run.unwrap_or_else(RunId::nil));
        Ok(client.publish(subject, payload).await?)
    }
}

fn encode(
    run_id: Option<RunId>,
    request_id: Option<&str>,
    answer: &Result<HistoryPage, Refusal>,
) -> Bytes {
    // Strings, ids and JSON always serialise.
    match answer {
        Ok(page) => {
            let events = page.events.iter();
            let page = Page {
                v: 1,
                run_id,
                request_id,
                ok: true,
                // The caller has decoded every event, so none is dropped here.
                events: events
                    .filter_map(|line| serde_json::from_slice(line).ok())
                    .collect(),
                next_after: page.next_after,
                done: page.done,
            };
            serde_json::to_vec(&page).unwrap_or_default().into()
        }
        Err(error) => {
            let refused = Refused {
                v: 1,
                run_id,
                request_id,
                ok: false,
                error,
            };
            serde_json::to_vec(&refused).unwrap_or_default().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_events_as_they_are_stored() {
        let page = HistoryPage {
            events: vec![Bytes::from_static(br#"{"id":1,"b" :2}"#)],
            next_after: None,
            done: true,
        };
        let run = RunId::from_uuid(uuid::Uuid::nil());
        let text = String::from_utf8(encode(Some(run), None, &Ok(page)).to_vec()).unwrap();
        assert!(text.ends_with(r#""events":[{"id":1,"b" :2}],"next_after":null,"done":true}"#));
    }
}
