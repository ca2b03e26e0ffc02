//! Closes programs' connections after their key was revoked or has expired.
//!
//! The ledger is authoritative. It is read every two seconds, and at once if a key is announced as
//! revoked. Memory holds only the keys that need no second look, so an ingress that dies during an
//! announcement delays the close by two seconds, not until the session ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_nats::{Closed, KickError};
use baton_protocol::ApiKeyId;
use baton_service::{Background, Shutdown};
use baton_store::StoreError;
use futures_util::{StreamExt as _, stream};

use super::{ProgramDoor, Programs};
use crate::metrics;

/// The interval of reading the ledger without news.
const LOOK: Background = Background {
    name: "put_out_programs",
    every: Duration::from_secs(2),
};
/// Seconds after a key's end in which an ingress may still admit its bearer: the lifetime of a
/// cached look-up, and some time for admitting.
const LATE: f64 = 10.0;
/// The time for which an ended key is looked for beyond the longest session, for clocks that
/// differ.
const MARGIN: Duration = Duration::from_mins(1);
/// The most keys in work at a time.
const AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("connections of the API key {key} are still open: {source}")]
    Kick { key: ApiKeyId, source: KickError },
}

/// Closes connections until this process cuts its own.
pub(crate) async fn close_revoked(programs: Arc<Programs>, door: Arc<ProgramDoor>) {
    // A drain must not delay the end of a revoked key's connections.
    let never = Shutdown::new();
    let settled = Mutex::new(HashSet::new());
    let looking = LOOK.run(&programs.credential_ended, &never, || {
        look(&programs, &door, &settled)
    });
    tokio::select! {
        () = looking => {}
        () = programs.stopping.all.cancelled() => {}
    }
}

async fn look(
    programs: &Programs,
    door: &ProgramDoor,
    settled: &Mutex<HashSet<ApiKeyId>>,
) -> Result<(), Failure> {
    let began = programs.runs.clock.monotonic();
    // No connection is older than this.
    let ended = programs
        .runs
        .store
        .system()
        .keys_ended_within(door.session + MARGIN)
        .await?;
    let open: Vec<(ApiKeyId, f64)> = {
        let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<ApiKeyId> = ended.iter().map(|(key, _)| *key).collect();
        settled.retain(|key| known.contains(key));
        let open = ended.into_iter().filter(|(key, _)| !settled.contains(key));
        open.collect()
    };
    let closed = stream::iter(open)
        .map(|(key, ago)| async move {
            let ago = ago + (programs.runs.clock.monotonic() - began).as_secs_f64();
            let closed = door.system.close_connections(key.as_uuid()).await;
            (key, ago, closed)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut failed = Ok(());
    for (key, ago, closed) in closed {
        match closed {
            Ok(Closed {
                connections,
                within,
            }) => {
                if connections > 0 {
                    tracing::info!(api_key.id = %key, connections, "a key that ended was put out");
                    metrics::connections_closed(ago + within.as_secs_f64());
                }
                if ago > LATE {
                    let mut settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
                    settled.insert(key);
                }
            }
            Err(source) => failed = Err(Failure::Kick { key, source }),
        }
    }
    failed
}
