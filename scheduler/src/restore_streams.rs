//! Streams and consumers that went missing (a broker that lost its disk) are made again. Those
//! that differ from their definition are left alone: `baton migrate` says how they differ.

use baton_nats::{Bus, StreamOptions, restore_missing};

use crate::metrics;

/// Looks once, and makes what is missing.
pub async fn restore_streams(bus: &Bus, options: &StreamOptions) -> anyhow::Result<()> {
    for change in restore_missing(bus, options).await? {
        tracing::warn!(%change, "something on the broker was missing and has been made again");
        metrics::asset_restored();
    }
    Ok(())
}
