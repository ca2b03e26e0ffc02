//! `queued` → `running`: a worker claims a run. Also `running` → `running` after the lease has
//! expired, and the endings that are due at a claim: of a run that is to be cancelled, and of one
//! that was lost too often.
//!
//! The claim is one guarded UPDATE. Of several at once, one changes the row. The others wait for
//! its row lock, see the row as it then is, and change nothing. Only a claim that changed nothing
//! looks for the reason, by reading the row afterwards.

mod alone;
mod group;

use std::time::Duration;

use baton_protocol::{
    ClaimToken, EventId, Fence, Lane, RunError, RunId, RunStatus, TenantId, ThreadId, Usage,
    WorkerId,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(crate) use self::group::claim_group;
use crate::api_keys::KeyStanding;
use crate::approvals::ApprovalRecord;
use crate::columns::{self, int4, int8};
use crate::errors::StoreError;
use crate::runs::park::ParkedRun;
use crate::runs::{EndedColumns, EndedRun, ended_columns};
use crate::steps::StepRecord;
use crate::system::SystemTx;

/// A worker's request to claim a run.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The run's tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The worker.
    pub worker: WorkerId,
    /// A random token of this claim. A claim whose answer was lost is repeated with the same token.
    pub token: ClaimToken,
    /// The length of the lease: the time for which the worker holds the run without renewing.
    pub lease: Duration,
    /// The stream sequence of the job that the worker received.
    pub job_seq: u64,
    /// The number of claims without progress after which the run fails.
    pub max_failures: u32,
}

/// The outcome of a claim.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The worker now holds the run.
    Claimed(Box<ClaimedRun>),
    /// The run does not exist, or exists no longer.
    Gone,
    /// The run has ended, by this claim or earlier.
    Ended(EndedRun),
    /// Another worker holds it.
    Leased {
        /// The rest of its lease.
        remaining: Duration,
        /// Whether the other worker claimed it with the same job; if not, this job is a stray copy.
        same_job: bool,
    },
    /// The run must wait, because its thread is busy. The transaction that ends the wait publishes
    /// a job.
    Waiting,
    /// A person must decide first; the decision publishes a job.
    Parked(ParkedRun),
}

/// A claimed run, with all that is needed to resume it.
#[derive(Debug)]
pub struct ClaimedRun {
    /// The fence that every write of this attempt must present.
    pub fence: Fence,
    /// The JSON text of its `RunSpec`.
    pub spec_json: String,
    /// The current rights of the key that it was submitted with; `None` if there was no key.
    pub key: Option<KeyStanding>,
    /// The W3C trace context that its spans belong to.
    pub traceparent: Option<String>,
    /// The lane it came through.
    pub lane: Lane,
    /// The thread it continues.
    pub thread_id: Option<ThreadId>,
    /// The last event covered by a commit. An attempt after the first resumes after it.
    pub last_event_id: EventId,
    /// Claims since the last progress, this one included.
    pub failures: u32,
    /// The tokens of all recorded turns.
    pub usage: Usage,
    /// The time at which the run was accepted.
    pub created_at: DateTime<Utc>,
    /// The time at which it began to wait for this claim.
    pub queued_at: DateTime<Utc>,
    /// The time of the first claim, by the database's clock; on a first attempt, the time of this
    /// one.
    pub started_at: DateTime<Utc>,
    /// The steps that earlier attempts recorded, in order.
    pub recorded: Vec<StepRecord>,
    /// The questions to people, if a recorded call has no result yet.
    pub asked: Vec<ApprovalRecord>,
}

/// The columns of a claimed run.
#[derive(Debug)]
pub(crate) struct ClaimRow {
    attempt: i32,
    failures: i32,
    last_event_id: i64,
    lane: String,
    thread_id: Option<Uuid>,
    spec: String,
    traceparent: Option<String>,
    prompt_tokens: i64,
    completion_tokens: i64,
    total_tokens: i64,
    created_at: DateTime<Utc>,
    queued_at: DateTime<Utc>,
    started_at: DateTime<Utc>,
    key: Option<String>,
}

/// The row changes between a claim and the look at it only if others move it. That hardly ever
/// happens so many times in a row.
const LOOKS: usize = 8;

impl SystemTx<'_> {
    /// Claims a run. Repeated with the same token while the claim holds, it renews the lease and
    /// returns the same attempt again.
    pub async fn claim_run(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        for _ in 0..LOOKS {
            match self.try_claim(claim).await {
                Ok(Some(claimed)) => return Ok(ClaimOutcome::Claimed(Box::new(claimed))),
                Ok(None) => {}
                Err(error) if is_thread_busy(&error) => return Ok(ClaimOutcome::Waiting),
                Err(error) => return Err(error),
            }
            if let Some(outcome) = self.why_not_claimed(claim).await? {
                return Ok(outcome);
            }
            if let Some(ended) = self.end_instead_of_claiming(claim).await? {
                return Ok(ClaimOutcome::Ended(ended));
            }
        }
        // Others keep moving the run; the worker should retry soon.
        Ok(ClaimOutcome::Leased {
            remaining: Duration::ZERO,
            same_job: true,
        })
    }

    async fn try_claim(&self, claim: &Claim) -> Result<Option<ClaimedRun>, StoreError> {
        let grouped = match self.groups {
            Some(groups) => groups.claim(claim).await,
            None => None,
        };
        let row = match grouped {
            Some(answer) => answer?,
            None => self.claim_alone(claim).await?,
        };
        match row {
            Some(row) => self.claimed(claim, row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Adds what earlier attempts recorded to a claimed run.
    async fn claimed(&self, claim: &Claim, row: ClaimRow) -> Result<ClaimedRun, StoreError> {
        let attempt = columns::count(row.attempt);
        let key = row
            .key
            .map(|key| {
                serde_json::from_str(&key)
                    .map_err(|error| StoreError::unreadable("api_keys", &error.to_string()))
            })
            .transpose()?;
        // Only the holder writes steps, and the holder is now this attempt.
        let recorded = if attempt > 1 {
            self.recorded_steps(claim.tenant, claim.run).await?
        } else {
            Vec::new()
        };
        let asked = if recorded.iter().any(StepRecord::is_open_call) {
            self.run_approvals(claim.tenant, claim.run).await?
        } else {
            Vec::new()
        };
        Ok(ClaimedRun {
            fence: Fence {
                tenant: claim.tenant,
                run: claim.run,
                attempt,
                token: claim.token,
            },
            spec_json: row.spec,
            key,
            traceparent: row.traceparent,
            lane: columns::lane(&row.lane)?,
            thread_id: row.thread_id.map(ThreadId::from_uuid),
            last_event_id: columns::event_id(row.last_event_id),
            failures: columns::count(row.failures),
            usage: columns::usage(row.prompt_tokens, row.completion_tokens, row.total_tokens),
            created_at: row.created_at,
            queued_at: row.queued_at,
            started_at: row.started_at,
            recorded,
            asked,
        })
    }

    /// Returns the reason why a claim changed nothing; `None` if a claim may succeed by now.
    async fn why_not_claimed(&self, claim: &Claim) -> Result<Option<ClaimOutcome>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- runs.why_not_claimed
            SELECT status, attempt, last_event_id, prompt_tokens, completion_tokens, total_tokens,
                   finish_reason, error_code, error_message,
                   error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                   extract(epoch FROM finished_at - cancel_requested_at)::float8
                       AS cancel_seconds,
                   coalesce(job_seq = $3, false) AS "same_job!",
                   extract(epoch FROM lease_expires_at - clock_timestamp())::float8
                       AS lease_seconds
            FROM runs WHERE tenant_id = $1 AND id = $2
            "#,
            claim.tenant.as_uuid(),
            claim.run.as_uuid(),
            int8(claim.job_seq),
        )
        .fetch_optional(self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(Some(ClaimOutcome::Gone));
        };
        Ok(match columns::status(&row.status)? {
            RunStatus::Queued => None,
            RunStatus::AwaitingApproval => Some(ClaimOutcome::Parked(ParkedRun {
                attempt: columns::count(row.attempt),
                last_event_id: columns::event_id(row.last_event_id),
            })),
            RunStatus::Running => row
                .lease_seconds
                .filter(|seconds| *seconds > 0.0)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .map(|remaining| ClaimOutcome::Leased {
                    remaining,
                    same_job: row.same_job,
                }),
            RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => {
                let columns = ended_columns!(row);
                Some(ClaimOutcome::Ended(columns.read(false)?))
            }
        })
    }

    /// Ends a run without a holder that is to be cancelled or was lost too often.
    async fn end_instead_of_claiming(&self, claim: &Claim) -> Result<Option<EndedRun>, StoreError> {
        let poisoned = RunError::poisoned(claim.max_failures);
        let columns = sqlx::query_as!(
            EndedColumns,
            r#"
            -- runs.end_instead_of_claiming
            UPDATE runs SET
                status = CASE WHEN cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END,
                error_code = CASE WHEN cancel_requested_at IS NULL THEN $4 END,
                error_message = CASE WHEN cancel_requested_at IS NULL THEN $5 END,
                attempt = attempt + 1,
                last_event_id = ((attempt + 1)::bigint << 32)
                                | CASE attempt WHEN 0 THEN 1 ELSE 2 END,
                lease_expires_at = NULL,
                finished_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2
              AND (status = 'queued'
                   OR (status = 'running' AND lease_expires_at <= clock_timestamp()))
              AND (cancel_requested_at IS NOT NULL OR failures >= $3)
            RETURNING status AS "status!", attempt, last_event_id, prompt_tokens,
                      completion_tokens, total_tokens, finish_reason, error_code, error_message,
                      error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                      extract(epoch FROM finished_at - cancel_requested_at)::float8
                          AS cancel_seconds
            "#,
            claim.tenant.as_uuid(),
            claim.run.as_uuid(),
            int4(claim.max_failures),
            poisoned.code,
            poisoned.message,
        )
        .fetch_optional(self.pool)
        .await?;
        columns.map(|columns| columns.read(true)).transpose()
    }
}

/// Returns whether a claim failed because another run of the thread is active.
fn is_thread_busy(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(refused) => refused
            .as_database_error()
            .is_some_and(|refused| refused.constraint() == Some("runs_thread_active")),
        _ => false,
    }
}
