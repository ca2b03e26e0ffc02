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
//! the signature ([`access`]), the parts of the server that it needs before it, as
//! `State(store): State<Store>`, and its line in [`routes`]. The description in `/openapi.json`
//! follows from the handler.

mod access;
mod agent_files;
mod assemble;
mod error;
mod fetch;
mod ledger_clock;
pub mod metrics;
mod programs;
mod routes;
mod run;
mod settings;
#[cfg(test)]
mod storeys;

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use baton_nats::{AttachmentQuestions, Bus, IntakeOptions};
use baton_service::config::HttpConfig;
use baton_service::open_files::{fit_connections, raise_limit};
use baton_service::{Config, Limits, LiveConfig, Readiness, SharedClock, Shutdown, request_id};
use baton_store::Store;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_swagger_ui::SwaggerUi;

pub use programs::ProgramDoor;

use crate::access::headers::FixedHeaders;
use crate::access::{Issuers, SignIn};
use crate::agent_files::AgentFiles;
use crate::assemble::{Assembled, assemble};
use crate::ledger_clock::LedgerClock;
use crate::routes::models::ModelCatalog;
use crate::routes::{AppState, Parts};
use crate::run::attachments::Attachments;
use crate::run::followers::Stopping;
use crate::settings::Reloaded;

/// The time before the accept loop cuts connections at which the last streams send their end.
const LAST_WORDS: Duration = Duration::from_secs(1);
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

/// Builds the keys for signing in, the issuers, the clients of models' lists and the agents of files, as an
/// ingress does at its start.
///
/// # Errors
/// The first setting that cannot be used.
pub fn check(config: &Config) -> Result<(), String> {
    let built = || -> anyhow::Result<()> {
        SignIn::new(&config.auth)?;
        Issuers::check(&config.auth)?;
        ModelCatalog::new(&config.llm)?;
        agent_files::read(config)?;
        Ok(())
    };
    built().map_err(|error| format!("{error:#}"))
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
    let Assembled { parts, programs } = assemble(deps, &shutdown)?;
    let mut agents = AgentFiles {
        store: parts.store.clone(),
        admission: parts.admission.clone(),
        clock: Arc::clone(&parts.clock),
        agents: agent_files::read(&config.current())?,
        trouble: None,
    };
    agents.apply().await;
    let stopping = parts.followers.stopping.clone();
    shutdown.tracker.spawn(stop_streams(
        shutdown.clone(),
        stopping.clone(),
        readiness.clone(),
        limits.clone(),
    ));
    let room = programs::room();
    programs::take_resubmissions(&programs, Arc::clone(&room)).await?;
    if let Some(intake) = intake {
        programs::hear_programs(&programs, intake, room)?;
    }
    if let Some(door) = door {
        let connects = door.callout.connect_requests(door.curve.clone()).await?;
        let admitting =
            programs::admit_programs(Arc::clone(&programs), connects, Arc::clone(&door));
        shutdown.tracker.spawn(admitting);
        shutdown
            .tracker
            .spawn(programs::close_revoked(programs, door));
    }
    let reloaded = Reloaded {
        streams: parts.followers.streams.clone(),
        rates: parts.authenticator.rates.clone(),
        admission: parts.admission.clone(),
        models: parts.models.clone(),
        mcp_servers: parts.mcp_servers.clone(),
    };
    spawn_until_stopped(&shutdown, &stopping, agents.take_changes(config.clone()));
    spawn_until_stopped(&shutdown, &stopping, reloaded.take_changes(config));
    let (bus, store) = (parts.revoker.bus.clone(), parts.store.clone());
    let answering = answer_others(
        parts.followers.attachments.clone(),
        bus.attachment_questions().await?,
    );
    spawn_until_stopped(&shutdown, &stopping, answering);
    let revocations = bus.revocations().await?;
    let hearing = parts.revoker.clone().hear(revocations);
    spawn_until_stopped(&shutdown, &stopping, hearing);
    // Streams continue through the drain, which ends with the last of them.
    let watching = Shutdown::new();
    let watch = parts.followers.watch.clone();
    spawn_until_stopped(&shutdown, &stopping, {
        let store = store.clone();
        async move {
            tokio::select! {
                () = watch.run(store.clone(), clock.clone(), watching.clone()) => {}
                () = clock.run(&store, &watching) => {}
            }
        }
    });
    let probed = (store, bus, parts.clock.clone());
    let router = router(parts, probed, &http, readiness);
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

/// Spawns a task that ends, at the latest, with the last streams.
fn spawn_until_stopped(
    shutdown: &Shutdown,
    stopping: &Stopping,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let all = stopping.all.clone();
    shutdown.tracker.spawn(async move {
        all.run_until_cancelled(task).await;
    });
}

/// Answers other ingresses' questions about runs with a client here.
async fn answer_others(attachments: Attachments, mut questions: AttachmentQuestions) {
    while let Some(question) = questions.next().await {
        if attachments.has(question.run())
            && let Err(error) = question.yes().await
        {
            tracing::debug!(%error, "another ingress was not answered");
        }
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

/// Returns the API's description, as served at `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::described().1
}

fn router(
    parts: Parts,
    probed: (Store, Bus, SharedClock),
    http: &HttpConfig,
    readiness: Readiness,
) -> Router {
    let rates = parts.authenticator.rates.clone();
    let (api, description) = routes::described();
    let routes = Arc::new(error::Routes::described(&description));
    let docs = SwaggerUi::new("/docs").url("/openapi.json", description);
    let router = api
        .with_state(AppState::new(parts))
        .merge(Router::from(docs))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(access::request_head::check_head))
        .layer(middleware::from_fn_with_state(routes, error::shape_errors))
        .layer(middleware::from_fn_with_state(
            rates,
            access::rate::limit_requests,
        ));
    let router = routes::health::add(router, probed, readiness);
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
