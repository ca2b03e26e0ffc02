//! Removes runs that are not to be kept after their end, and responses that were kept for long enough.

use std::time::Duration;

use baton_protocol::{AuditId, RunId, TenantId};
use baton_service::Clock;
use baton_store::{ActorKind, AuditEntry, AuditResult, Store};

/// The time for which the answer of a run that is not kept can still be read, by the request that waits
/// for it.
const READABLE: Duration = Duration::from_mins(1);
/// The most runs of one look; the next takes the rest.
const RUNS: u32 = 1_000;

/// Removes the runs that are not to be kept and ended a while ago, and those that have expired, each in a
/// commit of its own.
pub async fn purge_runs(store: &Store, clock: &dyn Clock) -> anyhow::Result<()> {
    purge(store, clock, READABLE, RUNS).await
}

async fn purge(
    store: &Store,
    clock: &dyn Clock,
    readable: Duration,
    most: u32,
) -> anyhow::Result<()> {
    let system = store.system();
    let mut removed = 0_u32;
    for (tenant, run) in system.unstored_runs(readable, most).await? {
        removed += u32::from(system.delete_run(tenant, run).await?);
    }
    if removed > 0 {
        tracing::info!(
            removed_runs = removed,
            "runs that are not to be kept are removed"
        );
    }
    let mut removed = 0_u32;
    for (tenant, run) in system.expired_runs(most).await? {
        removed += u32::from(expire(store, clock, tenant, run).await?);
    }
    if removed > 0 {
        tracing::info!(removed_runs = removed, "expired responses are removed");
    }
    Ok(())
}

/// Removes an expired response, with its entry in the audit log. Returns `false` if another scheduler did.
async fn expire(
    store: &Store,
    clock: &dyn Clock,
    tenant: TenantId,
    run: RunId,
) -> anyhow::Result<bool> {
    let entry = AuditEntry {
        id: AuditId::new(clock.now()),
        tenant: Some(tenant),
        // An operator has set the time.
        actor_kind: ActorKind::Operator,
        actor: None,
        action: "response.expired",
        target: Some(format!("run:{run}")),
        result: AuditResult::Done,
        detail: None,
        ip: None,
        user_agent: None,
        request_id: None,
    };
    let one = store.one_commit().await?;
    if !one.system().delete_run(tenant, run).await? {
        return Ok(false);
    }
    one.system().record_audit(&entry).await?;
    one.commit().await?;
    Ok(true)
}

#[cfg(test)]
mod tests;
