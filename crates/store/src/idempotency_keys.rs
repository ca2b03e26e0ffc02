//! The table `idempotency_keys`. Its rows are written in the same statement as the accepted run:
//! see `runs/accept.rs`.

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
