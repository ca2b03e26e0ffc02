//! Requests of programs about runs: `control.<tenant>.<key>.<verb>`, of which one ingress takes
//! each.
//!
//! Core NATS: a request that no ingress takes is lost, and the program repeats it when no answer
//! comes. Answers go to `replies.<tenant>.<run>`.

use baton_protocol::{ApiKeyId, BadMessage, ControlMessage, RunId, TenantId};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::intake::Place;
use super::requests::{Answer, Reply};
use crate::bus::{Bus, BusError};

/// A kind of request, as the subject's last token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `cancel`: end a run.
    Cancel,
    /// `decide`: answer the question of a parked run.
    Decide,
    /// `steer`: send a message to a run.
    Steer,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Cancel, Self::Decide, Self::Steer];

    /// The verb's name in subjects and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Decide => "decide",
            Self::Steer => "steer",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// The tenant, from the subject.
    pub tenant: TenantId,
    /// The key that published it, from the subject: the broker lets no other key publish there.
    pub key: ApiKeyId,
    /// The kind of request.
    pub verb: Verb,
    /// The request, or the error in it.
    pub message: Result<ControlMessage, BadMessage>,
}

/// Requests of programs, for as long as this ingress listens.
#[derive(Debug)]
pub struct ControlRequests {
    heard: mpsc::Receiver<UnreadRequest>,
}

/// A request in the queue. Its reader decodes it, so that the connection's task does not spend time
/// on it.
#[derive(Debug)]
pub(super) struct UnreadRequest {
    pub(super) tenant: TenantId,
    pub(super) key: ApiKeyId,
    pub(super) verb: Verb,
    pub(super) payload: Bytes,
    pub(super) _place: Place,
}

impl ControlRequests {
    pub(super) fn new(heard: mpsc::Receiver<UnreadRequest>) -> Self {
        Self { heard }
    }

    /// Returns the next request; `None` after the last one, once the connection was stopped.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<ControlRequest> {
        let unread = self.heard.recv().await?;
        Some(ControlRequest {
            tenant: unread.tenant,
            key: unread.key,
            verb: unread.verb,
            message: ControlMessage::decode(unread.verb.as_str(), &unread.payload),
        })
    }
}

impl ControlRequest {
    /// Returns the run, if it can be read.
    pub fn run(&self) -> Option<RunId> {
        match &self.message {
            Ok(message) => Some(message.run_id()),
            Err(bad) => bad.run_id,
        }
    }

    fn request_id(&self) -> Option<&str> {
        match &self.message {
            Ok(message) => message.request_id(),
            Err(bad) => bad.request_id.as_deref(),
        }
    }
}

impl Bus {
    /// Answers on the run's own subject, or on that of [`RunId::nil`] if the run is unknown.
    pub async fn answer_control(
        &self,
        request: &ControlRequest,
        answer: &Answer,
    ) -> Result<(), BusError> {
        let run = request.run();
        let reply = Reply::new(request.verb.as_str(), run, request.request_id(), answer);
        let about = run.unwrap_or_else(RunId::nil);
        self.reply(request.tenant, about, reply.encode()).await
    }
}
