//! The clock that all servers share.

use chrono::{DateTime, Utc};

use crate::{StoreError, SystemTx};

impl SystemTx<'_> {
    /// What time it is at the database.
    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let now = sqlx::query_scalar!(
            "
            -- clock.now
            SELECT clock_timestamp() AS \"now!\"
            "
        );
        Ok(now.fetch_one(self.pool).await?)
    }
}
