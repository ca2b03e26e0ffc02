//! Limits the connections that one key has at the broker.
//!
//! The servers are asked if the last answer is old, and before a client is refused; in between,
//! each admission here is added. Other ingresses' admissions show in the next answer. A key may
//! therefore exceed its limit for some seconds, but not for long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_nats::SystemBus;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use uuid::Uuid;

/// The age up to which the servers' answer is used.
const BELIEVED: Duration = Duration::from_secs(10);
/// The shortest time between two questions about one key.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// The number of keys in memory from which idle ones are dropped.
const MANY: usize = 1_024;

/// Counts connections by key.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts {
    keys: Mutex<HashMap<Uuid, Arc<AsyncMutex<Counted>>>>,
}

#[derive(Debug, Default)]
struct Counted {
    asked: Option<Instant>,
    connections: usize,
}

impl Counted {
    fn is_older_than(&self, age: Duration) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= age)
    }
}

impl ConnectionCounts {
    /// Counts one more connection of this key, unless the key is at its limit.
    pub(super) async fn take(&self, system: &SystemBus, key: Uuid, most: u32) -> bool {
        let counted = self.of(key);
        // One at a time, so that each admission is counted before the next decision.
        let mut counted = counted.lock().await;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let full = counted.connections >= most && counted.is_older_than(AT_MOST_EVERY);
        if full || counted.is_older_than(BELIEVED) {
            match system.count_connections(key).await {
                Ok(connections) => counted.connections = connections,
                // This ingress's own admissions are still counted.
                Err(error) => tracing::warn!(%error, "connections of a key were not counted"),
            }
            counted.asked = Some(Instant::now());
        }
        if counted.connections >= most {
            return false;
        }
        counted.connections += 1;
        true
    }

    fn of(&self, key: Uuid) -> Arc<AsyncMutex<Counted>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MANY {
            keys.retain(|_, counted| {
                let idle = counted
                    .try_lock()
                    .map(|counted| counted.is_older_than(BELIEVED));
                !idle.unwrap_or(false)
            });
        }
        Arc::clone(keys.entry(key).or_default())
    }
}
