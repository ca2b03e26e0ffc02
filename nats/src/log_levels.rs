//! Changes of the log filter of all processes of a role. Core NATS, because a process that is away at the moment
//! needs no change later.

use std::time::Duration;

use async_nats::{StatusCode, Subject};
use baton_protocol::{LogLevelAnswer, LogLevelChange};

use crate::bus::{Bus, BusError};
use crate::foreign::Consumer;
use crate::subjects;
use crate::subscription::Subscription;

/// The changes for one role, for as long as the caller listens.
#[derive(Debug)]
pub struct LogLevelChanges {
    subscription: Subscription,
}

/// A change, and the subject for its answer.
#[derive(Debug)]
pub struct LogLevelRequest {
    /// The change.
    pub change: LogLevelChange,
    reply: Subject,
}

impl LogLevelChanges {
    /// Returns the next change; `None` once the connection is gone for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<LogLevelRequest> {
        loop {
            let message = self.subscription.next().await?;
            let change = serde_json::from_slice(&message.payload);
            match (change, message.reply) {
                (Ok(change), Some(reply)) => return Some(LogLevelRequest { change, reply }),
                (Ok(_), None) => {
                    tracing::warn!("a change of the log filter without a reply subject");
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "an unreadable change of the log filter");
                }
            }
        }
    }
}

impl Bus {
    /// Subscribes to the changes for a role.
    pub async fn log_level_changes(&self, role: &'static str) -> Result<LogLevelChanges, BusError> {
        let subscription = self
            .listen(Consumer::LogLevels, subjects::log_level(role))
            .await?;
        Ok(LogLevelChanges { subscription })
    }

    /// Answers a change.
    pub async fn answer_log_level(
        &self,
        request: LogLevelRequest,
        answer: &LogLevelAnswer,
    ) -> Result<(), BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        // Writing these types as JSON cannot fail.
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        Ok(client.publish(request.reply, payload.into()).await?)
    }

    /// Sends a change to every process of a role. Returns the answers, once there was none for `patience`;
    /// at once if no process of the role listens.
    pub async fn change_log_level(
        &self,
        role: &'static str,
        change: &LogLevelChange,
        patience: Duration,
    ) -> Result<Vec<LogLevelAnswer>, BusError> {
        let client = self.connected_client().ok_or(BusError::Disconnected)?;
        let inbox = Subject::from(client.new_inbox());
        let mut replies = self.listen(Consumer::LogLevels, inbox.clone()).await?;
        let payload = serde_json::to_vec(change).unwrap_or_default();
        let subject = subjects::log_level(role);
        client
            .publish_with_reply(subject, inbox, payload.into())
            .await?;
        let mut answers = Vec::new();
        while let Ok(Some(reply)) = tokio::time::timeout(patience, replies.next()).await {
            if reply.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            match serde_json::from_slice(&reply.payload) {
                Ok(answer) => answers.push(answer),
                Err(error) => tracing::warn!(%error, "an unreadable answer about a log filter"),
            }
        }
        Ok(answers)
    }
}
