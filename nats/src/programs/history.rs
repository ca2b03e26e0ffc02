//! Questions for a run's history: `history.<tenant>.<run>`. The stream of events itself is open to no
//! program: whoever may read it by subject may read all of it.

use async_nats::{Message, Subscriber};
use baton_protocol::{EventId, RunId, TenantId};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::requests::{NoPublisher, Publisher, QUEUE, Refusal};
use crate::bus::{Bus, BusError};
use crate::subjects;

/// The most that the events of one answer may be, in bytes.
pub const MAX_PAGE_BYTES: usize = 448 << 10;
/// The longest `request_id`, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// The most events of one answer, and how many if nothing is said.
pub const MAX_PAGE: usize = 1_000;

/// A question.
#[derive(Debug, Clone)]
pub struct HistoryQuestion {
    /// From the subject.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// Who asks, as the server says.
    pub publisher: Result<Publisher, NoPublisher>,
    /// What is asked for, or why it cannot be read.
    pub wanted: Result<Wanted, String>,
    /// The asker's own word for it, repeated in the answer.
    request_id: Option<String>,
}

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Those behind this one.
    pub after: EventId,
    /// So many at most; at least one.
    pub limit: usize,
}

/// A part of a run's events.
#[derive(Debug, Default)]
pub struct HistoryPage {
    /// The events, each as it is stored.
    pub events: Vec<Bytes>,
    /// What to ask for next; none if no more are stored.
    pub next_after: Option<EventId>,
    /// Whether the last event is the run's last.
    pub done: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    after: Option<EventId>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    request_id: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    v: u32,
    run_id: RunId,
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
    run_id: RunId,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    ok: bool,
    error: &'a Refusal,
}

/// Questions, for as long as this ingress listens.
#[derive(Debug)]
pub struct HistoryQuestions {
    subscription: Subscriber,
}

impl HistoryQuestions {
    /// The next question; `None` once the connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<HistoryQuestion> {
        loop {
            let message = self.subscription.next().await?;
            if let Some(question) = read(&message) {
                return Some(question);
            }
            tracing::debug!("a question for history that names no run");
        }
    }
}

impl Bus {
    /// Takes questions for history, together with every other ingress.
    pub async fn history_questions(&self) -> Result<HistoryQuestions, BusError> {
        let subscription = self
            .client()
            .queue_subscribe(subjects::ALL_HISTORY, QUEUE.to_owned())
            .await?;
        Ok(HistoryQuestions { subscription })
    }

    /// Answers a question, on a subject of the run's own.
    pub async fn answer_history(
        &self,
        question: &HistoryQuestion,
        answer: &Result<HistoryPage, Refusal>,
    ) -> Result<(), BusError> {
        let payload = encode(question.run, question.request_id.as_deref(), answer);
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let subject = subjects::past(question.tenant, question.run);
        Ok(client.publish(subject, payload).await?)
    }
}

fn encode(run_id: RunId, request_id: Option<&str>, answer: &Result<HistoryPage, Refusal>) -> Bytes {
    // Strings, ids and JSON always serialise.
    match answer {
        Ok(page) => {
            let events = page.events.iter();
            let page = Page {
                v: 1,
                run_id,
                request_id,
                ok: true,
                // Every event has been read once on its way here.
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

/// `None` if there is no run to answer about.
fn read(message: &Message) -> Option<HistoryQuestion> {
    let (tenant, run) = subjects::of_history(&message.subject)?;
    let (wanted, request_id) = wanted(&message.payload);
    Some(HistoryQuestion {
        tenant,
        run,
        publisher: Publisher::stamped(message.headers.as_ref()),
        wanted,
        request_id,
    })
}

fn wanted(payload: &[u8]) -> (Result<Wanted, String>, Option<String>) {
    let question = if payload.is_empty() {
        Ok(Question::default())
    } else {
        serde_json::from_slice(payload)
    };
    let question = match question {
        Ok(question) => question,
        Err(error) => {
            let shape =
                "{\"after\"?: an event's id, \"limit\"?: a number, \"request_id\"?: a text}";
            return (Err(format!("a question is {shape}: {error}")), None);
        }
    };
    let Question {
        after,
        limit,
        request_id,
    } = question;
    if request_id
        .as_ref()
        .is_some_and(|id| id.len() > MAX_REQUEST_ID)
    {
        let wrong = format!("`request_id` may be at most {MAX_REQUEST_ID} bytes long");
        return (Err(wrong), None);
    }
    let wanted = match limit.unwrap_or(MAX_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(Wanted {
            after: after.unwrap_or(EventId::ORIGIN),
            limit,
        }),
        _ => Err(format!("`limit` is 1 to {MAX_PAGE}")),
    };
    (wanted, request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_documented() {
        let from_start = Wanted {
            after: EventId::ORIGIN,
            limit: MAX_PAGE,
        };
        assert_eq!(wanted(b""), (Ok(from_start), None));
        assert_eq!(wanted(b"{}"), (Ok(from_start), None));
        let behind = Wanted {
            after: EventId::from_u64(7),
            limit: 2,
        };
        let question = br#"{"after":7,"limit":2,"request_id":"mine"}"#;
        assert_eq!(wanted(question), (Ok(behind), Some("mine".to_owned())));
        for bad in ["x", r#"{"limit":0}"#, r#"{"limit":1001}"#, r#"{"from":1}"#] {
            assert!(wanted(bad.as_bytes()).0.is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_carries_events_as_they_are_stored() {
        let page = HistoryPage {
            events: vec![Bytes::from_static(br#"{"id":1,"b" :2}"#)],
            next_after: None,
            done: true,
        };
        let run = RunId::from_uuid(uuid::Uuid::nil());
        let text = String::from_utf8(encode(run, None, &Ok(page)).to_vec()).unwrap();
        assert!(text.ends_with(r#""events":[{"id":1,"b" :2}],"next_after":null,"done":true}"#));
    }
}
