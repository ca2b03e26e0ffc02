//! The table `sealing_keys`.

use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

impl TenantTx {
    /// Returns the key with which the tenant's summaries are sealed; `None` if none was ever sealed.
    pub async fn sealing_key(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let tenant = self.tenant;
        let key = sqlx::query_scalar!(
            "
            -- sealing_keys.read
            SELECT key FROM sealing_keys WHERE tenant_id = $1
            ",
            tenant.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        // A CHECK holds its length.
        Ok(key.and_then(|key| key.try_into().ok()))
    }

    /// Keeps `fresh` as the tenant's key, unless it has one.
    pub async fn make_sealing_key(&mut self, fresh: [u8; 32]) -> Result<(), StoreError> {
        let tenant = self.tenant;
        sqlx::query!(
            "
            -- sealing_keys.make
            INSERT INTO sealing_keys (tenant_id, key) VALUES ($1, $2)
            -- Waits for another transaction that makes it, and then leaves that one's.
            ON CONFLICT (tenant_id) DO NOTHING
            ",
            tenant.as_uuid(),
            &fresh[..],
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
