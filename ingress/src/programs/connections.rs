//! The number of connections that one key has at the broker.
//!
//! Servers are asked when this ingress has not asked for a while, and before anybody is refused; in
//! between, each admission here is added. Other ingresses' admissions are seen with the next
//! question, so that a key may have more than its number for some seconds, never without end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_nats::SystemBus;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use uuid::Uuid;

/// An answer of the servers is believed for so long.
const BELIEVED: Duration = Duration::from_secs(10);
/// Servers are asked about one key at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// With so many keys in memory, those that nobody asked about lately are forgotten.
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
    /// Counts one more connection of this key, unless it has as many as it may.
    pub(super) async fn take(&self, system: &SystemBus, key: Uuid, most: u32) -> bool {
        let counted = self.of(key);
        // One at a time: what is let in meanwhile is counted before the next is looked at.
        let mut counted = counted.lock().await;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let full = counted.connections >= most && counted.is_older_than(AT_MOST_EVERY);
        if full || counted.is_older_than(BELIEVED) {
            match system.count_connections(key).await {
                Ok(connections) => counted.connections = connections,
                // The admissions of this ingress are still counted.
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
