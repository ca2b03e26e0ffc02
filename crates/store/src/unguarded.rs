//! The attempt guard switched off: writes of a replaced attempt are taken. Only in builds with the
//! feature `chaos`, and only if asked for; see `baton_protocol::chaos`.

use baton_protocol::chaos::Mechanism;
use baton_protocol::{ClaimToken, Fence};
use uuid::Uuid;

use crate::FinishCommit;
use crate::columns::{count, int4, int8};
use crate::errors::StoreError;
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// The fences themselves; with the guard off, those of whoever holds the runs.
    pub(crate) async fn whoever_holds_each(
        &self,
        fences: &[Fence],
    ) -> Result<Vec<Fence>, StoreError> {
        let mut held = Vec::with_capacity(fences.len());
        for fence in fences {
            held.push(self.whoever_holds(fence).await?);
        }
        Ok(held)
    }

    /// See [`SystemTx::whoever_holds_each`].
    pub(crate) async fn whoever_holds(&self, fence: &Fence) -> Result<Fence, StoreError> {
        if !Mechanism::AttemptGuard.is_off() {
            return Ok(*fence);
        }
        let (attempt, token): (i32, Option<Uuid>) = sqlx::query_as(
            "
            -- runs.whoever_holds
            SELECT attempt, claim_token FROM runs WHERE tenant_id = $1 AND id = $2
            ",
        )
        .bind(fence.tenant.as_uuid())
        .bind(fence.run.as_uuid())
        .fetch_one(self.pool)
        .await?;
        Ok(Fence {
            attempt: count(attempt),
            token: token.map_or(fence.token, |token| {
                ClaimToken::from_random(token.as_u128())
            }),
            ..*fence
        })
    }

    /// With the guard off, ends a run that answered, whoever holds it; one statement like the guarded
    /// one, so that it may arrive as late. Says whether it did.
    pub(crate) async fn finish_unguarded(
        &self,
        fence: &Fence,
        finish: &FinishCommit<'_>,
    ) -> Result<bool, StoreError> {
        let (true, Some(turn)) = (Mechanism::AttemptGuard.is_off(), &finish.turn) else {
            return Ok(false);
        };
        let done = sqlx::query(
            "
            -- runs.finish_unguarded
            WITH ended AS (
                UPDATE runs SET
                    status = 'completed', finish_reason = $3, last_event_id = $4,
                    lease_expires_at = NULL, finished_at = clock_timestamp()
                WHERE tenant_id = $1 AND id = $2 AND status = 'running'
                RETURNING thread_id
            ), recorded AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, finish_reason,
                                   prompt_tokens, completion_tokens, total_tokens, last_event_id,
                                   finished_at)
                SELECT $1, $2, $5, $6, 'turn', 'finished', $3, 0, 0, 0, $4, clock_timestamp()
                FROM ended
                ON CONFLICT DO NOTHING
            )
            INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
            SELECT $1, $2, $5, ended.thread_id, $7::json FROM ended
            ON CONFLICT DO NOTHING
            ",
        )
        .bind(fence.tenant.as_uuid())
        .bind(fence.run.as_uuid())
        .bind(turn.finish_reason.as_str())
        .bind(int8(finish.last_event_id.as_u64()))
        .bind(int4(turn.step))
        .bind(int4(fence.attempt))
        .bind(turn.message)
        .execute(self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
