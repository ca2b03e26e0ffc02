//! The statement that claims one run.

use crate::columns::{int4, int8};
use crate::errors::StoreError;
use crate::runs::claim::{Claim, ClaimRow};
use crate::system::SystemTx;

impl SystemTx<'_> {
    /// Returns the row of the claimed run; `None` if the claim changed nothing.
    pub(crate) async fn claim_alone(&self, claim: &Claim) -> Result<Option<ClaimRow>, StoreError> {
        let row = sqlx::query_as!(
            ClaimRow,
            r#"
            -- runs.claim
            UPDATE runs SET
                status = 'running',
                attempt = CASE WHEN status = 'running' AND claim_token = $4
                               THEN attempt ELSE attempt + 1 END,
                failures = CASE WHEN status = 'running' AND claim_token = $4
                                THEN failures ELSE failures + 1 END,
                claim_token = $4,
                worker_id = $3,
                job_seq = $6,
                lease_expires_at = clock_timestamp() + $5::interval,
                started_at = coalesce(started_at, clock_timestamp()),
                released_by = NULL
            WHERE tenant_id = $1 AND id = $2 AND (
                (status = 'running' AND claim_token = $4)
                OR ((status = 'queued'
                     OR (status = 'running' AND lease_expires_at <= clock_timestamp()))
                    AND cancel_requested_at IS NULL
                    AND failures < $7)
            )
            RETURNING attempt, failures, last_event_id, lane, thread_id, spec::text AS "spec!",
                      traceparent,
                      prompt_tokens, completion_tokens, total_tokens, created_at, queued_at,
                      started_at AS "started_at!",
                      (SELECT json_build_object(
                           'revoked', k.revoked_at IS NOT NULL, 'scopes', k.scopes,
                           'models', k.allowed_models, 'tools', k.allowed_tools,
                           'token_budget', metered AND k.monthly_tokens IS NOT NULL,
                           'cost_budget', metered AND k.monthly_cost_micros IS NOT NULL)::text
                       FROM api_keys k
                       WHERE k.tenant_id = runs.tenant_id AND k.id = runs.api_key_id) AS key
            "#,
            claim.tenant.as_uuid(),
            claim.run.as_uuid(),
            claim.worker.as_uuid(),
            claim.token.as_uuid(),
            claim.lease as _,
            int8(claim.job_seq),
            int4(claim.max_failures),
        )
        .fetch_optional(self.pool)
        .await?;
        Ok(row)
    }
}
