//! A transaction that acts for one tenant.

use std::sync::Arc;

use baton_protocol::TenantId;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Postgres, Transaction};

use crate::errors::StoreError;
use crate::queue_depth::QueueDepth;

/// A transaction as `baton_app`, to which row-level security shows the rows of one tenant only.
/// Dropped without [`TenantTx::commit`], it is rolled back.
#[derive(Debug)]
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    pub(crate) tenant: TenantId,
    pub(crate) depth: Arc<QueueDepth>,
}

impl TenantTx {
    /// Sends BEGIN and the setting in one round trip. The id is a UUID by its type, so that its
    /// text is safe in the statement.
    pub(crate) async fn begin(
        pool: &PgPool,
        tenant: TenantId,
        depth: Arc<QueueDepth>,
    ) -> Result<Self, StoreError> {
        let begin = format!("BEGIN; SET LOCAL baton.tenant = '{tenant}'");
        let tx = pool.begin_with(AssertSqlSafe(begin)).await?;
        Ok(Self { tx, tenant, depth })
    }

    /// Returns the tenant that it acts for.
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant
    }

    /// Commits everything.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }

    /// Rolls everything back and waits for it; dropping rolls back without waiting.
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}
