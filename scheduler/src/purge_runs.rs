//! Removes runs that are not to be kept after their end.

use std::time::Duration;

use baton_store::Store;

/// The time for which the answer of such a run can still be read, by the request that waits for it.
const READABLE: Duration = Duration::from_mins(1);
/// The most runs of one look; the next takes the rest.
const RUNS: u32 = 1_000;

/// Removes the runs that are not to be kept and ended a while ago, each in a commit of its own.
pub async fn purge_runs(store: &Store) -> anyhow::Result<()> {
    let system = store.system();
    let mut removed = 0_u32;
    for (tenant, run) in system.unstored_runs(READABLE, RUNS).await? {
        removed += u32::from(system.delete_run(tenant, run).await?);
    }
    if removed > 0 {
        tracing::info!(
            removed_runs = removed,
            "runs that are not to be kept are removed"
        );
    }
    Ok(())
}
