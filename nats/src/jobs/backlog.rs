//! The backlog of a lane: for metrics, and to prove that a job is lost.

use std::collections::HashMap;

use baton_protocol::Lane;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::bus::{ApiError, Bus, Unanswered};
use crate::events::ReadError;
use crate::subjects::{self, api};

/// A lane's state at one moment. Costs three requests: poll it every few seconds, not per job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs never delivered yet.
    pub pending: u64,
    /// Jobs delivered and not settled: in progress, or given back with a delay.
    pub ack_pending: u64,
    /// The jobs among these that were delivered more than once.
    pub redelivered: u64,
    /// The time at which the oldest never-delivered job was stored. All earlier jobs of the lane
    /// have been delivered at least once, or are gone. Without one, that holds for all jobs.
    pub next_undelivered_stored_at: Option<DateTime<Utc>>,
    /// Jobs stored in both lanes.
    pub stream_messages: u64,
}

#[derive(Deserialize)]
struct Answer<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    content: Option<T>,
}

#[derive(Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) num_pending: u64,
    pub(super) num_ack_pending: u64,
    num_redelivered: u64,
    pub(super) delivered: Position,
    /// Everything up to this position is settled.
    pub(super) ack_floor: Position,
}

#[derive(Deserialize)]
pub(super) struct Position {
    pub(super) stream_seq: u64,
}

#[derive(Deserialize)]
pub(super) struct StreamInfo {
    pub(super) state: StreamState,
}

#[derive(Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    /// Messages per subject, if the request asked for them.
    #[serde(default)]
    pub(super) subjects: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Stored {
    message: StoredMessage,
}

#[derive(Deserialize)]
struct StoredMessage {
    time: DateTime<Utc>,
}

impl Bus {
    /// Asks the leader of a lane's consumer for its backlog.
    ///
    /// The three answers are not of one instant. Their order counts a job that arrives meanwhile
    /// too often rather than too seldom.
    pub async fn job_backlog(&self, lane: Lane) -> Result<Backlog, ReadError> {
        let consumer: ConsumerInfo = self.ask(api::consumer_info(lane), Bytes::new()).await?;
        let next = format!(
            r#"{{"seq":{},"next_by_subj":"{}"}}"#,
            consumer.delivered.stream_seq + 1,
            subjects::lane_filter(lane)
        );
        let next: Option<Stored> = self.ask_if_any(api::GET_JOBS.into(), next.into()).await?;
        let stream: StreamInfo = self.ask(api::JOBS_INFO.into(), Bytes::new()).await?;
        Ok(Backlog {
            pending: consumer.num_pending,
            ack_pending: consumer.num_ack_pending,
            redelivered: consumer.num_redelivered,
            next_undelivered_stored_at: next.map(|stored| stored.message.time),
            stream_messages: stream.state.messages,
        })
    }

    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        subject: async_nats::Subject,
        payload: Bytes,
    ) -> Result<T, ReadError> {
        let nothing = || ReadError::Unreadable("no such message".into());
        self.ask_if_any(subject, payload).await?.ok_or_else(nothing)
    }

    /// Asks JetStream; returns `None` if there is no such message.
    pub(crate) async fn ask_if_any<T: DeserializeOwned>(
        &self,
        subject: async_nats::Subject,
        payload: Bytes,
    ) -> Result<Option<T>, ReadError> {
        let answer = self
            .request(subject, None, payload)
            .await
            .map_err(|why| match why {
                Unanswered::NotSent => ReadError::Disconnected,
                Unanswered::NobodyThere => ReadError::NoStream,
                Unanswered::Unknown | Unanswered::TooLarge(_) => ReadError::NoAnswer,
            })?;
        let unreadable = |error: serde_json::Error| ReadError::Unreadable(error.to_string());
        match serde_json::from_slice::<Answer<T>>(&answer.payload).map_err(unreadable)? {
            Answer {
                error: Some(error), ..
            } if error.is_no_message() => Ok(None),
            Answer {
                error: Some(error), ..
            } if error.is_missing() => Err(ReadError::NoStream),
            Answer {
                error: Some(error), ..
            } => Err(ReadError::Refused(error.description)),
            Answer {
                content: Some(content),
                ..
            } => Ok(Some(content)),
            Answer { content: None, .. } => Err(ReadError::Unreadable("an empty answer".into())),
        }
    }
}
