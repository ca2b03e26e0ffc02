//! Submits programs' runs, as `POST /v1/runs` does, and answers each message.
//!
//! The run's row decides. A program that missed its answer publishes the message again under the
//! same run id, and gets the same run. A message that is no submission is kept in DEAD for an
//! operator, within the publisher's limits.

use std::sync::Arc;

use baton_admission::{Accepted, Invalid, OnClose, SubmitRequest, check_shape};
use baton_nats::{
    Answer, JobHeaders, PublishError, Resubmissions, Submission, SubmissionAnswer, Submissions,
};
use baton_protocol::{BadMessage, RunId, RunStatus, SubmitJob};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::Programs;
use super::requests::{Unknown, identify};
use crate::access::{Caller, RunsWrite, Scope as _};
use crate::error::ApiError;
use crate::metrics::{self, Door, SubmissionEnd};
use crate::run::submission::{RunRequest, Submitted, key_of_run};

/// The submissions that an ingress holds at a time, in units of 64 KiB; a smaller message counts as
/// one unit. Further submissions are refused until there is room again.
const ROOM: usize = 512;
const UNIT: usize = 64 << 10;

/// Takes submissions until their connection is drained, and answers all that arrived by then.
pub(super) async fn take_submissions(
    programs: Arc<Programs>,
    room: Arc<Semaphore>,
    mut submissions: Submissions,
) {
    let all = async {
        while let Some(submission) = submissions.next().await {
            take(&programs, &room, submission).await;
        }
    };
    tokio::select! {
        () = all => {}
        () = programs.stopping.all.cancelled() => {}
    }
}

/// Takes runs that operators submit again until this process stops; answers all that arrived.
pub(super) async fn take_resubmissions(
    programs: Arc<Programs>,
    room: Arc<Semaphore>,
    mut resubmissions: Resubmissions,
) {
    let stop = programs.stopping.native.clone();
    loop {
        let submission = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            submission = resubmissions.next() => submission,
        };
        let Some(submission) = submission else { return };
        take(&programs, &room, submission).await;
    }
    let rest = async {
        resubmissions.stop().await;
        while let Some(submission) = resubmissions.next().await {
            take(&programs, &room, submission).await;
        }
    };
    tokio::select! {
        () = rest => {}
        () = programs.stopping.all.cancelled() => {}
    }
}

/// Returns the room of one ingress for submissions from all sources.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM))
}

/// Starts with one submission, or refuses it if there is no room.
async fn take(programs: &Arc<Programs>, room: &Arc<Semaphore>, submission: Submission) {
    let units = u32::try_from(1 + submission.payload.len() / UNIT).unwrap_or(u32::MAX);
    let Ok(place) = Arc::clone(room).try_acquire_many_owned(units) else {
        let about = About::of(&read(&submission));
        let busy = ApiError::unavailable("busy", "too much is submitted at once: publish it again");
        metrics::submission(SubmissionEnd::Busy);
        return answer(programs, &submission, &about, &refused(&busy)).await;
    };
    let span = tracing::info_span!(
        "submission",
        run.id = tracing::field::Empty,
        request.id = tracing::field::Empty,
        trace.id = tracing::field::Empty,
    );
    let work = {
        let programs = Arc::clone(programs);
        async move {
            judge(&programs, &submission).await;
            drop(place);
        }
    };
    programs.tracker.spawn(work.instrument(span));
}

/// The parts of a submission that its answer repeats, as far as they are readable.
struct About {
    run: Option<RunId>,
    request_id: Option<String>,
}

impl About {
    fn of(job: &Result<SubmitJob, BadMessage>) -> Self {
        match job {
            Ok(job) => Self {
                run: Some(job.run_id),
                request_id: job.request_id.clone(),
            },
            Err(bad) => Self {
                run: bad.run_id,
                request_id: bad.request_id.clone(),
            },
        }
    }
}

/// The reason why a submission is not accepted.
enum NotAccepted {
    /// A refusal as for HTTP; the program may correct the request.
    Refused(ApiError),
    /// No submission at all: an operator has to look at it.
    Unusable {
        error: ApiError,
        /// The publisher, if known.
        by: Option<Arc<Caller>>,
    },
}

impl From<ApiError> for NotAccepted {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

async fn judge(programs: &Arc<Programs>, submission: &Submission) {
    let job = read(submission);
    let about = About::of(&job);
    if let Some(id) = &about.request_id {
        tracing::Span::current().record("request.id", id);
    }
    let (verdict, end) = match accept(programs, submission, job).await {
        Ok(accepted) => (accepted, SubmissionEnd::Accepted),
        Err(NotAccepted::Refused(error)) => (refused(&error), SubmissionEnd::Refused),
        Err(NotAccepted::Unusable { error, .. }) if submission.again => {
            (refused(&error), SubmissionEnd::Refused)
        }
        Err(NotAccepted::Unusable { error, by }) => {
            let end = set_aside(programs, submission, about.run, &error, by.as_deref()).await;
            (refused(&error), end)
        }
    };
    metrics::submission(end);
    answer(programs, submission, &about, &verdict).await;
}

/// Decodes a submission, after checking that its shape is safe to decode.
fn read(submission: &Submission) -> Result<SubmitJob, BadMessage> {
    check_shape(&submission.payload).map_err(|invalid| BadMessage {
        code: invalid.code,
        message: invalid.message,
        run_id: None,
        request_id: None,
    })?;
    SubmitJob::decode(&submission.payload)
}

async fn accept(
    programs: &Arc<Programs>,
    submission: &Submission,
    job: Result<SubmitJob, BadMessage>,
) -> Result<SubmissionAnswer, NotAccepted> {
    let (tenant, lane) = (submission.tenant, submission.lane);
    let caller = identify(&programs.authenticator, tenant, submission.key)
        .await
        .map_err(|unknown| match unknown {
            Unknown::Nobody(error) => NotAccepted::Unusable { error, by: None },
            Unknown::Unavailable(error) => NotAccepted::Refused(error),
        })?;
    caller.check_alive(programs.runs.clock.now())?;
    // An operator's resubmission was already counted when it first came.
    if !submission.again {
        programs.authenticator.rates.limit_caller(&caller).await?;
    }
    caller.check(RunsWrite::NAME, programs.runs.clock.now())?;
    let job = job.map_err(|bad| NotAccepted::Unusable {
        error: ApiError::bad_message(&bad),
        by: Some(Arc::clone(&caller)),
    })?;
    let body = job.request.get().as_bytes();
    let request = SubmitRequest::parse_submitted(body, lane).map_err(|invalid: Invalid| {
        NotAccepted::Unusable {
            error: invalid.into(),
            by: Some(Arc::clone(&caller)),
        }
    })?;
    let wanted = RunRequest {
        caller,
        submission: baton_admission::Submission {
            run: Some(job.run_id),
            request,
            idempotency: Some(key_of_run(job.run_id, lane.as_str(), body)),
            on_close: OnClose::LeaveRunning,
            headers: JobHeaders {
                request_id: job.request_id,
                traceparent: job.traceparent,
            },
        },
        body: None,
        follow: false,
        door: Door::Bus,
    };
    let Submitted { accepted, .. } = programs.submitter.submit(wanted).await?;
    let (replayed, status) = match &accepted {
        Accepted::Created(_) => (false, RunStatus::Queued),
        Accepted::Replay(record) | Accepted::Steered(record) => (true, record.status),
    };
    Ok(SubmissionAnswer {
        answer: Answer::Done { status },
        replayed,
    })
}

/// Keeps a copy for an operator, unless its publisher has left enough of them.
async fn set_aside(
    programs: &Arc<Programs>,
    submission: &Submission,
    run: Option<RunId>,
    error: &ApiError,
    by: Option<&Caller>,
) -> SubmissionEnd {
    let rates = programs.authenticator.rates.limiter();
    let length = submission.payload.len();
    if !programs.letters.admit(rates, by, length).await {
        return SubmissionEnd::Dropped;
    }
    let reason = format!("{}: {}", error.code, error.message);
    let kept: Result<u64, PublishError> = programs
        .runs
        .bus
        .quarantine_submission(submission, run, &reason)
        .await;
    match kept {
        Ok(dead) => {
            tracing::warn!(dead, %reason, "a submission was set aside");
            SubmissionEnd::Quarantined
        }
        Err(failed) => {
            tracing::warn!(error = &failed as &dyn std::error::Error, %reason,
                           "a submission was refused, and no copy of it is kept");
            SubmissionEnd::Dropped
        }
    }
}

fn refused(error: &ApiError) -> SubmissionAnswer {
    SubmissionAnswer::refused(error.to_refusal())
}

async fn answer(
    programs: &Arc<Programs>,
    submission: &Submission,
    about: &About,
    verdict: &SubmissionAnswer,
) {
    let request_id = about.request_id.as_deref();
    let sent = programs
        .runs
        .bus
        .answer_submission(submission, about.run, request_id, verdict)
        .await;
    if let Err(error) = sent {
        tracing::debug!(%error, "a publisher was not answered, and will publish again");
    }
}
