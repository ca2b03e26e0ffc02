//! Finds messages in JOBS that no consumer will ever deliver.
//!
//! There are none while the streams are as Baton made them. A program that publishes to a lane that
//! does not exist makes some, and so does a consumer with a delivery limit.

use async_nats::Subject;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::DeleteMessageErrorKind;
use baton_protocol::Lane;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::PublishError;
use super::backlog::{ConsumerInfo, StreamInfo};
use crate::bus::Bus;
use crate::events::ReadError;
use crate::events::read::if_any;
use crate::streams;
use crate::subjects::{self, api};

/// A message that will never be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrandedJob {
    /// Its sequence in JOBS.
    pub seq: u64,
    /// The subject that it arrived on.
    pub subject: Subject,
    /// The time at which it was stored.
    pub stored_at: DateTime<Utc>,
    /// The reason.
    pub why: Stranding,
    payload: Bytes,
}

/// A reason for which a message is stranded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stranding {
    /// No consumer takes its subject.
    NoConsumer,
    /// Its lane's consumer moved past it although it was not settled.
    PassedBy,
}

impl Stranding {
    /// Returns the reason as a sentence for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoConsumer => "there is no such lane: no consumer takes this subject",
            Self::PassedBy => "its consumer has gone past it and will not deliver it again",
        }
    }
}

/// The result of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stranded {
    /// Messages that are known to be stranded.
    pub jobs: Vec<StrandedJob>,
    /// The number of messages that their lanes' consumers moved past. `jobs` may have only some of
    /// them, because a consumer with unsettled jobs does not say which these are.
    pub passed_by: u64,
}

impl Bus {
    /// Searches for stranded messages and returns at most `limit` of them. Costs a few requests if
    /// there are none. The answers are not of one instant, so a message that is being settled may
    /// be among them: only one that is found twice is stranded.
    pub async fn stranded_jobs(&self, limit: usize) -> Result<Stranded, ReadError> {
        let mut consumers = Vec::new();
        for lane in Lane::ALL {
            let consumer: ConsumerInfo = self.ask(api::consumer_info(lane), Bytes::new()).await?;
            consumers.push((lane, consumer));
        }
        let accounted: u64 = consumers
            .iter()
            .map(|(_, consumer)| consumer.num_pending + consumer.num_ack_pending)
            .sum();
        let stream: StreamInfo = self.ask(api::JOBS_INFO.into(), Bytes::new()).await?;
        if stream.state.messages <= accounted {
            return Ok(Stranded::default());
        }
        let request = format!(r#"{{"subjects_filter":"{}"}}"#, subjects::ALL_JOBS);
        let stream: StreamInfo = self.ask(api::JOBS_INFO.into(), request.into()).await?;
        let subjects = stream.state.subjects;
        let mut jobs = self.without_consumer(subjects.keys(), limit).await?;
        let mut passed_by = 0;
        for (lane, consumer) in consumers {
            let stored: u64 = subjects
                .iter()
                .filter(|(subject, _)| lane_of(subject) == lane.as_str())
                .map(|(_, count)| count)
                .sum();
            let of_lane = stored.saturating_sub(consumer.num_pending + consumer.num_ack_pending);
            passed_by += of_lane;
            // Everything below the floor is settled, and everything delivered if no settlement is
            // pending.
            let settled = if consumer.num_ack_pending == 0 {
                consumer.delivered.stream_seq
            } else {
                consumer.ack_floor.stream_seq
            };
            let filter = subjects::lane_filter(lane);
            let mut seq = 1;
            while of_lane > 0
                && jobs.len() < limit
                && let Some(message) = self.first_stored(streams::JOBS, &filter, seq).await?
                && message.sequence <= settled
            {
                seq = message.sequence + 1;
                jobs.push(StrandedJob::new(message, Stranding::PassedBy));
            }
        }
        Ok(Stranded { jobs, passed_by })
    }

    async fn without_consumer(
        &self,
        subjects: impl Iterator<Item = &String>,
        limit: usize,
    ) -> Result<Vec<StrandedJob>, ReadError> {
        let mut found = Vec::new();
        for subject in subjects {
            let lane = lane_of(subject);
            if Lane::ALL.iter().any(|known| known.as_str() == lane)
                // A newer version may have this lane.
                || self.has_consumer(lane).await?
            {
                continue;
            }
            let mut seq = 1;
            while found.len() < limit
                && let Some(message) = self.first_stored(streams::JOBS, subject, seq).await?
            {
                seq = message.sequence + 1;
                found.push(StrandedJob::new(message, Stranding::NoConsumer));
            }
        }
        Ok(found)
    }

    async fn has_consumer(&self, lane: &str) -> Result<bool, ReadError> {
        let asked = self.ask::<ConsumerInfo>(api::consumer_info_by_name(lane), Bytes::new());
        match asked.await {
            Ok(_) => Ok(true),
            Err(ReadError::NoStream) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the number of messages in DEAD.
    pub async fn dead_letters(&self) -> Result<u64, ReadError> {
        let stream: StreamInfo = self.ask(api::DEAD_INFO.into(), Bytes::new()).await?;
        Ok(stream.state.messages)
    }

    /// Moves a stranded message to DEAD.
    pub async fn quarantine_stranded(&self, job: &StrandedJob) -> Result<(), PublishError> {
        let id = format!(
            "{}-{}",
            job.seq,
            job.stored_at.timestamp_nanos_opt().unwrap_or_default()
        );
        let reason = job.why.reason();
        self.bury(&job.subject, &job.payload, job.seq, id, reason, None)
            .await?;
        let stream = self
            .jetstream()
            .get_stream_no_info(streams::JOBS)
            .await
            .map_err(|error| PublishError::Refused(error.to_string()))?;
        stream
            .delete_message(job.seq)
            .await
            .map(|_| ())
            .map_err(|error| match error.kind() {
                DeleteMessageErrorKind::TimedOut => PublishError::Unknown,
                _ => PublishError::Refused(error.to_string()),
            })
    }

    /// Returns the first message of a stream on a subject, from `seq` on.
    pub(super) async fn first_stored(
        &self,
        stream: &'static str,
        filter: &str,
        seq: u64,
    ) -> Result<Option<StreamMessage>, ReadError> {
        if !self.is_connected() {
            return Err(ReadError::Disconnected);
        }
        let stream = self
            .jetstream()
            .get_stream_no_info(stream)
            .await
            .map_err(|error| ReadError::Refused(error.to_string()))?;
        let first = if_any(stream.get_first_raw_message_by_subject(filter, seq).await)?;
        if let Some(message) = &first {
            self.expect_stored(filter, &message.subject)?;
        }
        Ok(first)
    }
}

fn lane_of(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

impl StrandedJob {
    fn new(message: StreamMessage, why: Stranding) -> Self {
        Self {
            seq: message.sequence,
            stored_at: stored_at(&message),
            subject: message.subject,
            payload: message.payload,
            why,
        }
    }
}

pub(super) fn stored_at(message: &StreamMessage) -> DateTime<Utc> {
    let nanos = i64::try_from(message.time.unix_timestamp_nanos()).unwrap_or_default();
    DateTime::from_timestamp_nanos(nanos)
}
