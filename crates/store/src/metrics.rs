//! All metrics of the database connections: name, kind, help, labels. Every role has them.

use std::time::Duration;

use baton_metrics::{Label, Metric};
use metrics::{counter, gauge, histogram};

const POOL_WAIT: &str = "baton_database_pool_wait_seconds";
const POOL_TIMEOUTS: &str = "baton_database_pool_timeouts_total";
const POOL_MAX: &str = "baton_database_pool_max_connections";
const POOL_IN_USE: &str = "baton_database_pool_connections_in_use";
const STATEMENT: &str = "baton_database_statement_seconds";

const POOLS: &[&str] = &[
    Pool::Tenant.as_str(),
    Pool::System.as_str(),
    Pool::Transactions.as_str(),
];

/// All metrics of this crate.
pub const METRICS: &[Metric] = &[
    Metric::histogram(
        POOL_WAIT,
        "Time that a statement waited for a connection to the database",
        &[Label::of("pool", STATEMENT_POOLS)],
    ),
    Metric::counter(
        POOL_TIMEOUTS,
        "Times that no connection to the database was free in time",
        &[Label::of("pool", POOLS)],
    ),
    Metric::gauge(
        POOL_MAX,
        "Connections to the database that a pool may have",
        &[Label::of("pool", POOLS)],
    ),
    Metric::gauge(
        POOL_IN_USE,
        "Connections to the database that are in use",
        &[Label::of("pool", STATEMENT_POOLS)],
    ),
    Metric::histogram(
        STATEMENT,
        "Time from sending a statement to the end of its answer, or until its caller gave up",
        &[Label::bounded(
            "statement",
            "the names of the statements, which `pg_stat_statements` shows too, `commit`, and `unnamed`",
        )],
    ),
];

const STATEMENT_POOLS: &[&str] = &[Pool::Tenant.as_str(), Pool::System.as_str()];

/// A pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Single statements that act for a tenant.
    Tenant,
    /// Single statements that act for the system.
    System,
    /// Transactions of several statements that act for a tenant.
    Transactions,
}

impl Pool {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::System => "system",
            Self::Transactions => "transactions",
        }
    }

    /// Adds to the most connections of this pool; a process may have several stores.
    pub(crate) fn may_have(self, connections: u32) {
        gauge!(POOL_MAX, "pool" => self.as_str()).increment(f64::from(connections));
    }

    pub(crate) fn waited(self, wait: Duration) {
        histogram!(POOL_WAIT, "pool" => self.as_str()).record(wait);
    }

    pub(crate) fn timed_out(self) {
        counter!(POOL_TIMEOUTS, "pool" => self.as_str()).increment(1);
    }

    /// Counts a connection as in use until the returned value is dropped.
    pub(crate) fn lend(self) -> InUse {
        gauge!(POOL_IN_USE, "pool" => self.as_str()).increment(1.0);
        InUse(self)
    }
}

/// One connection in use.
pub(crate) struct InUse(Pool);

impl Drop for InUse {
    fn drop(&mut self) {
        gauge!(POOL_IN_USE, "pool" => self.0.as_str()).decrement(1.0);
    }
}

/// Records the time of a statement.
pub(crate) fn statement(name: String, took: Duration) {
    histogram!(STATEMENT, "statement" => name).record(took);
}
