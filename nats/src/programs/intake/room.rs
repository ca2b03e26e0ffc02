//! The bounds of the handlers' queue, by number and by bytes, with a share for each key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_protocol::ApiKeyId;

use super::IntakeLimits;

/// The approximate memory of a message beyond its payload.
const OVERHEAD: usize = 256;

/// The room for messages. One key may fill half of it, so that others still get through.
#[derive(Debug, Clone)]
pub(super) struct Room {
    limits: IntakeLimits,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: Amount,
    keys: HashMap<ApiKeyId, Amount>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    messages: usize,
    bytes: usize,
}

/// A message's place. Dropping it frees the room.
#[derive(Debug)]
pub(crate) struct Place {
    held: Arc<Mutex<Held>>,
    key: ApiKeyId,
    bytes: usize,
}

impl Amount {
    fn and(self, bytes: usize) -> Self {
        Self {
            messages: self.messages + 1,
            bytes: self.bytes + bytes,
        }
    }

    const fn is_within(self, limits: IntakeLimits, share: usize) -> bool {
        self.messages * share <= limits.messages && self.bytes * share <= limits.bytes
    }
}

impl Room {
    pub(super) fn new(limits: IntakeLimits) -> Self {
        Self {
            limits,
            held: Arc::default(),
        }
    }

    /// Takes a place for a message of this key, if there is one.
    pub(super) fn take(&self, key: ApiKeyId, payload: usize) -> Option<Place> {
        let bytes = payload + OVERHEAD;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let all = held.all.and(bytes);
        let own = held.keys.get(&key).copied().unwrap_or_default().and(bytes);
        if !all.is_within(self.limits, 1) || !own.is_within(self.limits, 2) {
            return None;
        }
        held.all = all;
        held.keys.insert(key, own);
        Some(Place {
            held: Arc::clone(&self.held),
            key,
            bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all.messages -= 1;
        held.all.bytes -= self.bytes;
        if let Some(own) = held.keys.get_mut(&self.key) {
            own.messages -= 1;
            own.bytes -= self.bytes;
            if own.messages == 0 {
                held.keys.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key() -> ApiKeyId {
        ApiKeyId::from_uuid(Uuid::new_v4())
    }

    #[test]
    fn one_key_fills_half_of_the_room_and_all_of_them_no_more_than_all() {
        let room = Room::new(IntakeLimits {
            messages: 4,
            bytes: 1 << 20,
            payload: 1 << 20,
        });
        let (one, other, third) = (key(), key(), key());
        let held: Vec<_> = (0..2).map(|_| room.take(one, 1).unwrap()).collect();
        assert!(room.take(one, 1).is_none(), "its half is full");
        let others: Vec<_> = (0..2).map(|_| room.take(other, 1).unwrap()).collect();
        assert!(room.take(third, 1).is_none(), "all is full");
        drop(held);
        assert!(room.take(third, 1).is_some());
        drop(others);
        assert!(
            room.held.lock().unwrap().keys.is_empty(),
            "nothing is kept of who is gone"
        );
    }

    #[test]
    fn bytes_count_as_well() {
        let room = Room::new(IntakeLimits {
            messages: 1_000,
            bytes: 10_000,
            payload: 10_000,
        });
        let one = key();
        let first = room.take(one, 4_000).unwrap();
        assert!(room.take(one, 4_000).is_none());
        drop(first);
        assert!(room.take(one, 4_000).is_some());
    }
}
