//! Programs submit runs: what HTTP does behind `POST /v1/runs`, and an answer in the end.
//!
//! The run's row decides; a message whose answer was lost is published again under the same run id,
//! and finds its run. What is no submission at all is kept in DEAD for an operator, as much of it as
//! one publisher may leave there.

use std::sync::Arc;

use baton_admission::{Acceptance, Invalid, SubmitRequest, check_depth};
use baton_nats::{Answer, PublishError, Submission, SubmissionAnswer, Submissions};
use baton_protocol::{BadSubmission, RunId, RunStatus, SubmitJob};
use http::StatusCode;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::requests::{Unknown, identify};
use crate::attachments::OnClose;
use crate::auth::{Caller, RunsWrite, Scope as _};
use crate::error::ApiError;
use crate::metrics::{self, Door, SubmissionEnd};
use crate::rate::limit_caller;
use crate::state::AppState;
use crate::submission::{Submitted, Wanted, key_of_run, submit};

/// What an ingress holds of submissions at a time, in units of 64 KiB: so many bytes, or so many
/// messages if they are smaller. Beyond that they are refused until there is room again.
const ROOM: usize = 512;
const UNIT: usize = 64 << 10;

/// Takes submissions until this process stops; those that were handed to it are answered.
pub(super) async fn take_submissions(state: AppState, mut submissions: Submissions) {
    let room = Arc::new(Semaphore::new(ROOM));
    let stop = state.stopping.native.clone();
    loop {
        let submission = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            submission = submissions.next() => submission,
        };
        let Some(submission) = submission else { return };
        take(&state, &room, submission).await;
    }
    let rest = async {
        submissions.stop().await;
        while let Some(submission) = submissions.next().await {
            take(&state, &room, submission).await;
        }
    };
    tokio::select! {
        () = rest => {}
        () = state.stopping.all.cancelled() => {}
    }
}

/// Begins with one, or says that there is no room for it.
async fn take(state: &AppState, room: &Arc<Semaphore>, submission: Submission) {
    let units = u32::try_from(1 + submission.payload.len() / UNIT).unwrap_or(u32::MAX);
    let Ok(place) = Arc::clone(room).try_acquire_many_owned(units) else {
        let run = read(&submission).map_or_else(|bad| bad.run_id, |job| Some(job.run_id));
        let busy = ApiError::unavailable("busy", "too much is submitted at once: publish it again");
        metrics::submission(SubmissionEnd::Busy);
        return answer(state, &submission, run, &refused(&busy)).await;
    };
    let span = tracing::info_span!(
        "submission",
        run_id = tracing::field::Empty,
        request.id = submission.headers.request_id.as_deref().unwrap_or_default(),
    );
    let work = {
        let state = state.clone();
        async move {
            judge(&state, &submission).await;
            drop(place);
        }
    };
    state.shutdown.tracker.spawn(work.instrument(span));
}

/// Why a submission is not accepted.
enum NotAccepted {
    /// As HTTP would say; the program may do better.
    Refused(ApiError),
    /// Nobody here can make anything of it: to be looked at by an operator.
    Unusable {
        error: ApiError,
        /// Who sent it, if that is known.
        by: Option<Arc<Caller>>,
    },
}

impl From<ApiError> for NotAccepted {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

async fn judge(state: &AppState, submission: &Submission) {
    let job = read(submission);
    let run = match &job {
        Ok(job) => Some(job.run_id),
        Err(bad) => bad.run_id,
    };
    let (verdict, end) = match accept(state, submission, job).await {
        Ok(accepted) => (accepted, SubmissionEnd::Accepted),
        Err(NotAccepted::Refused(error)) => (refused(&error), SubmissionEnd::Refused),
        Err(NotAccepted::Unusable { error, .. }) if submission.again => {
            (refused(&error), SubmissionEnd::Refused)
        }
        Err(NotAccepted::Unusable { error, by }) => {
            let end = set_aside(state, submission, run, &error, by.as_deref()).await;
            (refused(&error), end)
        }
    };
    metrics::submission(end);
    answer(state, submission, run, &verdict).await;
}

/// Nested no deeper than what reads it can bear, and a submission.
fn read(submission: &Submission) -> Result<SubmitJob, BadSubmission> {
    check_depth(&submission.payload).map_err(|invalid| BadSubmission {
        code: invalid.code,
        message: invalid.message,
        run_id: None,
    })?;
    SubmitJob::decode(&submission.payload)
}

async fn accept(
    state: &AppState,
    submission: &Submission,
    job: Result<SubmitJob, BadSubmission>,
) -> Result<SubmissionAnswer, NotAccepted> {
    let bad =
        |code: &'static str, message: String, by: Option<&Arc<Caller>>| NotAccepted::Unusable {
            error: ApiError::new(StatusCode::BAD_REQUEST, code, message),
            by: by.map(Arc::clone),
        };
    let tenant = match &submission.tenant {
        Ok(tenant) => *tenant,
        Err(wrong) => return Err(bad("invalid_subject", wrong.clone(), None)),
    };
    let (_, caller) = identify(state, tenant, &submission.publisher)
        .await
        .map_err(|unknown| match unknown {
            Unknown::Nobody(error) => NotAccepted::Unusable { error, by: None },
            Unknown::Unavailable(error) => NotAccepted::Refused(error),
        })?;
    caller.check_alive(state.clock.now())?;
    // What an operator submits again was counted when it came.
    if !submission.again {
        limit_caller(&caller, state).await?;
    }
    caller.check(RunsWrite::NAME, state.clock.now())?;
    let lane = match &submission.lane {
        Ok(lane) => *lane,
        Err(wrong) => return Err(bad("invalid_subject", wrong.clone(), Some(&caller))),
    };
    let job = job.map_err(|wrong| bad(wrong.code, wrong.message, Some(&caller)))?;
    let body = job.request.get().as_bytes();
    let request = SubmitRequest::parse_submitted(body, lane).map_err(|invalid: Invalid| {
        NotAccepted::Unusable {
            error: invalid.into(),
            by: Some(Arc::clone(&caller)),
        }
    })?;
    let wanted = Wanted {
        caller,
        run: Some(job.run_id),
        request,
        idempotency: Some(key_of_run(job.run_id, lane.as_str(), body)),
        follow: false,
        on_close: OnClose::LeaveRunning,
        headers: submission.headers.clone(),
        door: Door::Bus,
    };
    let Submitted { accepted, .. } = submit(state, wanted).await?;
    let (replayed, status) = match &accepted.acceptance {
        Acceptance::Created(_) => (false, RunStatus::Queued),
        Acceptance::Replay(record) => (true, record.status),
    };
    Ok(SubmissionAnswer {
        answer: Answer::Done { status },
        replayed,
    })
}

/// Keeps a copy for an operator, unless its publisher has left enough of them.
async fn set_aside(
    state: &AppState,
    submission: &Submission,
    run: Option<RunId>,
    error: &ApiError,
    by: Option<&Caller>,
) -> SubmissionEnd {
    let length = submission.payload.len();
    if !state.letters.admit(&state.rates, by, length).await {
        return SubmissionEnd::Dropped;
    }
    let reason = format!("{}: {}", error.code, error.message);
    let kept: Result<u64, PublishError> = state
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
    state: &AppState,
    submission: &Submission,
    run: Option<RunId>,
    verdict: &SubmissionAnswer,
) {
    let sent = state.bus.answer_submission(submission, run, verdict).await;
    if let Err(error) = sent {
        tracing::debug!(%error, "a publisher was not answered, and will publish again");
    }
}
