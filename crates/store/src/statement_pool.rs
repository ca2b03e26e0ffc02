//! A pool for statements that are transactions of their own, which are nearly all that workers
//! send.
//!
//! sqlx's pool pings each connection when it is returned, in a separate task. That is one more
//! round trip for every statement, and the connection is unavailable for as long. This pool takes a
//! connection back once its statement was answered completely. Otherwise it closes the connection:
//! after a failure or a timeout, or if the caller gave up waiting.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres,
};
use sqlx::{Connection as _, Describe, Either, Error, Execute, Executor, SqlStr};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::errors::NotConnected;
use crate::metrics::{InUse, Pool};
use crate::statement::Statement;

/// A connection that was used more recently than this counts as alive.
pub(crate) const RESTED: Duration = Duration::from_secs(1);
/// A connection that has been idle for this long is closed.
const IDLE: Duration = Duration::from_mins(10);
/// The longest life of a connection, because its server process grows with the statements it has
/// seen.
const LIFETIME: Duration = Duration::from_hours(1);
/// The time for an answer to a statement, after which the network counts as lost.
const ANSWER: Duration = Duration::from_secs(15);
/// The time for an idle connection to answer a ping.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct StatementPool(Arc<Shared>);

struct Shared {
    name: Pool,
    connect: PgConnectOptions,
    /// The statement by which a new connection takes on its role.
    set_role: &'static str,
    max_connections: u32,
    acquire_timeout: Duration,
    permits: Semaphore,
    /// The idle connections, the most recently used last.
    resting: std::sync::Mutex<Vec<Resting>>,
}

struct Resting {
    connection: PgConnection,
    opened: Instant,
    used: Instant,
}

/// A connection for one statement or one transaction. It is closed if dropped before
/// [`Lent::settle`].
pub(crate) struct Lent<'p> {
    pool: &'p StatementPool,
    connection: Mutex<PgConnection>,
    opened: Instant,
    _in_use: InUse,
    _permit: SemaphorePermit<'p>,
}

impl StatementPool {
    pub(crate) fn new(
        name: Pool,
        connect: PgConnectOptions,
        set_role: &'static str,
        max_connections: u32,
        acquire_timeout: Duration,
    ) -> Self {
        name.may_have(max_connections);
        Self(Arc::new(Shared {
            name,
            connect,
            set_role,
            max_connections,
            acquire_timeout,
            permits: Semaphore::new(usize::try_from(max_connections).unwrap_or(usize::MAX >> 4)),
            resting: std::sync::Mutex::new(Vec::new()),
        }))
    }

    /// Makes a round trip.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        let mut lent = self.lend().await?;
        let answer = in_time(lent.connection().ping()).await;
        lent.settle(answer)
    }

    /// Waits for the statements in flight, at most for the acquire timeout, then closes all
    /// connections.
    pub(crate) async fn close(&self) {
        let all = self.0.permits.acquire_many(self.0.max_connections);
        let all = timeout(self.0.acquire_timeout, all).await;
        self.0.permits.close();
        drop(all);
        for resting in self.all_resting() {
            let _ = resting.connection.close().await;
        }
    }

    pub(crate) async fn lend(&self) -> Result<Lent<'_>, Error> {
        if let Ok(lent) = timeout(self.0.acquire_timeout, self.lend_in_time()).await {
            return lent;
        }
        self.0.name.timed_out();
        Err(Error::PoolTimedOut)
    }

    async fn lend_in_time(&self) -> Result<Lent<'_>, Error> {
        let asked = Instant::now();
        let permit = self
            .0
            .permits
            .acquire()
            .await
            .map_err(|_| Error::PoolClosed)?;
        self.0.name.waited(asked.elapsed());
        let in_use = self.0.name.lend();
        while let Some(mut resting) = self.last_resting() {
            if resting.opened.elapsed() > LIFETIME {
                continue;
            }
            let alive = resting.used.elapsed() < RESTED
                || matches!(
                    timeout(SIGN_OF_LIFE, resting.connection.ping()).await,
                    Ok(Ok(()))
                );
            if alive {
                return Ok(Lent {
                    pool: self,
                    connection: Mutex::new(resting.connection),
                    opened: resting.opened,
                    _in_use: in_use,
                    _permit: permit,
                });
            }
            // The server has gone, and the other idle connections with it.
            drop(self.all_resting());
        }
        let connected = async {
            let mut connection = PgConnection::connect_with(&self.0.connect).await?;
            connection.execute(self.0.set_role).await?;
            Ok(connection)
        };
        let connection = connected.await.map_err(NotConnected::mark)?;
        Ok(Lent {
            pool: self,
            connection: Mutex::new(connection),
            opened: Instant::now(),
            _in_use: in_use,
            _permit: permit,
        })
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Vec<Resting>> {
        // A poisoned lock is harmless: nothing under it can leave the list half changed.
        self.0
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn last_resting(&self) -> Option<Resting> {
        self.resting().pop()
    }

    fn all_resting(&self) -> Vec<Resting> {
        std::mem::take(&mut *self.resting())
    }
}

impl Lent<'_> {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.get_mut()
    }

    /// Returns the connection for several statements of one transaction, one after the other.
    pub(crate) const fn shared(&self) -> &Mutex<PgConnection> {
        &self.connection
    }

    /// Returns the connection to the pool if the statement was answered.
    pub(crate) fn settle<T>(self, answer: Result<T, Error>) -> Result<T, Error> {
        let answered = match &answer {
            Ok(_) => true,
            // The server refused the statement, unless it also ended the connection.
            Err(Error::Database(refusal)) => refusal
                .code()
                .is_some_and(|code| !code.starts_with("08") && !code.starts_with("57P")),
            Err(_) => false,
        };
        if answered {
            let now = Instant::now();
            let mut resting = self.pool.resting();
            resting.push(Resting {
                connection: self.connection.into_inner(),
                opened: self.opened,
                used: now,
            });
            if now.duration_since(resting[0].used) > IDLE {
                resting.remove(0);
            }
        } else {
            // The event that broke this connection has broken the idle ones too.
            drop(self.pool.all_resting());
        }
        answer
    }
}

pub(crate) async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

impl fmt::Debug for Lent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("pool", self.pool)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StatementPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementPool")
            .field("set_role", &self.0.set_role)
            .field("max_connections", &self.0.max_connections)
            .finish_non_exhaustive()
    }
}

impl<'p> Executor<'p> for &'p StatementPool {
    type Database = Postgres;

    /// Collects all rows first: the statements of this crate return few, and the connection is
    /// returned before the caller uses them.
    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        stream::once(async move {
            let statement = Statement::new(query)?;
            let mut lent = self.lend().await?;
            let answer = in_time(statement.fetch_all(lent.connection())).await;
            lent.settle(answer)
        })
        .map_ok(|items| stream::iter(items).map(Ok))
        .try_flatten()
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let statement = Statement::new(query)?;
            let mut lent = self.lend().await?;
            let answer = in_time(statement.fetch_optional(lent.connection())).await;
            lent.settle(answer)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let answer = in_time(lent.connection().prepare_with(sql, parameters)).await;
            lent.settle(answer)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        Box::pin(async move {
            let mut lent = self.lend().await?;
            let answer = in_time(lent.connection().describe(sql)).await;
            lent.settle(answer)
        })
    }
}
