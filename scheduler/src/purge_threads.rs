//! Removes the rows of deleted threads, in batches of bounded size.

use baton_store::Store;

/// The most threads of one look; the next takes the rest.
const THREADS: u32 = 100;
/// The most runs, and the most messages, of one statement.
const BATCH: u32 = 100;

/// Removes all rows of the deleted threads. A run with its steps and messages goes in one commit,
/// so a purge that breaks off is continued by the next look.
pub async fn purge_threads(store: &Store) -> anyhow::Result<()> {
    let system = store.system();
    for (tenant, thread) in system.deleted_threads(THREADS).await? {
        let (mut runs, mut messages) = (0, 0);
        loop {
            let purged = system.purge_thread(tenant, thread, BATCH).await?;
            runs += purged.runs;
            messages += purged.messages;
            if purged.runs == 0 && purged.messages == 0 {
                break;
            }
        }
        tracing::info!(
            tenant.id = %tenant, thread.id = %thread, removed_runs = runs,
            removed_messages = messages,
            "the rows of a deleted thread are removed"
        );
    }
    Ok(())
}
