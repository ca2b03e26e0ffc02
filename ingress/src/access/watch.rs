//! Ends open streams when their credential expires or is revoked.
//!
//! The credentials of open streams are looked up together every two seconds, and at once if one is
//! announced as revoked. A stream holds a token that is cancelled when its credential is no longer
//! good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_service::{Background, SharedClock, Shutdown};
use baton_store::{Store, StoreError, Watched};
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::caller::{Caller, Credential};
use crate::metrics;

/// The interval of look-ups without news.
const LOOK: Background = Background {
    name: "watch_credentials",
    every: Duration::from_secs(2),
};
/// The most credentials in one statement.
const AT_ONCE: usize = 5_000;

/// The credentials of open streams.
#[derive(Clone, Default)]
pub(crate) struct CredentialWatch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    watched: Mutex<HashMap<What, Entry>>,
    wake: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    /// A credential in the ledger.
    Recorded(Watched),
    /// Another issuer's token, which is good until then and cannot be revoked.
    Until(DateTime<Utc>),
}

struct Entry {
    ended: CancellationToken,
    holders: usize,
}

/// A stream's watch on its credential.
pub(crate) struct Guard {
    watch: CredentialWatch,
    what: What,
    ended: CancellationToken,
}

impl Guard {
    /// Waits until the credential is no longer good. Cancel-safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut watched = self.watch.watched();
        if let Some(entry) = watched.get_mut(&self.what) {
            entry.holders -= 1;
            if entry.holders == 0 {
                watched.remove(&self.what);
            }
        }
    }
}

impl CredentialWatch {
    /// Watches a caller's credential for as long as the guard is held.
    pub(crate) fn guard(&self, caller: &Caller) -> Guard {
        let what = match &caller.credential {
            Credential::ApiKey(key) => What::Recorded(Watched::ApiKey(caller.tenant, *key)),
            Credential::Session { session, .. } => {
                What::Recorded(Watched::Session(caller.tenant, *session))
            }
            Credential::Issuer { .. } => {
                What::Until(caller.expires_at.unwrap_or(DateTime::<Utc>::MAX_UTC))
            }
        };
        let mut watched = self.watched();
        let entry = watched.entry(what).or_insert_with(|| Entry {
            ended: CancellationToken::new(),
            holders: 0,
        });
        entry.holders += 1;
        Guard {
            watch: self.clone(),
            what,
            ended: entry.ended.clone(),
        }
    }

    /// Looks at once, because there is news.
    pub(crate) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Looks periodically until the soft stop.
    pub(crate) async fn run(self, store: Store, clock: SharedClock, shutdown: Shutdown) {
        LOOK.run(&self.0.wake, &shutdown, || self.look(&store, &clock))
            .await;
    }

    async fn look(&self, store: &Store, clock: &SharedClock) -> Result<(), StoreError> {
        let now = clock.now();
        let recorded: Vec<Watched> = {
            let watched = self.watched();
            let mut recorded = Vec::with_capacity(watched.len());
            for (what, entry) in watched
                .iter()
                .filter(|(_, entry)| !entry.ended.is_cancelled())
            {
                match what {
                    What::Recorded(credential) => recorded.push(*credential),
                    What::Until(end) if *end <= now => entry.ended.cancel(),
                    What::Until(_) => {}
                }
            }
            recorded
        };
        for some in recorded.chunks(AT_ONCE) {
            for ended in store.system().ended_credentials(some).await? {
                let watched = self.watched();
                if let Some(entry) = watched.get(&What::Recorded(ended.credential)) {
                    entry.ended.cancel();
                    if let Some(seconds) = ended.seconds_ago {
                        metrics::streams_revoked(seconds);
                    }
                }
            }
        }
        Ok(())
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<What, Entry>> {
        // No code under the lock can leave the map half changed.
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
