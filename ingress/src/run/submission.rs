//! Submits a run: accepts it, publishes its job, and follows it from its first event.

use std::sync::Arc;
use std::time::Duration;

use baton_admission::{Accepted, Admission, OnClose, Submission, SubmitError};
use baton_nats::{EventFollower, JobHeaders};
use baton_protocol::RunId;
use baton_service::request_id::traceparent;
use baton_service::{RequestId, SharedClock};
use baton_store::{IdempotencyKey, Refusal};
use baton_traces::{Span, SpanKind};
use http::{HeaderMap, HeaderName, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::Caller;
use crate::access::body_bytes::HeldBytes;
use crate::error::ApiError;
use crate::metrics::{self, Door};
use crate::run::attachments::{Attachment, Attachments};
use crate::run::cancel::Canceller;
use crate::run::reader::RunReader;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key. Longer keys would only be hashed, and make log lines worse.
const MAX_KEY: usize = 255;
/// The submissions in work at a time: several groups of rows for the ledger. Each takes some 20 KiB,
/// and clients may send thousands in one moment.
const IN_WORK: usize = 256;
/// The longest wait of a submission for those before it.
const WAIT: Duration = Duration::from_secs(5);

/// A run that a door requests.
pub(crate) struct RunRequest {
    pub(crate) caller: Arc<Caller>,
    pub(crate) submission: Submission,
    /// The bytes that the request holds, if they are counted.
    pub(crate) body: Option<HeldBytes>,
    /// Whether the door follows the run's events.
    pub(crate) follow: bool,
    pub(crate) door: Door,
}

/// An accepted run. From here on no answer may suggest that it was not accepted.
pub(crate) struct Submitted {
    pub(crate) accepted: Accepted,
    /// The new run's events from the first, if requested; `None` for an idempotent replay.
    pub(crate) follower: Option<EventFollower>,
    /// The client's attachment to the run.
    pub(crate) attachment: Attachment,
    /// As in [`RunRequest`]: `accepted` still has the request.
    pub(crate) body: Option<HeldBytes>,
}

/// Submits runs, for all doors.
pub(crate) struct Submitter {
    pub(crate) admission: Admission,
    pub(crate) runs: Arc<RunReader>,
    pub(crate) attachments: Attachments,
    /// Asks the holders of runs that a new one cancels.
    pub(crate) canceller: Canceller,
    /// Holds the submissions in work.
    pub(crate) tracker: TaskTracker,
    pub(crate) places: Places,
    pub(crate) clock: SharedClock,
}

/// Bounds the submissions in work.
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(IN_WORK)))
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = timeout(WAIT, Arc::clone(&self.0).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| {
            ApiError::unavailable(
                "ledger_unavailable",
                "the ledger takes requests more slowly than they arrive: try again",
            )
        })
    }
}

impl Submitter {
    /// Submits a run in a task that completes even if the client leaves, so that no run stays
    /// accepted but unpublished. The attachment, which nobody takes then, records that the client
    /// is gone.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        request: RunRequest,
    ) -> Result<Submitted, ApiError> {
        let place = self.places.take().await?;
        let proposed = request
            .submission
            .run
            .unwrap_or_else(|| RunId::new(self.clock.now()));
        match self.begin(request, proposed, place).await {
            Ok(submitted) => submitted,
            // The task panicked, before or after the commit.
            Err(error) => Err(ApiError::internal(&error).of_run(proposed)),
        }
    }

    /// Not asynchronous: the caller's future would hold the task's as well.
    fn begin(
        self: &Arc<Self>,
        request: RunRequest,
        proposed: RunId,
        place: OwnedSemaphorePermit,
    ) -> JoinHandle<Result<Submitted, ApiError>> {
        let submitter = Arc::clone(self);
        let task = async move {
            let submitted = submit_to_the_end(submitter, request, proposed).await;
            drop(place);
            submitted
        };
        self.tracker.spawn(task.in_current_span())
    }
}

async fn submit_to_the_end(
    submitter: Arc<Submitter>,
    request: RunRequest,
    run: RunId,
) -> Result<Submitted, ApiError> {
    let RunRequest {
        caller,
        mut submission,
        body,
        follow,
        door,
    } = request;
    let tenant = caller.tenant;
    let (chosen, on_close) = (submission.run, submission.on_close);
    // Before the run exists, so that a run that cannot be followed is refused with nothing written.
    let subscribed = if follow {
        Some(submitter.runs.subscribe(tenant, run).await?)
    } else {
        None
    };
    let mut attachment = submitter.attachments.attach(tenant, run, on_close);
    let once = submission.idempotency.is_none();
    let mut trace = Span::begin(
        || "accept",
        SpanKind::Producer,
        submission.headers.traceparent.as_deref(),
    );
    trace.set("baton.tenant.id", || tenant.to_string());
    trace.set("baton.run.id", || run.to_string());
    if let Some(own) = trace.traceparent() {
        submission.headers.traceparent = Some(own);
    }
    let headers = submission.headers.clone();
    let now = submitter.clock.now();
    let accepting = submitter
        .admission
        .accept(caller.sender(), submission, run, now);
    let accepted = match accepting.await {
        Ok(accepted) => accepted,
        Err(error) => {
            trace.fail("refused");
            metrics::submission_refused(&error);
            // If the run may be accepted and a chat's client gets an error, the run is cancelled.
            if !matches!(error, SubmitError::InDoubt { .. }) {
                attachment.detach();
            }
            return Err(match error {
                // The key was derived from the run's id.
                SubmitError::Refused(Refusal::KeyReused) if chosen.is_some() => {
                    Refusal::IdTaken.into()
                }
                // An automatic retry would create another run.
                error @ SubmitError::InDoubt { .. }
                    if once && on_close == OnClose::LeaveRunning =>
                {
                    ApiError::from(error).do_not_retry()
                }
                error => error.into(),
            });
        }
    };
    let outcome = submitter
        .admission
        .publish(tenant, &accepted, &headers)
        .await;
    drop(trace);
    let span = tracing::Span::current();
    span.record("run.id", tracing::field::display(accepted.run()));
    if let Some(trace) = headers.trace_id() {
        span.record("trace.id", trace);
    }
    let on_close = match &accepted {
        Accepted::Created(created) => {
            for (run, request) in &created.cancelled {
                submitter.canceller.carry_out(tenant, *run, request).await;
            }
            submitter.ask_for_title(&caller, created, &headers);
            on_close
        }
        Accepted::Replay(_) => on_close,
        // The run belongs to others too.
        Accepted::Steered(_) => OnClose::LeaveRunning,
    };
    let new = matches!(accepted, Accepted::Created(_));
    metrics::accepted(door, !new);
    if !new {
        let attachment = attachment.moved_to(accepted.run(), on_close);
        return Ok(Submitted {
            accepted,
            follower: None,
            attachment,
            body,
        });
    }
    metrics::published(outcome);
    let follower = subscribed.map(baton_nats::Subscribed::from_start_of_new_run);
    Ok(Submitted {
        accepted,
        follower,
        attachment,
        body,
    })
}

/// Returns the request's idempotency key. Its fingerprint covers the route and the exact bytes.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
    route: &str,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| {
            (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
        })
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_idempotency_key",
                "an Idempotency-Key is 1 to 255 visible ASCII characters",
            )
        })?;
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        fingerprint: fingerprint(route, body),
    }))
}

/// Returns the idempotency key of a run id that its caller chose. No client can send this key,
/// because it contains a space.
pub(crate) fn key_of_run(run: RunId, route: &str, body: &[u8]) -> IdempotencyKey {
    IdempotencyKey {
        key: format!("run {run}"),
        fingerprint: fingerprint(route, body),
    }
}

fn fingerprint(route: &str, body: &[u8]) -> [u8; 32] {
    let mut fingerprint = Sha256::new();
    fingerprint.update(route.as_bytes());
    fingerprint.update([0]);
    fingerprint.update(body);
    fingerprint.finalize().into()
}

/// Returns the headers that are published with the job.
pub(crate) fn job_headers(request_id: &RequestId, headers: &HeaderMap) -> JobHeaders {
    JobHeaders {
        request_id: Some(request_id.as_str().to_owned()),
        traceparent: traceparent(headers),
    }
    .kept()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(value: &str, route: &str, body: &[u8]) -> Result<Option<IdempotencyKey>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
        idempotency_key(&headers, route, body)
    }

    #[test]
    fn the_fingerprint_tells_bodies_and_routes_apart() {
        let print = |route, body| key("k", route, body).unwrap().unwrap().fingerprint;
        assert_eq!(print("/v1/runs", b"x"), print("/v1/runs", b"x"));
        assert_ne!(print("/v1/runs", b"x"), print("/v1/runs", b"y"));
        assert_ne!(print("/v1/runs", b"x"), print("/v1/chat/completions", b"x"));
        assert!(
            idempotency_key(&HeaderMap::new(), "/v1/runs", b"x")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_key_is_short_and_visible() {
        assert!(key(&"k".repeat(255), "r", b"").is_ok());
        for bad in ["", "two words", &"k".repeat(256)] {
            assert_eq!(key(bad, "r", b"").unwrap_err().status, 400, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_submission_waits_for_those_before_it_and_not_for_ever() {
        let places = Places::new();
        let mut taken = Vec::new();
        for _ in 0..IN_WORK {
            taken.push(places.take().await.unwrap());
        }
        let refused = places.take().await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        let ended = async {
            tokio::time::sleep(WAIT / 2).await;
            taken.pop();
        };
        let (place, ()) = tokio::join!(places.take(), ended);
        drop(place.unwrap());
    }
}
