//! Jobs: published to a lane, delivered to a worker with a free slot.

pub mod backlog;
pub mod delivery;
pub mod demand;
pub mod quarantine;
pub mod replay;
pub mod source;
pub mod stranded;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use baton_protocol::{Job, Lane, TenantId};

use crate::bus::{Bus, Rejected, Unanswered};
use crate::subjects;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What travels beside a job, for people and tracing; nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobHeaders {
    /// The HTTP request that the run came with.
    pub request_id: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
}

impl JobHeaders {
    pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("X-Request-Id");

    fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (Self::REQUEST_ID, &self.request_id),
            (TRACEPARENT, &self.traceparent),
        ] {
            // A value with a line break cannot be sent, and is worth nothing.
            if let Some(Ok(value)) = value.as_deref().map(str::parse::<HeaderValue>) {
                headers.insert(name, value);
            }
        }
    }

    pub(crate) fn read(headers: Option<&HeaderMap>) -> Self {
        let text = |name| Some(headers?.get(name)?.as_str().to_owned());
        Self {
            request_id: text(Self::REQUEST_ID),
            traceparent: text(TRACEPARENT),
        }
    }
}

/// Why a message is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream is full: not stored.
    #[error("the queue is full: {0}")]
    Full(String),
    /// No answer: it may be stored, now or later.
    #[error("NATS did not say whether it stored the message")]
    Unknown,
    /// There is no connection: not stored.
    #[error("not connected to NATS")]
    Disconnected,
    /// There is no such stream, or it has no leader: not stored.
    #[error("no stream takes the message")]
    NoStream,
    /// The stream refused it for another reason: not stored.
    #[error("NATS refused the message: {0}")]
    Refused(String),
}

impl From<Rejected> for PublishError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Unanswered(Unanswered::NotSent) => Self::Disconnected,
            Rejected::Unanswered(Unanswered::Unknown) => Self::Unknown,
            Rejected::Unanswered(Unanswered::NobodyThere) => Self::NoStream,
            Rejected::Unanswered(Unanswered::TooLarge(reason)) => Self::Refused(reason),
            Rejected::Refused(error) if error.is_full() => Self::Full(error.description),
            Rejected::Refused(error) => {
                Self::Refused(format!("{} ({})", error.description, error.err_code))
            }
        }
    }
}

impl Bus {
    /// Publishes a job and waits until it is stored: its sequence in JOBS.
    ///
    /// The message id is drawn afresh for each call, never derived from the run: the broker swallows
    /// a repeated id within its window, and a run is published again after hand-overs, approvals and
    /// rescues.
    pub async fn publish_job(
        &self,
        tenant: TenantId,
        lane: Lane,
        job: &Job,
        headers: &JobHeaders,
    ) -> Result<u64, PublishError> {
        let mut map = HeaderMap::new();
        map.insert(
            header::NATS_MESSAGE_ID,
            format!("{:032x}", rand::random::<u128>()),
        );
        headers.write(&mut map);
        Ok(self
            .store(subjects::jobs(tenant, lane), map, job.encode().into())
            .await?)
    }
}
