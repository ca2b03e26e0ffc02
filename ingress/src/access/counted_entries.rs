//! Writes audit entries about requests that changed nothing, within a rate. Entries above the rate
//! are only counted, and the next written one says how many, because the log must not grow as fast
//! as a client can send requests.

use std::net::IpAddr;
use std::time::Duration;

use baton_store::{ActorKind, AuditEntry, Store, TryRate};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

/// The rate for entries about one action of one actor, or of unknown actors in one network.
const USUAL: TryRate = TryRate {
    burst: 20,
    every: Duration::from_secs(30),
};
/// The rate for entries about one account that is slowed down.
pub(crate) const SLOWED: TryRate = TryRate {
    burst: 1,
    every: Duration::from_hours(1),
};

/// Records an action that changed nothing in the ledger, or counts it.
pub(crate) async fn record_unchanged(
    store: &Store,
    network: Option<IpAddr>,
    entry: AuditEntry,
) -> Result<(), ApiError> {
    let network = network.map(|network| network.to_string());
    let who = match entry.actor_kind {
        // An unproved name is the client's choice, so entries are counted by network.
        ActorKind::Nobody => network,
        ActorKind::User | ActorKind::ApiKey | ActorKind::Issuer | ActorKind::Operator => {
            entry.actor.clone()
        }
    };
    let (kind, action) = (entry.actor_kind.as_str(), entry.action);
    let key = ["entry", action, kind, who.as_deref().unwrap_or_default()];
    record_counted(store, USUAL, &key, entry).await
}

/// Records an entry if its rate allows it; otherwise counts it.
pub(crate) async fn record_counted(
    store: &Store,
    rate: TryRate,
    key: &[&str],
    entry: AuditEntry,
) -> Result<(), ApiError> {
    let system = store.system();
    let Some(left_out) = system.count_entry(&throttle_key(key), rate).await? else {
        return Ok(());
    };
    let entry = if left_out == 0 {
        entry
    } else {
        let said = entry.detail.as_deref().unwrap_or("like it");
        let detail = Some(format!("{said}; {left_out} before it were only counted"));
        AuditEntry { detail, ..entry }
    };
    Ok(system.record_audit(&entry).await?)
}

pub(crate) fn throttle_key(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}
