//! `running` → `running`: the holder renews its lease. `running` → `queued`: the holder gives the
//! run back.

use std::collections::HashMap;
use std::time::Duration;

use baton_protocol::{EventId, Fence};
use uuid::Uuid;

use crate::columns::{int4, int8};
use crate::errors::{FenceError, StoreError};
use crate::run_inputs::WaitingInput;
use crate::system::SystemTx;

/// A renewed lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The reason of a cancel request, if there is one: the holder must stop.
    pub cancel_requested: Option<String>,
    /// The messages that wait for the run, in order.
    pub waiting: Vec<WaitingInput>,
}

impl SystemTx<'_> {
    /// Confirms that a worker is alive and still holds these runs, all in one statement, and
    /// extends their leases to `lease` from now. A lease may have expired, as long as no other
    /// attempt claimed the run. Without a length the leases stay as they are, and the write to the
    /// rows alone shows that the worker is alive: see [`SystemTx::requeue_silent`].
    ///
    /// The answers are in the order of `fences`; `None` means that this attempt no longer holds the
    /// run.
    pub async fn renew_leases(
        &self,
        fences: &[Fence],
        lease: Option<Duration>,
    ) -> Result<Vec<Option<Renewal>>, StoreError> {
        let tenants: Vec<Uuid> = fences.iter().map(|fence| fence.tenant.as_uuid()).collect();
        let runs: Vec<Uuid> = fences.iter().map(|fence| fence.run.as_uuid()).collect();
        let attempts: Vec<i32> = fences.iter().map(|fence| int4(fence.attempt)).collect();
        let tokens: Vec<Uuid> = fences.iter().map(|fence| fence.token.as_uuid()).collect();
        let rows = sqlx::query!(
            r#"
            -- runs.renew_leases
            UPDATE runs SET
                lease_expires_at = coalesce(clock_timestamp() + $5::interval, lease_expires_at)
            FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[])
                 AS held (tenant_id, id, attempt, token)
            WHERE runs.tenant_id = held.tenant_id AND runs.id = held.id
              AND runs.attempt = held.attempt AND runs.claim_token = held.token
              AND runs.status = 'running'
            RETURNING held.token AS "token!",
                      CASE WHEN cancel_requested_at IS NOT NULL
                           THEN coalesce(cancel_reason, '') END AS cancel,
                      CASE WHEN waiting_inputs > 0 THEN (
                          SELECT json_agg(json_build_object('id', sent.id, 'position', sent.position,
                                                            'accepted_event_id', sent.accepted_event_id)
                                          ORDER BY sent.position)::text
                          FROM run_inputs AS sent
                          WHERE sent.tenant_id = runs.tenant_id AND sent.run_id = runs.id
                            AND sent.step IS NULL) END AS waiting
            "#,
            &tenants,
            &runs,
            &attempts,
            &tokens,
            lease as _,
        )
        .fetch_all(self.pool)
        .await?;
        // The key is the token and not the run: a worker may still be closing an attempt while it
        // holds the next one too, and two tenants may use one id.
        let renewed = rows
            .into_iter()
            .map(|row| {
                let waiting = row.waiting.map(|waiting| {
                    serde_json::from_str(&waiting)
                        .map_err(|_| StoreError::unreadable("run_inputs", &waiting))
                });
                let renewal = Renewal {
                    cancel_requested: row.cancel,
                    waiting: waiting.transpose()?.unwrap_or_default(),
                };
                Ok((row.token, renewal))
            })
            .collect::<Result<HashMap<Uuid, Renewal>, StoreError>>()?;
        Ok(fences
            .iter()
            .map(|fence| renewed.get(&fence.token.as_uuid()).cloned())
            .collect())
    }

    /// Requeues the run, so that the next worker need not wait for the lease to expire; this is no
    /// failure of the run. `last_event_id` is the event that the next attempt resumes after: that
    /// of the last step's commit, or a finished-event after it.
    pub async fn hand_over(&self, fence: &Fence, last_event_id: EventId) -> Result<(), FenceError> {
        let done = sqlx::query!(
            "
            -- runs.hand_over
            UPDATE runs SET
                status = 'queued',
                failures = greatest(failures - 1, 0),
                last_event_id = greatest(last_event_id, $5),
                lease_expires_at = NULL,
                released_by = 'handed_over',
                queued_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
              AND status = 'running'
            ",
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(last_event_id.as_u64()),
        )
        .execute(self.pool)
        .await?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(FenceError::Lost)
        }
    }
}
