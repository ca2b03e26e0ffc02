//! The database connections. Each acts either for a tenant or for the system, never for both.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_protocol::TenantId;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _};

use crate::errors::StoreError;
use crate::groups::Groups;
use crate::metrics::{self, Pool};
use crate::migrate::{MigrationName, pending};
use crate::queue_depth::QueueDepth;
use crate::statement_pool::{RESTED, StatementPool};
use crate::system::{OneCommit, SystemTx};
use crate::tenant_tx::TenantTx;

/// The address of the database and the settings of its connections.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://user:password@host:port/database`. The user is a member of `baton_app` and
    /// `baton_system`, and owns nothing.
    pub url: String,
    /// The most connections of this store, at least 3, divided between its three pools. They are
    /// opened when needed.
    pub max_connections: u32,
    /// The time that a caller waits for a free connection before the database counts as
    /// unavailable.
    pub acquire_timeout: Duration,
    /// The time after which a group of rows counts as slow: further rows no longer wait for it.
    pub slow_group: Duration,
    /// The name in `pg_stat_activity`, for instance `baton-worker`.
    pub application_name: String,
}

/// The connections of a store, by pool. A role's frequent statements are single ones: of the system
/// while runs are executed, of a tenant while they are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    system: u32,
    accepts: u32,
    transactions: u32,
}

impl Shares {
    /// Divides `connections`; each pool has at least one.
    fn of(connections: u32) -> Self {
        let system = (connections / 2).max(1);
        let accepts = (connections / 4).max(1);
        let transactions = connections.saturating_sub(system + accepts).max(1);
        Self {
            system,
            accepts,
            transactions,
        }
    }
}

/// A reason why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be read.
    #[error("the database's address cannot be read")]
    Address(#[source] sqlx::Error),
    /// The database cannot be reached. Trying again may help, because it may be starting.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// The schema is older than this build.
    #[error("the database lacks migrations of this version ({}): run `baton migrate`", names(.0))]
    Pending(Vec<MigrationName>),
    /// The user may not act as one of the two roles.
    #[error(
        "the database user may not act as {role}: run `baton migrate`, which grants it to the user of DATABASE_URL"
    )]
    Role {
        /// The role.
        role: &'static str,
        /// The error from the database.
        source: sqlx::Error,
    },
}

fn names(missing: &[MigrationName]) -> String {
    let mut list = String::new();
    for name in missing {
        let comma = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{comma}{name}");
    }
    list
}

const BECOME_APP: &str = "SET ROLE baton_app";
const BECOME_SYSTEM: &str = "SET ROLE baton_system";

/// The ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// Transactions of several statements that act for a tenant.
    tenant_transactions: PgPool,
    /// Single statements that set their tenant themselves.
    pub(crate) tenant_statements: StatementPool,
    system_statements: StatementPool,
    pub(crate) groups: Arc<Groups>,
    pub(crate) depth: Arc<QueueDepth>,
}

impl Store {
    /// Connects, and checks that the schema is as new as this build and that the user may act as
    /// both roles.
    pub async fn connect(options: StoreOptions) -> Result<Self, ConnectError> {
        let connect = options
            .url
            .parse::<PgConnectOptions>()
            .map_err(ConnectError::Address)?
            .application_name(&options.application_name)
            // Every statement here is prepared once and has one good plan. Planning it again for
            // the actual parameters would cost more than executing it.
            .options([
                ("plan_cache_mode", "force_generic_plan"),
                ("jit", "off"),
                // If a client vanishes with a transaction open, the server ends it and frees its
                // locks.
                ("idle_in_transaction_session_timeout", "60s"),
            ])
            .statement_cache_capacity(256);
        let mut probe = PgConnection::connect_with(&connect)
            .await
            .map_err(ConnectError::Unavailable)?;
        check(&mut probe).await?;
        let _ = probe.close().await;
        baton_metrics::register(metrics::METRICS);
        let shares = Shares::of(options.max_connections);
        Pool::Transactions.may_have(shares.transactions);
        let statements = |name, set_role, connections| {
            StatementPool::new(
                name,
                connect.clone(),
                set_role,
                connections,
                options.acquire_timeout,
            )
        };
        let tenant_statements = statements(Pool::Tenant, BECOME_APP, shares.accepts);
        let system_statements = statements(Pool::System, BECOME_SYSTEM, shares.system);
        Ok(Self {
            depth: Arc::new(QueueDepth::new(system_statements.clone())),
            groups: Arc::new(Groups::new(
                &tenant_statements,
                &system_statements,
                options.slow_group,
            )),
            tenant_statements,
            system_statements,
            tenant_transactions: PgPoolOptions::new()
                .max_connections(shares.transactions)
                .acquire_timeout(options.acquire_timeout)
                // A test on every acquire would double the round trips. Only a connection that has
                // been idle is tested: a crash of the server leaves all of them dead.
                .test_before_acquire(false)
                .before_acquire(|connection, about| {
                    Box::pin(async move {
                        Ok(about.idle_for < RESTED || connection.ping().await.is_ok())
                    })
                })
                .idle_timeout(Duration::from_mins(10))
                .max_lifetime(Duration::from_hours(1))
                .after_connect(|connection, _| {
                    Box::pin(async move { connection.execute(BECOME_APP).await.map(|_| ()) })
                })
                .connect_lazy_with(connect),
        })
    }

    /// Begins a transaction that acts for `tenant`. A failed BEGIN is harmless, so it is repeated
    /// once: the connection may not have survived a crash of the server.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        let begin = || TenantTx::begin(&self.tenant_transactions, tenant, Arc::clone(&self.depth));
        match begin().await {
            Err(error) if error.is_transient() => begin().await,
            begun => begun,
        }
        .inspect_err(|error| {
            if matches!(error, StoreError::Unavailable(sqlx::Error::PoolTimedOut)) {
                Pool::Transactions.timed_out();
            }
        })
    }

    /// Returns the operations across tenants; each is a transaction of its own.
    pub fn system(&self) -> SystemTx<'_> {
        SystemTx::new(&self.system_statements, &self.groups)
    }

    /// Begins a transaction of several operations across tenants. Repeats a failed BEGIN once, as
    /// [`Store::tenant`] does.
    pub async fn one_commit(&self) -> Result<OneCommit<'_>, StoreError> {
        match OneCommit::begin(&self.system_statements).await {
            Err(error) if error.is_transient() => OneCommit::begin(&self.system_statements).await,
            begun => begun,
        }
    }

    /// Makes a round trip to the database and returns its duration.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        self.system_statements.ping().await?;
        Ok(begun.elapsed())
    }

    /// Waits for statements in flight, then closes all connections. Later calls fail.
    pub async fn close(&self) {
        self.groups.drain().await;
        self.tenant_transactions.close().await;
        self.tenant_statements.close().await;
        self.system_statements.close().await;
    }
}

/// Checks that the user may act as both roles and that no migration is missing. Leaves the
/// connection in another role.
async fn check(probe: &mut PgConnection) -> Result<(), ConnectError> {
    let ever: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *probe)
        .await
        .map_err(ConnectError::Unavailable)?;
    if ever {
        for (role, set_role) in [("baton_app", BECOME_APP), ("baton_system", BECOME_SYSTEM)] {
            probe.execute(set_role).await.map_err(|source| {
                if source.as_database_error().is_some() {
                    ConnectError::Role { role, source }
                } else {
                    ConnectError::Unavailable(source)
                }
            })?;
        }
    }
    let missing = pending(probe).await.map_err(ConnectError::Unavailable)?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ConnectError::Pending(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn the_pools_together_have_the_connections_of_a_role() {
        for connections in 3..=100 {
            let shares = Shares::of(connections);
            let each = [shares.system, shares.accepts, shares.transactions];
            assert_eq!(each.iter().sum::<u32>(), connections);
            assert!(!each.contains(&0), "{shares:?}");
        }
    }
}
