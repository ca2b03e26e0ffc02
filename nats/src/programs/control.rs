//! What programs ask for over the bus: `control.<tenant>.<run>.<verb>`, taken by one ingress of all.
//!
//! Core NATS: a request that nobody takes is lost, and its asker, without an answer, asks again.
//! Answers go to `replies.<tenant>.<run>`.

use async_nats::{Message, Subscriber};
use baton_protocol::{ApprovalId, Decision, RunId, TenantId};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::requests::{Answer, NoPublisher, Publisher, QUEUE, Reply};
use crate::bus::{Bus, BusError};
use crate::subjects;

/// The longest reason of a cancel, and the longest `request_id`, in bytes.
const MAX_REASON: usize = 1024;
const MAX_REQUEST_ID: usize = 128;

/// One request.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// From the subject: who may publish there is the broker's to check.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// What is asked for, or why it cannot be read.
    pub verb: Result<ControlVerb, String>,
    /// The last token of the subject.
    name: String,
    /// Who asks, as the server says.
    pub publisher: Result<Publisher, NoPublisher>,
    /// The asker's own word for it, repeated in the answer.
    pub request_id: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlVerb {
    /// `cancel`, with nothing or `{"reason"?, "request_id"?}`.
    Cancel {
        /// Why.
        reason: Option<String>,
    },
    /// `decide`, with `{"approval_id", "decision", …, "request_id"?}`.
    Decide {
        /// The question.
        approval: ApprovalId,
        /// The decision.
        decision: Decision,
    },
}

/// What programs ask for, for as long as this ingress listens.
#[derive(Debug)]
pub struct ControlRequests {
    subscription: Subscriber,
}

impl ControlRequests {
    /// The next request; `None` once the connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<ControlRequest> {
        loop {
            let message = self.subscription.next().await?;
            if let Some(request) = read(&message) {
                return Some(request);
            }
            // There is no run to answer for.
            tracing::warn!(subject = %message.subject, "a control subject without ids");
        }
    }
}

impl Bus {
    /// Takes requests, together with every other ingress.
    pub async fn control_requests(&self) -> Result<ControlRequests, BusError> {
        let subscription = self
            .client()
            .queue_subscribe(subjects::ALL_CONTROL, QUEUE.to_owned())
            .await?;
        Ok(ControlRequests { subscription })
    }

    /// Answers on the run's own subject.
    pub async fn answer_control(
        &self,
        request: &ControlRequest,
        answer: &Answer,
    ) -> Result<(), BusError> {
        let request_id = request.request_id.as_deref();
        let reply = Reply::new(&request.name, Some(request.run), request_id, answer).encode();
        self.reply(request.tenant, request.run, reply).await
    }
}

/// `None` if the subject names no run of a tenant.
fn read(message: &Message) -> Option<ControlRequest> {
    let (tenant, run, name) = subjects::of_control(&message.subject)?;
    let mut request_id = None;
    let verb = read_verb(name, &message.payload, &mut request_id);
    Some(ControlRequest {
        tenant,
        run,
        verb,
        publisher: Publisher::stamped(message.headers.as_ref()),
        name: name.to_owned(),
        request_id,
    })
}

fn read_verb(
    name: &str,
    payload: &[u8],
    request_id: &mut Option<String>,
) -> Result<ControlVerb, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cancel {
        reason: Option<String>,
    }

    let mut fields: Map<String, Value> = if payload.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(payload).map_err(|error| format!("not a JSON object: {error}"))?
    };
    match fields.remove("request_id") {
        None => {}
        Some(Value::String(id)) if id.len() <= MAX_REQUEST_ID => *request_id = Some(id),
        Some(_) => {
            return Err(format!(
                "`request_id` is a string of at most {MAX_REQUEST_ID} bytes"
            ));
        }
    }
    match name {
        "cancel" => {
            let Cancel { reason } = serde_json::from_value(fields.into())
                .map_err(|error| format!("a cancel is {{\"reason\"?}}: {error}"))?;
            if reason
                .as_ref()
                .is_some_and(|reason| reason.len() > MAX_REASON)
            {
                return Err(format!("`reason` may be at most {MAX_REASON} bytes long"));
            }
            Ok(ControlVerb::Cancel { reason })
        }
        "decide" => {
            let approval = fields
                .remove("approval_id")
                .as_ref()
                .and_then(Value::as_str)
                .ok_or("`approval_id` is missing")?
                .parse()
                .map_err(|invalid: baton_protocol::ids::InvalidId| invalid.to_string())?;
            let decision = serde_json::from_value(fields.into())
                .map_err(|error| format!("no decision: {error}"))?;
            Ok(ControlVerb::Decide { approval, decision })
        }
        other => Err(format!("`{other}` is no verb: it is cancel or decide")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8058";

    fn verb(name: &str, payload: &str) -> Result<ControlVerb, String> {
        let subject = format!("control.{TENANT}.{RUN}.{name}");
        request(&subject, payload).unwrap().verb
    }

    fn request(subject: &str, payload: &str) -> Option<ControlRequest> {
        read(&Message {
            subject: subject.into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn requests_are_read_as_documented() {
        assert_eq!(verb("cancel", ""), Ok(ControlVerb::Cancel { reason: None }));
        assert_eq!(
            verb("cancel", r#"{"reason":"enough","request_id":"r"}"#),
            Ok(ControlVerb::Cancel {
                reason: Some("enough".into())
            })
        );
        let decide = format!(r#"{{"approval_id":"{RUN}","decision":"retry"}}"#);
        assert_eq!(
            verb("decide", &decide),
            Ok(ControlVerb::Decide {
                approval: RUN.parse().unwrap(),
                decision: Decision::Retry {}
            })
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_to_its_asker() {
        let decide = format!(r#"{{"approval_id":"{RUN}","decision":"maybe"}}"#);
        for (name, payload) in [
            ("cancel", "nonsense"),
            ("cancel", r#"{"raeson":"x"}"#),
            ("decide", ""),
            ("decide", r#"{"approval_id":"x","decision":"retry"}"#),
            ("decide", &decide),
            ("pause", ""),
        ] {
            assert!(verb(name, payload).is_err(), "{name} {payload}");
        }
        let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(MAX_REASON + 1));
        assert!(verb("cancel", &long).is_err());
    }

    #[test]
    fn a_subject_without_ids_has_nobody_to_answer() {
        for subject in [
            "control.a.b.cancel",
            "control.cancel",
            &format!("control.{TENANT}.{RUN}"),
            &format!("control.{TENANT}.{RUN}.cancel.now"),
        ] {
            assert!(request(subject, "").is_none(), "{subject}");
        }
    }
}
