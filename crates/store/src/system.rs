//! The operations of workers and schedulers across tenants.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Describe, Either, Error, Execute, Executor, SqlStr};
use tokio::sync::Mutex;

use crate::errors::StoreError;
use crate::groups::Groups;
use crate::statement::{Statement, Timer};
use crate::statement_pool::{Lent, StatementPool, in_time};

/// The operations across tenants, as the role `baton_system`. Each method is one statement, which
/// commits by itself or with others of its kind, unless this is part of [`OneCommit`].
#[derive(Debug, Clone, Copy)]
pub struct SystemTx<'s> {
    pub(crate) pool: Statements<'s>,
    /// The groups that a statement may join; `None` within a larger commit.
    pub(crate) groups: Option<&'s Groups>,
}

impl<'s> SystemTx<'s> {
    pub(crate) const fn new(pool: &'s StatementPool, groups: &'s Groups) -> Self {
        Self {
            pool: Statements::Each(pool),
            groups: Some(groups),
        }
    }

    /// Returns the operations without groups.
    pub(crate) const fn alone(pool: &'s StatementPool) -> Self {
        Self {
            pool: Statements::Each(pool),
            groups: None,
        }
    }
}

/// Several operations in one commit, for instance an action and its audit entry. Dropped without
/// [`OneCommit::commit`], it is rolled back.
#[derive(Debug)]
pub struct OneCommit<'s> {
    lent: Lent<'s>,
}

impl<'s> OneCommit<'s> {
    pub(crate) async fn begin(pool: &'s StatementPool) -> Result<Self, StoreError> {
        let mut lent = pool.lend().await?;
        in_time(lent.connection().execute("BEGIN")).await?;
        Ok(Self { lent })
    }

    /// Returns the operations; none of them is durable before [`OneCommit::commit`]. Once a
    /// statement is refused, all later ones are.
    pub const fn system(&self) -> SystemTx<'_> {
        SystemTx {
            pool: Statements::Together(self.lent.shared()),
            groups: None,
        }
    }

    /// Commits everything.
    pub async fn commit(self) -> Result<(), StoreError> {
        let _timer = Timer::start("commit");
        self.end("COMMIT").await
    }

    /// Rolls everything back. Dropping does the same, and closes the connection.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), StoreError> {
        let ended = in_time(self.lent.connection().execute(how)).await;
        self.lent.settle(ended)?;
        Ok(())
    }
}

/// The destination of statements: a connection for each, or that of one transaction for all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Statements<'s> {
    Each(&'s StatementPool),
    Together(&'s Mutex<PgConnection>),
}

impl<'p> Executor<'p> for Statements<'p> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::Each(pool) => pool.fetch_many(query),
            Self::Together(connection) => stream::once(async move {
                let statement = Statement::new(query)?;
                let mut connection = connection.lock().await;
                in_time(statement.fetch_all(&mut connection)).await
            })
            .map_ok(|items| stream::iter(items).map(Ok))
            .try_flatten()
            .boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::Each(pool) => pool.fetch_optional(query),
            Self::Together(connection) => Box::pin(async move {
                let statement = Statement::new(query)?;
                let mut connection = connection.lock().await;
                in_time(statement.fetch_optional(&mut connection)).await
            }),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        match self {
            Self::Each(pool) => pool.prepare_with(sql, parameters),
            Self::Together(connection) => Box::pin(async move {
                let mut connection = connection.lock().await;
                in_time(connection.prepare_with(sql, parameters)).await
            }),
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        match self {
            Self::Each(pool) => pool.describe(sql),
            Self::Together(connection) => Box::pin(async move {
                let mut connection = connection.lock().await;
                in_time(connection.describe(sql)).await
            }),
        }
    }
}
