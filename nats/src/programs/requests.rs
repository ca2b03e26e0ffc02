//! Answers to programs: to submissions, requests about runs and questions for history. All are core
//! NATS, of which one ingress takes each; a program repeats a message that got no answer.
//!
//! Answers go to subjects built from a run's id, never to an inbox that the asker named. The broker
//! does not check whether the asker may publish there, so it could be another tenant's.

use baton_protocol::{RunId, RunStatus, TenantId};
use bytes::Bytes;
use serde::Serialize;

use crate::bus::{Bus, BusError};
use crate::subjects;

/// The queue group of ingresses: one of them gets each message.
pub(crate) const QUEUE: &str = "ingress";
/// A reason for which a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The HTTP status of the same refusal.
    #[serde(skip)]
    pub status: u16,
    /// A stable word.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The request's field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Seconds after which a retry may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// The outcome of a request about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It took effect, now or before; the run has this state.
    Done {
        /// The state.
        status: RunStatus,
    },
    /// It was refused.
    Refused(Refusal),
}

/// An answer as programs read it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Reply<'a> {
    pub(crate) v: u32,
    pub(crate) verb: &'a str,
    /// Null if it could not be read.
    pub(crate) run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<&'a str>,
    pub(crate) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<RunStatus>,
    /// Whether the run had been accepted before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a Refusal>,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(
        verb: &'a str,
        run_id: Option<RunId>,
        request_id: Option<&'a str>,
        answer: &'a Answer,
    ) -> Self {
        let (status, error) = match answer {
            Answer::Done { status } => (Some(*status), None),
            Answer::Refused(refusal) => (None, Some(refusal)),
        };
        Self {
            v: 1,
            verb,
            run_id,
            request_id,
            ok: error.is_none(),
            status,
            replayed: false,
            error,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        // Strings, ids and names always serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

impl Bus {
    /// Publishes on a run's own reply subject.
    pub(crate) async fn reply(
        &self,
        tenant: TenantId,
        run: RunId,
        payload: Bytes,
    ) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let subject = subjects::replies(tenant, run);
        Ok(client.publish(subject, payload).await?)
    }
}
