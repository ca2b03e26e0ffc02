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

#[cfg(feature = "chaos")]
impl SystemTx<'_> {
    pub(crate) async fn whoever_holds_each(
        &self,
        fences: &[baton_protocol::Fence],
    ) -> Result<Vec<baton_protocol::Fence>, crate::errors::StoreError> {
        let mut held = Vec::with_capacity(fences.len());
        for fence in fences {
            held.push(self.whoever_holds(fence).await?);
        }
        Ok(held)
    }

    /// The fence itself; with the attempt guard switched off, that of whoever holds the run, so that
    /// the ledger takes a replaced attempt's writes.
    pub(crate) async fn whoever_holds(
        &self,
        fence: &baton_protocol::Fence,
    ) -> Result<baton_protocol::Fence, crate::errors::StoreError> {
        use baton_protocol::ClaimToken;
        use baton_protocol::chaos::Mechanism;

        if !Mechanism::AttemptGuard.is_off() {
            return Ok(*fence);
        }
        let (attempt, token): (i32, Option<uuid::Uuid>) = sqlx::query_as(
            "
            -- runs.whoever_holds
            SELECT attempt, claim_token FROM runs WHERE tenant_id = $1 AND id = $2
            ",
        )
        .bind(fence.tenant.as_uuid())
        .bind(fence.run.as_uuid())
        .fetch_one(self.pool)
        .await?;
        Ok(baton_protocol::Fence {
            attempt: crate::columns::count(attempt),
            token: token.map_or(fence.token, |token| {
                ClaimToken::from_random(token.as_u128())
            }),
            ..*fence
        })
    }
}
