//! The database's clock, which all servers share.

use chrono::{DateTime, Utc};

use crate::{StoreError, SystemTx};

impl SystemTx<'_> {
    /// Returns the time by the database's clock.
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
