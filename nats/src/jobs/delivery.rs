//! One delivery of a job, and its settlement.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{Message, Subject, jetstream};
use baton_protocol::{Job, Lane, TenantId};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::JobHeaders;
use crate::bus::{Bus, Unanswered};
use crate::names;
use crate::subjects;
use crate::subscription::covers;

/// A job as delivered to this process. Dropping it settles nothing: the broker delivers it again
/// after its ack_wait.
#[derive(Debug)]
pub struct Delivery {
    /// The run's tenant, from the subject; the nil id if the subject names none (then `job` is an
    /// error).
    pub tenant: TenantId,
    /// The lane it was pulled from.
    pub lane: Lane,
    /// The job, or the reason for which the message cannot be read as one.
    pub job: Result<Job, BadJob>,
    /// The message's sequence in JOBS, the same in every delivery.
    pub stream_seq: u64,
    /// The number of deliveries, including this one. A hint only, because a recreated consumer
    /// counts anew.
    pub delivered: u64,
    /// The time at which the broker stored it.
    pub stored_at: DateTime<Utc>,
    /// Its headers.
    pub headers: JobHeaders,
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    settle: InProgress,
}

/// A message that is no job.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct BadJob {
    /// The reason.
    pub reason: String,
    /// The message.
    pub payload: Bytes,
}

/// A reason for which a settlement is not known to have reached the broker.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// There is no connection: it was not sent.
    #[error("not connected to NATS")]
    Disconnected,
    /// No answer: it may have taken effect.
    #[error("NATS did not confirm")]
    Unknown,
    /// The consumer is gone, and the delivery with it.
    #[error("the consumer of the job is gone")]
    ConsumerGone,
}

impl Delivery {
    /// Reads a pulled message; returns `None` if another sender than the lane's consumer sent it.
    pub(super) fn from_message(bus: &Bus, lane: Lane, message: Message) -> Option<Self> {
        let message = jetstream::Message {
            message,
            context: bus.jetstream().clone(),
        };
        let info = message.info().ok()?;
        let of_lane = covers(&subjects::lane_filter(lane), &message.subject);
        if !of_lane || info.stream != names::JOBS || info.consumer != names::consumer_name(lane) {
            return None;
        }
        let (stream_seq, delivered) = (info.stream_sequence, info.delivered);
        let published = i64::try_from(info.published.unix_timestamp_nanos()).ok()?;
        let Message {
            subject,
            reply,
            payload,
            headers,
            ..
        } = message.message;
        let (tenant, job) = match subjects::tenant_of_job(&subject) {
            Ok(tenant) => (
                tenant,
                Job::decode(&payload).map_err(|error| error.to_string()),
            ),
            Err(reason) => (TenantId::from_uuid(Uuid::nil()), Err(reason)),
        };
        Some(Self {
            tenant,
            lane,
            job: job.map_err(|reason| BadJob {
                reason,
                payload: payload.clone(),
            }),
            stream_seq,
            delivered: u64::try_from(delivered).unwrap_or(0),
            stored_at: DateTime::from_timestamp_nanos(published),
            headers: JobHeaders::read(headers.as_ref()),
            subject,
            payload,
            settle: InProgress {
                bus: bus.clone(),
                reply: reply?,
            },
        })
    }

    /// Settles the job as done, without a confirmation. If the connection is lost, the job is
    /// delivered again.
    pub async fn ack(&self) -> Result<(), AckError> {
        self.settle.send(AckKind::Ack.into()).await
    }

    /// Settles the job as done and waits for the broker's answer.
    ///
    /// The broker also confirms a job that it no longer knows: the answer proves a round trip, not
    /// that this process still owned the delivery.
    pub async fn ack_confirmed(&self) -> Result<(), AckError> {
        self.settle.request(AckKind::Ack.into()).await
    }

    /// Gives the job back for another delivery, at once or after `delay`. Without a delay, a job
    /// that is always given back spins.
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), AckError> {
        self.settle.send(AckKind::Nak(delay).into()).await
    }

    /// Gives the job back, as [`Delivery::nak`], and waits for the answer that
    /// [`Delivery::ack_confirmed`] describes.
    pub async fn nak_confirmed(&self, delay: Option<Duration>) -> Result<(), AckError> {
        self.settle.request(AckKind::Nak(delay).into()).await
    }

    /// Restarts the ack_wait, because the job is still in progress. Not confirmed.
    pub async fn in_progress(&self) -> Result<(), AckError> {
        self.settle.in_progress().await
    }

    /// Returns a cheap handle that keeps the delivery alive, for a lease's ticker. It outlives the
    /// delivery.
    pub fn in_progress_handle(&self) -> InProgress {
        self.settle.clone()
    }

    /// Ends all deliveries of the job; the broker's advisory carries the reason.
    pub async fn term(&self, reason: &str) -> Result<(), AckError> {
        self.settle.send(format!("+TERM {reason}").into()).await
    }
}

/// A handle that keeps a delivery alive.
#[derive(Clone)]
pub struct InProgress {
    bus: Bus,
    reply: Subject,
}

impl fmt::Debug for InProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InProgress")
            .field(&self.reply.as_str())
            .finish()
    }
}

impl InProgress {
    /// Restarts the ack_wait, because the job is still in progress. Not confirmed.
    pub async fn in_progress(&self) -> Result<(), AckError> {
        self.send(AckKind::Progress.into()).await
    }

    /// Restarts the ack_wait and waits for the broker's answer. Without it, the worker is cut off
    /// from the broker and must not renew its lease.
    pub async fn in_progress_confirmed(&self) -> Result<(), AckError> {
        self.request(AckKind::Progress.into()).await
    }

    async fn send(&self, what: Bytes) -> Result<(), AckError> {
        // Without a connection the client would queue the message and in the end block for ever.
        let client = self.bus.connected_client().ok_or(AckError::Disconnected)?;
        client
            .publish(self.reply.clone(), what)
            .await
            .map_err(|_closed| AckError::Disconnected)
    }

    async fn request(&self, what: Bytes) -> Result<(), AckError> {
        match self.bus.request(self.reply.clone(), None, what).await {
            Ok(_) => Ok(()),
            Err(Unanswered::NotSent) => Err(AckError::Disconnected),
            Err(Unanswered::NobodyThere) => Err(AckError::ConsumerGone),
            Err(Unanswered::Unknown | Unanswered::TooLarge(_)) => Err(AckError::Unknown),
        }
    }
}
