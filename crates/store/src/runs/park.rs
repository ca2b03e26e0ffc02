//! `running` → `awaiting_approval`: calls of the run wait for a person, or the run waits at a limit of its
//! own. The questions, the state and the release of the lease are one statement and one commit.

use std::time::Duration;

use baton_protocol::{ApprovalId, ApprovalReason, EventId, Fence, ReachedLimit, RequestedInput};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns::{int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::system::SystemTx;

/// The data of parking a run.
#[derive(Debug, Clone)]
pub struct ParkCommit<'a> {
    /// The questions, at least one, in the order of their steps.
    pub approvals: &'a [NewApproval],
    /// The time after which each is decided as `fail`, `reject`, `stop` or `cancel`, if nobody decides it.
    pub expire_after: Duration,
    /// The id of the last question event; each question has one. They are appended after this
    /// commit.
    pub last_event_id: EventId,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApproval {
    /// Its id.
    pub id: ApprovalId,
    /// The call that waits, or the step that a run at its limit waits before.
    pub step: u32,
    /// The reason for the question.
    pub reason: ApprovalReason,
    /// The JSON text of the schema that a person's own arguments must match; `None` if none can be given.
    pub parameters: Option<String>,
    /// The limit that the run has reached; `None` for a call.
    pub reached: Option<ReachedLimit>,
    /// The input that the tool's server asks for; `None` for other reasons.
    pub input: Option<RequestedInput>,
}

/// The outcome of parking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkOutcome {
    /// The run waits, and nobody holds it.
    Parked {
        /// The time at which its questions expire.
        expires_at: DateTime<Utc>,
    },
    /// A client asked for the cancel of the run, for this reason. The attempt still holds the run
    /// and must end it.
    CancelRequested(String),
}

/// A run that waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedRun {
    /// The attempt that parked it.
    pub attempt: u32,
    /// The id of the last question event.
    pub last_event_id: EventId,
}

impl SystemTx<'_> {
    /// Parks the run; this is no failure of the run. Repeated after its answer was lost, it changes
    /// nothing.
    pub async fn park_run(
        &self,
        fence: &Fence,
        park: &ParkCommit<'_>,
    ) -> Result<ParkOutcome, FenceError> {
        let of = |f: fn(&NewApproval) -> Uuid| park.approvals.iter().map(f).collect::<Vec<_>>();
        let ids = of(|approval| approval.id.as_uuid());
        let steps: Vec<i32> = park
            .approvals
            .iter()
            .map(|approval| int4(approval.step))
            .collect();
        let reasons: Vec<String> = park
            .approvals
            .iter()
            .map(|approval| approval.reason.as_str().to_owned())
            .collect();
        let parameters: Vec<Option<String>> = park
            .approvals
            .iter()
            .map(|approval| approval.parameters.clone())
            .collect();
        let reached: Vec<Option<String>> = park
            .approvals
            .iter()
            .map(|approval| {
                let reached = approval.reached.as_ref();
                reached.map(serde_json::to_string).transpose()
            })
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::unreadable("approvals.reached", &error.to_string()))?;
        let input: Vec<Option<String>> = park
            .approvals
            .iter()
            .map(|approval| {
                let input = approval.input.as_ref();
                input.map(serde_json::to_string).transpose()
            })
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::unreadable("approvals.input", &error.to_string()))?;
        let parked = sqlx::query!(
            r#"
            -- runs.park
            WITH held AS (
                UPDATE runs SET
                    status = 'awaiting_approval',
                    failures = 0,
                    last_event_id = $5,
                    lease_expires_at = NULL,
                    released_by = 'parked'
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running' AND cancel_requested_at IS NULL
                RETURNING id
            ), asked AS (
                INSERT INTO approvals
                    (tenant_id, id, run_id, step, attempt, reason, parameters, reached, input,
                     expires_at)
                SELECT $1, new.id, $2, new.step, $3, new.reason, new.parameters::json,
                       new.reached::json, new.input::json, statement_timestamp() + $9::interval
                FROM held, unnest($6::uuid[], $7::integer[], $8::text[], $10::text[], $11::text[],
                                  $12::text[])
                               AS new (id, step, reason, parameters, reached, input)
            )
            SELECT statement_timestamp() + $9::interval AS "expires_at!" FROM held
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(park.last_event_id.as_u64()),
            &ids,
            &steps,
            &reasons,
            park.expire_after as _,
            &parameters as &[Option<String>],
            &reached as &[Option<String>],
            &input as &[Option<String>],
        )
        .fetch_optional(self.pool)
        .await?;
        if let Some(parked) = parked {
            let expires_at = parked.expires_at;
            return Ok(ParkOutcome::Parked { expires_at });
        }
        let row = sqlx::query!(
            r#"
            -- runs.why_not_parked
            SELECT coalesce(cancel_reason, '') AS "cancel_reason!",
                   (SELECT max(expires_at) FROM approvals
                    WHERE runs.status = 'awaiting_approval' AND approvals.tenant_id = $1
                      AND run_id = $2 AND approvals.attempt = $3) AS expires_at
            FROM runs
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND (status = 'running' AND cancel_requested_at IS NOT NULL
                   OR status = 'awaiting_approval' AND last_event_id = $5)
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(park.last_event_id.as_u64()),
        )
        .fetch_optional(self.pool)
        .await?
        .ok_or(FenceError::Lost)?;
        Ok(match row.expires_at {
            Some(expires_at) => ParkOutcome::Parked { expires_at },
            None => ParkOutcome::CancelRequested(row.cancel_reason),
        })
    }
}
