//! A transaction that acts for one tenant.

use std::sync::Arc;

use baton_protocol::TenantId;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{
    PgConnection, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres,
};
use sqlx::{AssertSqlSafe, Describe, Either, Error, Execute, Executor, SqlStr, Transaction};

use crate::errors::StoreError;
use crate::queue_depth::QueueDepth;
use crate::statement::{Statement, Timer};

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
        let _timer = Timer::start("commit");
        Ok(self.tx.commit().await?)
    }

    /// Rolls everything back and waits for it; dropping rolls back without waiting.
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }

    /// Returns the destination of the transaction's statements.
    pub(crate) fn connection(&mut self) -> Within<'_> {
        Within(&mut self.tx)
    }
}

/// The connection of a transaction, which times its statements.
#[derive(Debug)]
pub(crate) struct Within<'t>(&'t mut PgConnection);

impl<'t> Executor<'t> for Within<'t> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        stream::once(async move { Statement::new(query)?.fetch_all(self.0).await })
            .map_ok(|items| stream::iter(items).map(Ok))
            .try_flatten()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { Statement::new(query)?.fetch_optional(self.0).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        't: 'e,
    {
        self.0.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        't: 'e,
    {
        self.0.describe(sql)
    }
}
