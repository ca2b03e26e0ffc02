//! A bound on the bytes of request bodies that this process holds at a time, shared fairly.
//!
//! Bytes are counted as they arrive, because a length that a client only announces costs nothing
//! yet. They are released with the memory: after the run is committed, not after the upload.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_protocol::TenantId;
use http::{Extensions, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::access::Caller;
use crate::access::rate::ClientAddress;
use crate::error::ApiError;
use crate::metrics::{self, BodyLimit};

/// The longest time that a body waits for others to release bytes.
const WAIT: Duration = Duration::from_secs(2);
/// The `Retry-After` of a refused body, in seconds.
const RETRY_AFTER: u32 = 2;

/// The party that a body's bytes are counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A key, or a person in a tenant, as the audit log names them.
    Caller(TenantId, String),
    /// A client without a credential, by its network.
    Network(IpAddr),
    /// A client without an address.
    Unknown,
}

impl Owner {
    /// Returns the owner of a request according to its extensions.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        if let Some(caller) = extensions.get::<Arc<Caller>>() {
            return Self::Caller(caller.tenant, caller.actor().to_string());
        }
        match extensions.get::<ClientAddress>() {
            Some(address) => Self::Network(address.network()),
            None => Self::Unknown,
        }
    }
}

/// The bytes of bodies that this process holds, by owner. Clones share them.
#[derive(Clone)]
pub(crate) struct BodyBytes(Arc<Shared>);

struct Shared {
    /// The bound for all owners together, in bytes.
    total: u64,
    /// The bound for one owner, in bytes.
    per_owner: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: u64,
    owners: HashMap<Owner, u64>,
    /// In order of arrival. A waiter that fits does not wait for an earlier one that does not fit
    /// yet, so it may overtake.
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    owner: Owner,
    bytes: u64,
    grant: oneshot::Sender<Granted>,
}

impl BodyBytes {
    /// Bounds bodies. The bounds are raised if one body of `body_limit` would not fit.
    pub(crate) fn new(total: u64, per_owner: u64, body_limit: u64) -> Self {
        let per_owner = per_owner.max(body_limit);
        Self(Arc::new(Shared {
            total: total.max(per_owner.saturating_mul(2)),
            per_owner,
            held: Mutex::default(),
        }))
    }

    /// Starts counting a body, with no bytes yet.
    pub(crate) fn begin(&self, owner: Owner) -> HeldBytes {
        HeldBytes {
            shared: Arc::clone(&self.0),
            owner,
            granted: None,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that `bytes` more fit; otherwise returns the limit that they exceed.
    ///
    /// An owner never holds more than stays free for the others: an owner that takes its
    /// maximum still leaves half of what it found.
    fn fits(&self, held: &Held, owner: &Owner, bytes: u64) -> Result<(), BodyLimit> {
        let own = held.owners.get(owner).copied().unwrap_or(0) + bytes;
        if own > self.per_owner {
            return Err(BodyLimit::Owner);
        }
        let free = self.total.checked_sub(held.all + bytes);
        match free {
            Some(free) if own <= free => Ok(()),
            _ => Err(BodyLimit::Process),
        }
    }

    /// Takes bytes that fit, without checking.
    fn take(self: &Arc<Self>, held: &mut Held, owner: &Owner, bytes: u64) -> Granted {
        held.all += bytes;
        *held.owners.entry(owner.clone()).or_default() += bytes;
        metrics::body_bytes(held.all);
        Granted {
            shared: Arc::clone(self),
            owner: owner.clone(),
            bytes,
        }
    }

    fn give_back(self: &Arc<Self>, owner: &Owner, bytes: u64) {
        let mut held = self.lock();
        held.all -= bytes;
        if let Entry::Occupied(mut own) = held.owners.entry(owner.clone()) {
            *own.get_mut() -= bytes;
            if *own.get() == 0 {
                own.remove();
            }
        }
        metrics::body_bytes(held.all);
        // Unlocked below: if a receiver has just gone, dropping its grant takes the lock again.
        let mut gone = Vec::new();
        for waiter in std::mem::take(&mut held.waiting) {
            if waiter.grant.is_closed() {
                continue;
            }
            if self.fits(&held, &waiter.owner, waiter.bytes).is_err() {
                held.waiting.push_back(waiter);
                continue;
            }
            let granted = self.take(&mut held, &waiter.owner, waiter.bytes);
            gone.extend(waiter.grant.send(granted).err());
        }
        drop(held);
        drop(gone);
    }
}

/// Bytes that were taken, and are given back on drop.
struct Granted {
    shared: Arc<Shared>,
    owner: Owner,
    bytes: u64,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shared.give_back(&self.owner, self.bytes);
        }
    }
}

/// The bytes of one body. Must be dropped with the last copy of the body.
pub(crate) struct HeldBytes {
    shared: Arc<Shared>,
    owner: Owner,
    granted: Option<Granted>,
}

impl HeldBytes {
    /// Takes `bytes` more, and waits up to [`WAIT`] if they do not fit.
    pub(crate) async fn grow(&mut self, bytes: u64) -> Result<(), ApiError> {
        let granted = self.granted(bytes).await?;
        self.keep(granted);
        Ok(())
    }

    async fn granted(&self, bytes: u64) -> Result<Granted, ApiError> {
        let (grant, waiting) = oneshot::channel();
        {
            let mut held = self.shared.lock();
            if self.shared.fits(&held, &self.owner, bytes).is_ok() {
                return Ok(self.shared.take(&mut held, &self.owner, bytes));
            }
            // Removes waiters that gave up or timed out.
            held.waiting.retain(|waiter| !waiter.grant.is_closed());
            held.waiting.push_back(Waiter {
                owner: self.owner.clone(),
                bytes,
                grant,
            });
        }
        if let Ok(Ok(granted)) = timeout(WAIT, waiting).await {
            return Ok(granted);
        }
        let exceeded = {
            let held = self.shared.lock();
            self.shared.fits(&held, &self.owner, bytes).err()
        };
        Err(refuse(exceeded.unwrap_or(BodyLimit::Process)))
    }

    /// Merges a grant into the existing one: a body has one grant, however many pieces it came in.
    fn keep(&mut self, mut granted: Granted) {
        match &mut self.granted {
            Some(whole) => whole.bytes += std::mem::take(&mut granted.bytes),
            None => self.granted = Some(granted),
        }
    }
}

fn refuse(exceeded: BodyLimit) -> ApiError {
    metrics::body_refused(exceeded);
    match exceeded {
        BodyLimit::Owner => ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_body_bytes",
            "too many large requests are under way with this credential: wait until some are \
             answered, or send them one after another",
        )
        .retry_after(RETRY_AFTER),
        BodyLimit::Process => ApiError::unavailable(
            "body_bytes_exhausted",
            "this server is reading as many request bodies as it has memory for",
        )
        .retry_after(RETRY_AFTER),
    }
}

#[cfg(test)]
mod tests;
