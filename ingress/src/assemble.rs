//! Builds the parts of an ingress, from the lowest storey up.

use std::sync::Arc;
use std::time::Duration;

use baton_admission::Admission;
use baton_service::Shutdown;
use tokio::sync::Notify;

use crate::access::body::Bodies;
use crate::access::body_bytes::BodyBytes;
use crate::access::rate::{PATIENCE, Proxies, RateGate, RateLimiter};
use crate::access::stream_cap::StreamCap;
use crate::access::{Authenticator, CredentialWatch, Credentials, Issuers, Revoker, SignIn};
use crate::programs::{LetterLimits, Programs};
use crate::routes::Parts;
use crate::routes::api_keys::KeyEnvironment;
use crate::routes::models::{ModelCatalog, Models};
use crate::routes::responses::McpServers;
use crate::run::attachments::Attachments;
use crate::run::attempts::ledger_attempts;
use crate::run::cancel::Canceller;
use crate::run::decide::Decider;
use crate::run::followers::{Followers, Stopping};
use crate::run::reader::RunReader;
use crate::run::submission::{Places, Submitter};
use crate::{IngressDeps, metrics, settings};

/// The time for which other ingresses may report that they have the client.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// The parts of an ingress, by the doors that take them.
pub(crate) struct Assembled {
    pub(crate) parts: Parts,
    pub(crate) programs: Arc<Programs>,
}

/// Builds the parts. Must be called within the runtime.
pub(crate) fn assemble(deps: IngressDeps, shutdown: &Shutdown) -> anyhow::Result<Assembled> {
    baton_metrics::register(metrics::METRICS);
    let IngressDeps {
        config,
        store,
        bus,
        clock,
        shutdown: _,
        readiness: _,
        programs: _,
        intake: _,
    } = deps;
    let config = config.current();
    // A hard stop drops connections at that very moment, so these tokens must be its children.
    let stopping = Stopping {
        native: shutdown.hard.child_token(),
        all: shutdown.hard.child_token(),
    };

    let sign_in = Arc::new(SignIn::new(&config.auth)?);
    let issuers = Issuers::new(&config.auth, store.clone(), Arc::clone(&clock))?;
    let credentials = Credentials::new(
        store.clone(),
        Arc::clone(&clock),
        Arc::clone(&sign_in),
        Arc::new(issuers),
    );
    let watch = CredentialWatch::default();
    let revoker = Revoker {
        bus: bus.clone(),
        credentials: credentials.clone(),
        watch: watch.clone(),
        ended: Arc::new(Notify::new()),
    };
    let authenticator = Arc::new(Authenticator {
        credentials,
        rates: RateGate::new(
            RateLimiter::new(bus.clone(), Arc::clone(&clock), PATIENCE),
            Proxies::new(&config.http),
            settings::default_limits(&config),
        ),
        clock: Arc::clone(&clock),
    });

    let (attempts, answering) = ledger_attempts(store.clone(), stopping.all.clone());
    shutdown.tracker.spawn(answering);
    let runs = Arc::new(RunReader {
        store: store.clone(),
        bus: bus.clone(),
        clock: Arc::clone(&clock),
        attempts,
    });
    let canceller = Canceller {
        store: store.clone(),
        bus: bus.clone(),
        clock: Arc::clone(&clock),
    };
    let decider = Decider {
        store: store.clone(),
        bus: bus.clone(),
    };
    let attachments = Attachments::new(
        shutdown.tracker.clone(),
        stopping.all.clone(),
        canceller.clone().on_disconnect(),
        Box::new(move |run| {
            let bus = bus.clone();
            Box::pin(async move { bus.is_attached_elsewhere(run, ELSEWHERE).await })
        }),
    );
    let admission = Admission::new(store.clone(), revoker.bus.clone(), settings::rules(&config));
    let submitter = Arc::new(Submitter {
        admission: admission.clone(),
        runs: Arc::clone(&runs),
        attachments: attachments.clone(),
        canceller: canceller.clone(),
        tracker: shutdown.tracker.clone(),
        places: Places::new(),
        clock: Arc::clone(&clock),
    });

    let programs = Programs {
        authenticator: Arc::clone(&authenticator),
        runs: Arc::clone(&runs),
        submitter: Arc::clone(&submitter),
        canceller: canceller.clone(),
        decider: decider.clone(),
        letters: LetterLimits::of(config.nats.dead_max_bytes.as_u64()),
        credential_ended: Arc::clone(&revoker.ended),
        stopping: stopping.clone(),
        tracker: shutdown.tracker.clone(),
    };
    let parts = Parts {
        store,
        clock,
        authenticator,
        sign_in,
        revoker,
        bodies: Bodies {
            bytes: BodyBytes::new(
                config.http.body_bytes.as_u64(),
                config.http.body_bytes_per_key.as_u64(),
                config.http.body_limit.as_u64(),
            ),
            limit: config.http.body_limit.as_u64(),
        },
        admission,
        submitter,
        followers: Arc::new(Followers {
            runs,
            attachments,
            watch,
            stopping,
            streams: StreamCap::new(config.limits.streams_per_key),
            heartbeat: config.http.heartbeat,
        }),
        canceller,
        decider,
        models: Models::new(ModelCatalog::new(&config.llm)?),
        mcp_servers: McpServers::new(&config),
        key_environment: KeyEnvironment(config.auth.key_environment.as_str().into()),
    };
    Ok(Assembled {
        parts,
        programs: Arc::new(programs),
    })
}
