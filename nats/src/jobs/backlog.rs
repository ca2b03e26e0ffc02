//! How much waits in a lane: for metrics, and to tell when a job is provably gone.

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
    /// Jobs delivered and not settled: being worked on, or given back with a delay.
    pub ack_pending: u64,
    /// Of these, how many were delivered more than once.
    pub redelivered: u64,
    /// When the oldest never-delivered job was stored. All jobs of the lane that were stored before
    /// have been delivered at least once, or are gone; without one, all jobs have.
    pub next_undelivered_stored_at: Option<DateTime<Utc>>,
    /// Jobs stored, of both lanes.
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
    /// Everything up to here is settled.
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
    /// How many messages each subject has, if that was asked for.
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
    /// Asks the leader of a lane's consumer how much waits.
    ///
    /// The three answers are not of one instant. They are asked for in the order in which a job that
    /// arrives meanwhile is counted rather too often than too seldom.
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

    /// Asks JetStream; `None` if it says that there is no such message.
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
