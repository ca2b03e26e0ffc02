//! Jobs: published to a lane, delivered to a worker with a free slot.

pub mod backlog;
pub mod delivery;
pub mod demand;
pub mod quarantine;
pub mod replay;
pub mod source;
pub mod stranded;

use async_nats::{HeaderMap, HeaderName, HeaderValue, header};
use baton_protocol::trace_context::{is_request_id, is_traceparent};
use baton_protocol::{Job, Lane, RunId, TenantId};

use crate::bus::{Bus, Rejected, Unanswered};
use crate::subjects;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The headers of a job, for people and tracing. No decision depends on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobHeaders {
    /// The HTTP request that the run came with.
    pub request_id: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
}

impl JobHeaders {
    /// The trace's id: the second part of a `traceparent`.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.split('-').nth(1)
    }
}

impl JobHeaders {
    const REQUEST_ID: HeaderName = HeaderName::from_static("X-Request-Id");

    fn write(&self, headers: &mut HeaderMap) {
        let Self {
            request_id,
            traceparent,
        } = self.clone().kept();
        for (name, value) in [(Self::REQUEST_ID, request_id), (TRACEPARENT, traceparent)] {
            // The client library accepts any character but a line break in a value.
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
        .kept()
    }

    /// Drops values that do not have their exact form: a stranger wrote them, and they become
    /// headers of messages and of requests to the model.
    #[must_use]
    pub fn kept(self) -> Self {
        Self {
            request_id: self.request_id.filter(|id| is_request_id(id)),
            traceparent: self.traceparent.filter(|trace| is_traceparent(trace)),
        }
    }
}

/// A reason for which a message is not known to be stored.
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
    /// Publishes a job, waits until it is stored, and returns its sequence in JOBS.
    ///
    /// The message id is random for each call and never derived from the run, because the broker
    /// drops a repeated id within its window, and hand-overs, approvals and requeues publish a run
    /// again.
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

    /// Publishes the job of a queued run. A failure is logged here: the scheduler
    /// publishes the job later, so callers go on.
    pub async fn publish_or_leave(
        &self,
        tenant: TenantId,
        lane: Lane,
        run: RunId,
        headers: &JobHeaders,
    ) -> Result<(), PublishError> {
        let job = Job::Run { run_id: run };
        let published = self.publish_job(tenant, lane, &job, headers).await;
        if let Err(error) = &published {
            tracing::warn!(
                run.id = %run,
                tenant.id = %tenant,
                error = error as &dyn std::error::Error,
                "a job was not confirmed by the broker; the scheduler publishes it later"
            );
        }
        published.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Returns the headers that one process writes, and those that another reads from a writer that
    /// checks nothing.
    fn sent(request_id: &str, traceparent: &str) -> (HeaderMap, JobHeaders) {
        let mut written = HeaderMap::new();
        let headers = JobHeaders {
            request_id: Some(request_id.to_owned()),
            traceparent: Some(traceparent.to_owned()),
        };
        headers.write(&mut written);
        let mut unchecked = HeaderMap::new();
        for (name, value) in [("X-Request-Id", request_id), ("traceparent", traceparent)] {
            if let Ok(value) = value.parse::<HeaderValue>() {
                unchecked.insert(name, value);
            }
        }
        (written, JobHeaders::read(Some(&unchecked)))
    }

    /// Guards JOBS and the header blocks: a trace context of 64 KiB was stored with each job, and a
    /// carriage return ended the connection of the worker that read it.
    #[test]
    fn what_strangers_wrote_travels_in_its_exact_form_or_not_at_all() {
        let (written, read) = sent("order-17", TRACE);
        assert_eq!(JobHeaders::read(Some(&written)), read);
        assert_eq!(read.request_id.as_deref(), Some("order-17"));
        assert_eq!(read.traceparent.as_deref(), Some(TRACE));
        let long = "a".repeat(64 << 10);
        for bad in ["", "a\rb", "a\nb", "a\0b", "\u{202e}", &long] {
            let (written, read) = sent(bad, bad);
            assert!(written.is_empty(), "{bad:.20?}");
            assert_eq!(read, JobHeaders::default(), "{bad:.20?}");
        }
    }
}
