//! The summaries of a tenant's conversations, sealed.

use std::collections::BTreeMap;

use baton_protocol::compaction::summary_text;
use baton_protocol::{RunId, TenantId};
use baton_responses::SealingKey;
use baton_store::{StepData, StepRecord, Store};

use crate::error::ApiError;

/// Returns the tenant's key, which its first summary makes.
pub(super) async fn sealing_key(store: &Store, tenant: TenantId) -> Result<SealingKey, ApiError> {
    let mut tx = store.tenant(tenant).await?;
    if let Some(key) = tx.sealing_key().await? {
        return Ok(SealingKey::new(key));
    }
    tx.make_sealing_key(rand::random()).await?;
    let key = tx.sealing_key().await?;
    tx.commit().await?;
    let lost = || ApiError::unavailable("key_unavailable", "the key of summaries cannot be read");
    key.map(SealingKey::new).ok_or_else(lost)
}

/// Returns the sealed summaries of a run, by their steps.
pub(super) async fn sealed_steps(
    store: &Store,
    tenant: TenantId,
    run: RunId,
    steps: &[StepRecord],
) -> Result<BTreeMap<u32, String>, ApiError> {
    let is_compaction = |step: &&StepRecord| matches!(step.data, StepData::Compaction { .. });
    let mut compactions = steps.iter().filter(is_compaction).peekable();
    if compactions.peek().is_none() {
        return Ok(BTreeMap::new());
    }
    let key = sealing_key(store, tenant).await?;
    let sealed = compactions.map(|step| {
        let summary = step.message.as_deref().map(summary_text);
        let sealed = key.seal_step(run, step.step, &summary.unwrap_or_default());
        let sealed = sealed.map_err(|error| ApiError::internal(&error))?;
        Ok::<_, ApiError>((step.step, sealed))
    });
    sealed.collect()
}
