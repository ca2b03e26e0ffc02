//! A limit on the event streams that one caller may have open at this ingress.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use baton_protocol::TenantId;
use http::StatusCode;

use crate::access::Caller;
use crate::error::ApiError;

/// The `Retry-After` of a refusal, in seconds: a guess, since runs decide how long streams last.
const RETRY_AFTER: u32 = 5;

/// The unit of counting: a key, or a person in a tenant, as the audit log names them.
type Owner = (TenantId, String);

/// The open streams of this process, by owner. Clones share them.
#[derive(Clone)]
pub(crate) struct StreamCap {
    limit: Arc<AtomicU32>,
    open: Arc<Mutex<HashMap<Owner, u32>>>,
}

/// The right to one open stream, given back on drop.
pub(crate) struct StreamPlace {
    owner: Owner,
    open: Arc<Mutex<HashMap<Owner, u32>>>,
}

impl StreamCap {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit: Arc::new(limit.into()),
            open: Arc::default(),
        }
    }

    /// Sets the limit for new streams; open streams stay.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes a place for one more stream of this caller. Callers do this before a run is accepted,
    /// so that a refusal leaves no run without a stream.
    pub(crate) fn take(&self, caller: &Caller) -> Result<StreamPlace, ApiError> {
        self.place((caller.tenant, caller.actor().to_string()))
            .ok_or_else(|| {
                let limit = self.limit.load(Ordering::Relaxed);
                let message = format!(
                    "{limit} streams are open here with this credential, the most it may have"
                );
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message)
                    .retry_after(RETRY_AFTER)
            })
    }

    fn place(&self, owner: Owner) -> Option<StreamPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(owner.clone()).or_default();
        if *count >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        *count += 1;
        Some(StreamPlace {
            owner,
            open: Arc::clone(&self.open),
        })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.owner.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn each_owner_has_its_own_places_and_gets_them_back() {
        let cap = StreamCap::new(2);
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let tenant = TenantId::new(now);
        let (one, other) = (
            (tenant, "api_key:1".to_owned()),
            (tenant, "api_key:2".to_owned()),
        );
        let first = cap.place(one.clone()).unwrap();
        let _second = cap.place(one.clone()).unwrap();
        assert!(cap.place(one.clone()).is_none());
        let others = cap.place(other.clone()).unwrap();
        drop(first);
        assert!(cap.place(one.clone()).is_some());
        drop(others);
        assert!(
            !cap.open.lock().unwrap().contains_key(&other),
            "who has none open is forgotten"
        );
    }
}
