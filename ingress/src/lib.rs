//! The ingress: HTTP in, a job out; events in, server-sent events out.
//!
//! ```text
//! access ──► submission (admission: one commit, one publish) ──► relay ──► frames ──► client
//! ```
//!
//! The crate has three storeys, and its `use` lines point down only:
//!
//! | storey | job |
//! |--|--|
//! | [`routes`], [`programs`] | the doors: what a client sends and reads, over HTTP and over NATS |
//! | [`run`] | what the doors share about a run: acceptance, events, cancels, decisions |
//! | [`access`] | whether a request comes in, and as who |
//!
//! An ingress holds no state that another could not take over: runs are rows, events are stored,
//! and any ingress can follow any run from any event. Therefore it cancels nothing when it stops.
//!
//! To add an endpoint, write a file with its handler, its errors and its tests; put its scope in
//! the signature ([`access`]) and its line in [`routes`]. The description in `/openapi.json`
//! follows from the handler.

mod access;
mod error;
mod fetch;
mod ledger_clock;
pub mod metrics;
mod programs;
mod routes;
mod run;
mod settings;
mod state;
#[cfg(test)]
mod storeys;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::{Router, middleware};
use baton_admission::Admission;
use baton_nats::{AttachmentQuestions, Bus, IntakeOptions, Revocations};
use baton_service::config::HttpConfig;
use baton_service::open_files::{fit_connections, raise_limit};
use baton_service::{Config, Limits, LiveConfig, Readiness, SharedClock, Shutdown, request_id};
use baton_store::Store;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_swagger_ui::SwaggerUi;

pub use programs::ProgramDoor;

use crate::access::body_bytes::BodyBytes;
use crate::access::headers::FixedHeaders;
use crate::access::rate::{Proxies, RateLimiter};
use crate::access::stream_cap::StreamCap;
use crate::access::{CredentialWatch, Credentials, Issuers, SignIn};
use crate::ledger_clock::LedgerClock;
use crate::programs::LetterLimits;
use crate::routes::models::ModelCatalog;
use crate::run::attachments::Attachments;
use crate::run::attempts::ledger_attempts;
use crate::run::cancel::Canceller;
use crate::run::decide::Decider;
use crate::settings::Settings;
use crate::state::{AppState, Inner, Stopping};

/// The time before the accept loop cuts connections at which the last streams send their end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The time for which other ingresses may report that they have the client.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// The longest time that work for clients that have gone may take after the last connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// The parts that an ingress is built from.
pub struct IngressDeps {
    /// The configuration.
    pub config: LiveConfig,
    /// The ledger.
    pub store: Store,
    /// The broker.
    pub bus: Bus,
    /// The machine's clock. Decisions by the time of day use the ledger's.
    pub clock: SharedClock,
    /// The signal to stop.
    pub shutdown: Shutdown,
    /// Whether this process wants traffic.
    pub readiness: Readiness,
    /// The door through which programs connect to the broker; without it they cannot connect.
    pub programs: Option<ProgramDoor>,
    /// The connection that receives programs' messages; without it they are not received.
    pub intake: Option<IntakeOptions>,
}

/// Creates the keys for signing in, as an ingress does at its start.
///
/// # Errors
/// The first setting that cannot be used.
pub fn check(config: &Config) -> Result<(), String> {
    SignIn::new(&config.auth)
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// Serves until the soft stop and through the drain.
pub async fn run(mut deps: IngressDeps, listener: TcpListener) -> anyhow::Result<()> {
    let config = deps.config.clone();
    let mut http = config.current().http.clone();
    if let Some(limit) = raise_limit() {
        let database = config.current().database.max_connections;
        fit_connections(&mut http, database, limit)?;
    }
    let limits = Limits::of(&http);
    let readiness = deps.readiness.clone();
    let serving = readiness.part("http");
    // Its own tracker, because in a process with several roles each role waits for its own tasks.
    let shutdown = deps.shutdown.child();
    let door = deps.programs.take().map(Arc::new);
    let intake = deps.intake.take();
    let clock = LedgerClock::start(deps.clock, &deps.store).await;
    deps.clock = clock.clone();
    let state = state(deps, shutdown.clone())?;
    let stopping = state.stopping.clone();
    shutdown.tracker.spawn(stop_streams(
        shutdown.clone(),
        stopping,
        readiness.clone(),
        limits.clone(),
    ));
    let room = programs::room();
    programs::take_resubmissions(&state, Arc::clone(&room)).await?;
    if let Some(intake) = intake {
        programs::hear_programs(&state, intake, room)?;
    }
    if let Some(door) = door {
        let connects = door.callout.connect_requests(door.curve.clone()).await?;
        let admitting = programs::admit_programs(state.clone(), connects, Arc::clone(&door));
        shutdown.tracker.spawn(admitting);
        shutdown
            .tracker
            .spawn(programs::close_revoked(state.clone(), door));
    }
    shutdown
        .tracker
        .spawn(settings::take_changes(state.clone(), config));
    let questions = state.bus.attachment_questions().await?;
    shutdown
        .tracker
        .spawn(answer_others(state.clone(), questions));
    let revocations = state.bus.revocations().await?;
    shutdown
        .tracker
        .spawn(hear_revocations(state.clone(), revocations));
    // Streams continue through the drain, which ends with the last of them.
    let watching = Shutdown::new();
    let watch = state.watch.clone();
    shutdown.tracker.spawn({
        let (store, all) = (state.store.clone(), state.stopping.all.clone());
        async move {
            tokio::select! {
                () = watch.run(store.clone(), clock.clone(), watching.clone()) => {}
                () = clock.run(&store, &watching) => {}
                () = all.cancelled() => {}
            }
        }
    });
    let router = router(state, &http, readiness);
    serving.ready();
    tracing::info!(address = %listener.local_addr()?, "serving");
    let report = baton_service::serve(listener, router, limits, &shutdown).await;
    tracing::info!(
        accepted = report.accepted,
        cut = report.cut,
        "no more connections"
    );
    // The accept loop may have returned before the drain's time was over: all streams have ended.
    shutdown.stop_hard();
    shutdown.tracker.close();
    if tokio::time::timeout(FAREWELL, shutdown.tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!("some cancels for clients that had gone were not finished");
    }
    Ok(())
}

/// Evicts keys and sessions from the caches when another ingress announces their end.
async fn hear_revocations(state: AppState, mut revocations: Revocations) {
    let hearing = async {
        while let Some(credential) = revocations.next().await {
            state.forget(credential);
        }
    };
    tokio::select! {
        () = hearing => {}
        () = state.stopping.all.cancelled() => {}
    }
}

/// Answers other ingresses' questions about runs with a client here.
async fn answer_others(state: AppState, mut questions: AttachmentQuestions) {
    let answering = async {
        while let Some(question) = questions.next().await {
            if state.attachments.has(question.run())
                && let Err(error) = question.yes().await
            {
                tracing::debug!(%error, "another ingress was not answered");
            }
        }
    };
    tokio::select! {
        () = answering => {}
        () = state.stopping.all.cancelled() => {}
    }
}

/// Ends streams at their moments of a soft stop; ends all at once at a hard stop.
async fn stop_streams(
    shutdown: Shutdown,
    stopping: Stopping,
    readiness: Readiness,
    limits: Limits,
) {
    let hard = shutdown.hard.clone();
    let soft = async {
        shutdown.soft.cancelled().await;
        readiness.drain();
        // A client that resumed sooner might return to this very server.
        tokio::time::sleep(limits.lame_duck).await;
        stopping.native.cancel();
        tokio::time::sleep(
            limits
                .drain
                .saturating_sub(LAST_WORDS.min(limits.drain / 4)),
        )
        .await;
    };
    tokio::select! {
        () = hard.cancelled() => readiness.drain(),
        () = soft => {}
    }
    stopping.native.cancel();
    stopping.all.cancel();
}

/// Builds the state of an ingress. Must be called within the runtime.
fn state(deps: IngressDeps, shutdown: Shutdown) -> anyhow::Result<AppState> {
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
    let canceller = Canceller {
        store: store.clone(),
        bus: bus.clone(),
        clock: Arc::clone(&clock),
    };
    let decider = Decider {
        store: store.clone(),
        bus: bus.clone(),
    };
    // A hard stop drops connections at that very moment, so these tokens must be its children.
    let stopping = Stopping {
        native: shutdown.hard.child_token(),
        all: shutdown.hard.child_token(),
    };
    let attachments = Attachments::new(
        shutdown.tracker.clone(),
        stopping.all.clone(),
        canceller.clone().on_disconnect(),
        Box::new({
            let bus = bus.clone();
            move |run| {
                let bus = bus.clone();
                Box::pin(async move { bus.is_attached_elsewhere(run, ELSEWHERE).await })
            }
        }),
    );
    let (attempts, answering) = ledger_attempts(store.clone(), stopping.all.clone());
    shutdown.tracker.spawn(answering);
    let sign_in = Arc::new(SignIn::new(&config.auth)?);
    let issuers = Issuers::new(&config.auth, store.clone(), Arc::clone(&clock))?;
    let credentials = Credentials::new(
        store.clone(),
        Arc::clone(&clock),
        Arc::clone(&sign_in),
        Arc::new(issuers),
    );
    Ok(AppState::new(Inner {
        admission: Admission::new(store.clone(), bus.clone(), settings::rules(&config)),
        credentials,
        sign_in,
        watch: CredentialWatch::default(),
        credential_ended: Notify::new(),
        models: ArcSwap::from_pointee(ModelCatalog::new(&config.llm)?),
        rates: RateLimiter::new(bus.clone(), Arc::clone(&clock), access::rate::PATIENCE),
        proxies: Proxies::new(&config.http),
        settings: ArcSwap::from_pointee(Settings::of(&config)),
        attachments,
        attempts,
        canceller,
        decider,
        stopping,
        letters: LetterLimits::of(config.nats.dead_max_bytes.as_u64()),
        streams: StreamCap::new(config.limits.streams_per_key),
        key_environment: config.auth.key_environment.as_str().into(),
        body_bytes: BodyBytes::new(
            config.http.body_bytes.as_u64(),
            config.http.body_bytes_per_key.as_u64(),
            config.http.body_limit.as_u64(),
        ),
        body_limit: config.http.body_limit.as_u64(),
        heartbeat: config.http.heartbeat,
        store,
        bus,
        clock,
        shutdown,
    }))
}

/// Returns the API's description, as served at `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::described().1
}

fn router(state: AppState, http: &HttpConfig, readiness: Readiness) -> Router {
    let (api, description) = routes::described();
    let routes = Arc::new(error::Routes::described(&description));
    let docs = SwaggerUi::new("/docs").url("/openapi.json", description);
    let router = api
        .with_state(state.clone())
        .merge(Router::from(docs))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(access::request_head::check_head))
        .layer(middleware::from_fn_with_state(routes, error::shape_errors))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            access::rate::limit_requests,
        ));
    let router = routes::health::add(router, state, readiness);
    // Outside the errors' layer, because a page must be able to read errors, too.
    let router = match access::headers::cors(http) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.layer(middleware::from_fn_with_state(
        FixedHeaders::of(http),
        access::headers::fix_headers,
    ));
    request_id::instrument(router)
}
