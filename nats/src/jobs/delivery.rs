//! One delivery of a job, and the ways to settle it.

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

/// A job as it was delivered to this process. Dropping it settles nothing: the broker delivers it
/// again after its ack_wait.
#[derive(Debug)]
pub struct Delivery {
    /// Whose run it is, from the subject; the nil id if the subject names nobody (then `job` is an
    /// error).
    pub tenant: TenantId,
    /// The lane it was pulled from.
    pub lane: Lane,
    /// The job, or why the message is none.
    pub job: Result<Job, BadJob>,
    /// Its sequence in JOBS: the same in every delivery of this message.
    pub stream_seq: u64,
    /// How often it was delivered, this time included. A hint only: the count begins anew with a
    /// consumer that was made again.
    pub delivered: u64,
    /// When the broker stored it.
    pub stored_at: DateTime<Utc>,
    /// What travels beside it.
    pub headers: JobHeaders,
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    settle: InProgress,
}

/// A message that is no job.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct BadJob {
    /// Why not.
    pub reason: String,
    /// The message.
    pub payload: Bytes,
}

/// Why a settlement is not known to have reached the broker.
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
    /// Takes a message that a pull brought; `None` if it is not the lane's consumer that sent it.
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

    /// The job is done. Only handed to the connection: if that is lost, the job is delivered again.
    pub async fn ack(&self) -> Result<(), AckError> {
        self.settle.send(AckKind::Ack.into()).await
    }

    /// The job is done, and the broker says that it heard so.
    ///
    /// It also says so about a job that it knows no longer: the answer confirms a round trip, not
    /// that the delivery was still this process's.
    pub async fn ack_confirmed(&self) -> Result<(), AckError> {
        self.settle.request(AckKind::Ack.into()).await
    }

    /// Somebody else is to have the job: at once, or after `delay`. Without a delay a job that is
    /// given back again and again spins.
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), AckError> {
        self.settle.send(AckKind::Nak(delay).into()).await
    }

    /// As [`Delivery::nak`], with the confirmation that [`Delivery::ack_confirmed`] describes.
    pub async fn nak_confirmed(&self, delay: Option<Duration>) -> Result<(), AckError> {
        self.settle.request(AckKind::Nak(delay).into()).await
    }

    /// The job is still worked on: the ack_wait begins anew. Only handed to the connection.
    pub async fn in_progress(&self) -> Result<(), AckError> {
        self.settle.in_progress().await
    }

    /// What a lease's ticker needs of the delivery: cheap to clone, and outliving it.
    pub fn in_progress_handle(&self) -> InProgress {
        self.settle.clone()
    }

    /// The job is never to be delivered again; the reason reaches the broker's advisory.
    pub async fn term(&self, reason: &str) -> Result<(), AckError> {
        self.settle.send(format!("+TERM {reason}").into()).await
    }
}

/// Keeps a delivery alive.
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
    /// The job is still worked on: the ack_wait begins anew. Only handed to the connection.
    pub async fn in_progress(&self) -> Result<(), AckError> {
        self.send(AckKind::Progress.into()).await
    }

    /// As [`InProgress::in_progress`], and waits until the broker has answered: a worker that gets no
    /// answer is cut off from the broker and must not renew its lease.
    pub async fn in_progress_confirmed(&self) -> Result<(), AckError> {
        self.request(AckKind::Progress.into()).await
    }

    async fn send(&self, what: Bytes) -> Result<(), AckError> {
        // Without a connection the client would queue it, and in the end wait for ever.
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
