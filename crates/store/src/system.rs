//! The duties of workers and schedulers, across tenants.

use crate::statement_pool::StatementPool;

/// What goes across tenants, as the role `baton_system`. Each method commits by itself; a method
/// that writes does so in one statement.
#[derive(Debug, Clone, Copy)]
pub struct SystemTx<'s> {
    pub(crate) pool: &'s StatementPool,
}

impl<'s> SystemTx<'s> {
    pub(crate) const fn new(pool: &'s StatementPool) -> Self {
        Self { pool }
    }
}
