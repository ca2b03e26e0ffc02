//! The newest attempt of a run, as the ledger has it. This crate does not know the ledger: who
//! follows a run brings the way to ask.

use std::fmt;
use std::sync::Arc;

use baton_protocol::{RunId, TenantId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

type Ask = dyn Fn(TenantId, RunId) -> BoxFuture<'static, Option<u32>> + Send + Sync;

/// Asks the ledger for a run's newest attempt. Clones share it.
///
/// A worker appends only after its claim is committed, so an event of an attempt that the ledger
/// does not have was not written by a holder of the run.
#[derive(Clone)]
pub struct LedgerAttempts(Arc<Ask>);

impl LedgerAttempts {
    /// Asks by this function: 0 if no attempt was made or there is no such run, `None` if the ledger
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
