//! Creates missing streams and consumers again, as after a broker lost its disk. Leaves different
//! ones alone: `baton migrate` reports the differences.

use baton_nats::{Bus, StreamOptions, restore_missing};

use crate::metrics;

/// Looks once, and creates missing ones.
pub async fn restore_streams(bus: &Bus, options: &StreamOptions) -> anyhow::Result<()> {
    for change in restore_missing(bus, options).await? {
        tracing::warn!(%change, "created a missing stream or consumer again");
        metrics::asset_restored();
    }
    Ok(())
}
