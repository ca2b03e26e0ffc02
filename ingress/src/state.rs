//! The state that all handlers share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use baton_admission::Admission;
use baton_nats::{Bus, BusError, EventFollower, LedgerAttempts, Subscribed};
use baton_protocol::{RunId, TenantId};
use baton_service::{SharedClock, Shutdown};
use baton_store::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::body_bytes::BodyBytes;
use crate::access::rate::{Proxies, RateLimiter};
use crate::access::stream_cap::StreamCap;
use crate::access::{CredentialWatch, Credentials, SignIn};
use crate::programs::LetterLimits;
use crate::routes::models::ModelCatalog;
use crate::run::attachments::Attachments;
use crate::run::cancel::Canceller;
use crate::run::decide::Decider;
use crate::settings::Settings;

/// The ingress's state; a clone is one reference.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Inner>);

/// The content of [`AppState`].
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) shutdown: Shutdown,
    pub(crate) admission: Admission,
    pub(crate) credentials: Credentials,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) watch: CredentialWatch,
    /// Notified when a credential has ended, so that its programs' connections are closed.
    pub(crate) credential_ended: Notify,
    pub(crate) models: ArcSwap<ModelCatalog>,
    pub(crate) rates: RateLimiter,
    pub(crate) proxies: Proxies,
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) attachments: Attachments,
    /// Looks up the newest attempts of runs for their followers.
    pub(crate) attempts: LedgerAttempts,
    pub(crate) canceller: Canceller,
    pub(crate) decider: Decider,
    pub(crate) stopping: Stopping,
    pub(crate) streams: StreamCap,
    /// The limits on letters that programs leave in DEAD.
    pub(crate) letters: LetterLimits,
    pub(crate) body_bytes: BodyBytes,
    /// In bytes.
    pub(crate) body_limit: u64,
    /// The environment in the prefix of keys that are created here.
    pub(crate) key_environment: Arc<str>,
    pub(crate) heartbeat: Duration,
}

/// The moments of a soft stop at which streams end.
#[derive(Debug, Clone)]
pub(crate) struct Stopping {
    /// Native streams are closed between two events: their clients resume elsewhere.
    pub(crate) native: CancellationToken,
    /// The time of chat streams and waiting requests is over.
    pub(crate) all: CancellationToken,
}

impl AppState {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Subscribes to a run's live events.
    pub(crate) async fn subscribe(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Subscribed, BusError> {
        EventFollower::subscribe(&self.bus, tenant, run, self.attempts.clone()).await
    }

    /// Evicts an ended key or session from the caches, here and at the other ingresses.
    pub(crate) async fn revoked(&self, credential: Uuid) {
        self.forget(credential);
        // If the message is lost, the other ingresses notice at their next look, seconds later.
        if let Err(error) = self.bus.announce_revoked(credential).await {
            tracing::debug!(%error, "a revocation was not announced");
        }
    }

    /// Like [`AppState::revoked`], on the announcement of another ingress.
    pub(crate) fn forget(&self, credential: Uuid) {
        self.credentials.forget(credential);
        self.watch.wake();
        self.credential_ended.notify_one();
    }
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
