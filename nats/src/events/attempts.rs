//! The newest attempt of a run, as the ledger has it. This crate does not know the ledger, so
//! followers are given a function that asks it.

use std::fmt;
use std::sync::Arc;

use baton_protocol::{RunId, TenantId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

type Ask = dyn Fn(TenantId, RunId) -> BoxFuture<'static, Option<u32>> + Send + Sync;

/// A function that asks the ledger for a run's newest attempt. Clones share it.
///
/// A worker appends only after its claim is committed, so an event of an attempt that the ledger
/// lacks was not written by a holder of the run.
#[derive(Clone)]
pub struct LedgerAttempts(Arc<Ask>);

impl LedgerAttempts {
    /// Wraps a function. It returns 0 if there is no attempt or no such run, `None` if the ledger
    /// does not answer at the moment.
    pub fn new<F, Fut>(ask: F) -> Self
    where
        F: Fn(TenantId, RunId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<u32>> + Send + 'static,
    {
        Self(Arc::new(move |tenant, run| ask(tenant, run).boxed()))
    }

    pub(crate) async fn newest(&self, tenant: TenantId, run: RunId) -> Option<u32> {
        (self.0)(tenant, run).await
    }
}

impl fmt::Debug for LedgerAttempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerAttempts")
    }
}
