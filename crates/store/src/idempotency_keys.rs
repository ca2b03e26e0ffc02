//! The table `idempotency_keys`. Its rows are written in the same statement as the accepted run:
//! see `runs/accept.rs`. A message that joined a run is the other use: see `runs/on_busy.rs`.

use baton_protocol::RunId;

use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A client's key for a submission, which makes repeating it safe.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The key as the client sent it, 1 to 255 characters.
    pub key: String,
    /// The SHA-256 of the route and the body.
    pub fingerprint: [u8; 32],
}

/// The run that was accepted with a key, and the fingerprint of its submission.
pub(crate) struct UsedKey {
    pub(crate) run: RunId,
    pub(crate) fingerprint: Vec<u8>,
}

impl TenantTx {
    /// Records that a submission with this key joined a run; returns `false` if the key was used.
    pub(crate) async fn use_key(
        &mut self,
        key: &IdempotencyKey,
        run: RunId,
    ) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        let done = sqlx::query!(
            "
            -- idempotency_keys.use
            INSERT INTO idempotency_keys (tenant_id, key, fingerprint, run_id)
            VALUES ($1, $2, $3, $4)
            -- Waits for another transaction with this key, and yields no row if that commits.
            ON CONFLICT (tenant_id, key) DO NOTHING
            ",
            tenant.as_uuid(),
            key.key,
            &key.fingerprint[..],
            run.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn used_key(&mut self, key: &str) -> Result<Option<UsedKey>, StoreError> {
        let tenant = self.tenant;
        let row = sqlx::query!(
            "
            -- idempotency_keys.by_key
            SELECT run_id, fingerprint FROM idempotency_keys WHERE tenant_id = $1 AND key = $2
            ",
            tenant.as_uuid(),
            key,
        )
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(|row| UsedKey {
            run: RunId::from_uuid(row.run_id),
            fingerprint: row.fingerprint,
        }))
    }
}
