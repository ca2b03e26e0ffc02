//! Closes a program's connection after its key was revoked or has expired.
//!
//! The truth is the ledger, which is looked at every two seconds, and at once when a key is announced
//! as revoked. Nothing is remembered but which keys need no second look, so that an ingress which
//! died with an announcement in its hands costs two seconds and not the rest of a session.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_nats::{Closed, KickError};
use baton_protocol::ApiKeyId;
use baton_service::{Background, Shutdown};
use baton_store::StoreError;
use futures_util::{StreamExt as _, stream};

use super::ProgramDoor;
use crate::metrics;
use crate::state::AppState;

/// How often the ledger is looked at without any news.
const LOOK: Background = Background {
    name: "put_out_programs",
    every: Duration::from_secs(2),
};
/// For so long after a key's end somebody may still be let in with it, by an ingress that had just
/// looked it up: the time for which such an answer is believed, and some for letting in.
const LATE: f64 = 10.0;
/// How much longer than a connection lasts its key is looked for, for clocks that differ.
const MARGIN: Duration = Duration::from_mins(1);
/// Keys in work at a time.
const AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("connections of the API key {key} are still open: {source}")]
    Kick { key: ApiKeyId, source: KickError },
}

/// Closes connections until this process cuts its own.
pub(crate) async fn close_revoked(state: AppState, door: Arc<ProgramDoor>) {
    // The end of a revoked key must not wait for the end of a drain.
    let never = Shutdown::new();
    let settled = Mutex::new(HashSet::new());
    let looking = LOOK.run(&state.credential_ended, &never, || {
        look(&state, &door, &settled)
    });
    tokio::select! {
        () = looking => {}
        () = state.stopping.all.cancelled() => {}
    }
}

async fn look(
    state: &AppState,
    door: &ProgramDoor,
    settled: &Mutex<HashSet<ApiKeyId>>,
) -> Result<(), Failure> {
    let began = state.clock.monotonic();
    // No connection is older.
    let ended = state
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
            let ago = ago + (state.clock.monotonic() - began).as_secs_f64();
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
