//! One role as a process: configuration, connections, admin port, the role's work, an orderly stop.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use baton_ingress::{IngressDeps, ProgramDoor};
use baton_nats::accounts::{CALLOUT, PROGRAMS, SYSTEM, inbox_prefix};
use baton_nats::{
    Auth, Bus, BusOptions, CalloutBus, CurveKey, IntakeOptions, Issuer, StreamOptions, SystemBus,
    Tls,
};
use baton_scheduler::SchedulerDeps;
use baton_service::admin::Admin;
use baton_service::config::Required;
use baton_service::open_files::raise_limit;
use baton_service::{
    Config, LiveConfig, Liveness, Readiness, Reloader, Secret, SharedClock, Shutdown, Sources,
    StopSequence, SystemClock, certificates, run_until_stopped, telemetry,
};
use baton_store::{SLOW_GROUP, Store, StoreOptions};
use baton_worker::WorkerDeps;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::args::ConfigArgs;
use crate::passed_socket::PassedSockets;
use crate::{config_command, log_level, service_manager};

/// The longest time for closing a connection to a server.
const CLOSE: Duration = Duration::from_secs(5);
/// The time in which a role that has lost the broker for good finishes its work.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The time in which the end of a connection is noticed after its subscriptions have ended.
const NOTICED: Duration = Duration::from_secs(1);
const UNASKED: &str = "the role ended without being asked to";

/// The kind of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ingress,
    Worker,
    Scheduler,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ingress, Self::Worker, Self::Scheduler];

    /// Returns the sub-command, which is also the name in logs and connections.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }

    const fn admin(self, config: &Config) -> SocketAddr {
        match self {
            Self::Ingress => config.admin.ingress,
            Self::Worker => config.admin.worker,
            Self::Scheduler => config.admin.scheduler,
        }
    }

    const fn needs(self) -> &'static [Required] {
        match self {
            Self::Ingress | Self::Worker => &[Required::Database, Required::Nats, Required::Llm],
            Self::Scheduler => &[Required::Database, Required::Nats],
        }
    }
}

/// Runs only this role in the process.
pub(crate) async fn run(
    kind: Kind,
    sockets: PassedSockets,
    args: &ConfigArgs,
) -> anyhow::Result<ExitCode> {
    let config = config_command::load_for_roles(args)?;
    config.require(kind.needs())?;
    let telemetry = telemetry::install(&config.log);
    config_command::warn_of_unread_variables(args)?;
    let service = match kind {
        Kind::Ingress => "baton-ingress",
        Kind::Worker => "baton-worker",
        Kind::Scheduler => "baton-scheduler",
    };
    baton_traces::install(service)?;
    let reloader = reloader(args, config.clone(), config_command::load_for_roles)?;
    let live = reloader.live();
    let shutdown = Shutdown::new();
    let ended = run_until_stopped(&shutdown, async {
        let admin = bind(kind.admin(&config), "the admin port").await?;
        let http = match kind {
            Kind::Ingress => Some(match sockets.http(config.http.listen)? {
                Some(passed) => passed,
                None => bind(config.http.listen, "HTTP").await?,
            }),
            Kind::Worker | Kind::Scheduler => {
                sockets.none()?;
                None
            }
        };
        let reports = service_manager::report(admin.local_addr()?, shutdown.clone());
        tokio::select! {
            served = Box::pin(serve(kind, live, admin, http, &shutdown)) => served,
            never = reloader.run(telemetry) => match never {},
            never = reports => match never {},
        }
    })
    .await;
    // It blocks, and the runtime still sends what it waits for.
    let _flushed = tokio::task::spawn_blocking(baton_traces::flush).await;
    Ok(ended.into())
}

/// Makes the function that reloads this process's configuration; `loaded` is the one that `load`
/// returned at the start.
pub(crate) fn reloader(
    args: &ConfigArgs,
    loaded: Config,
    load: fn(&ConfigArgs) -> anyhow::Result<Config>,
) -> anyhow::Result<Reloader> {
    let file = Sources::file_of_process(args.file.as_deref());
    let args = args.clone();
    Reloader::new(file, loaded, move || load(&args)).context("SIGHUP cannot be handled")
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} cannot be bound for {what}: is it in use?"))
}

/// Runs a role until its soft stop is complete. Only the ingress uses `http`.
pub(crate) async fn serve(
    kind: Kind,
    live: LiveConfig,
    admin: TcpListener,
    http: Option<TcpListener>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    raise_limit();
    let config = &live.current();
    log_start(kind, &admin, http.as_ref());
    let clock = SystemClock::shared();
    let readiness = Readiness::new();
    let liveness = Liveness::new();
    let started = readiness.part("role");
    let store = Store::connect(store_options(kind, config)).await?;
    let bus = Bus::connect(bus_options(kind, config)).await?;
    let door = match kind {
        Kind::Ingress => door_buses(config).await?,
        Kind::Worker | Kind::Scheduler => None,
    };
    // The admin port outlives the drain, because it reports that one is under way.
    let admin_stop = Shutdown::new();
    let telemetry = telemetry::install(&config.log);
    let log_levels = log_level::follow(
        bus.clone(),
        kind,
        admin.local_addr()?.to_string(),
        telemetry,
    );
    let admin_server = {
        let (store, bus) = (store.clone(), bus.clone());
        Admin::new(readiness.clone(), telemetry, SharedClock::clone(&clock))
            .liveness(liveness.clone())
            .check("postgres", move || {
                let store = store.clone();
                async move { store.ping().await.map(drop) }
            })
            .check("nats", move || {
                let bus = bus.clone();
                async move { bus.ping().await.map(drop) }
            })
            .serve(admin, &admin_stop)
    };
    let admin_server = async {
        tokio::select! {
            report = admin_server => report,
            never = log_levels => match never {},
            never = certificates::measure(live.clone()) => match never {},
        }
    };
    let work = async {
        let draining = {
            let readiness = readiness.clone();
            async move {
                shutdown.soft.cancelled().await;
                readiness.drain();
                std::future::pending::<()>().await;
            }
        };
        // Another role in this process continues until it finds the same.
        let stop = Shutdown {
            soft: shutdown.soft.child_token(),
            hard: shutdown.hard.child_token(),
            tracker: shutdown.tracker.clone(),
        };
        let mut role = std::pin::pin!(role(
            kind,
            live.clone(),
            &store,
            &bus,
            door.clone(),
            clock,
            http,
            &stop,
            &readiness,
            started,
        ));
        let ended = tokio::select! {
            ended = &mut role => Some(ended),
            () = draining => Some(Ok(())),
            _reason = lost_for_good(&bus, door.as_ref()) => None,
        };
        let result = match ended {
            Some(Ok(())) if shutdown.soft.is_cancelled() => Ok(()),
            Some(Err(error)) => Err(error),
            // Its subscriptions may end a moment before the connection counts as lost.
            unasked => {
                let lost = lost_for_good(&bus, door.as_ref());
                let reason = timeout(NOTICED, lost).await.unwrap_or(UNASKED);
                liveness.fail(reason);
                readiness.drain();
                tracing::error!(reason, "this process cannot go on and ends itself");
                stop.stop_soft();
                if unasked.is_none() {
                    let _ended = timeout(LAST_WORDS, &mut role).await;
                }
                Err(anyhow::anyhow!(reason))
            }
        };
        StopSequence::new()
            .step("database", CLOSE, store.close())
            .step("broker", CLOSE, bus.close())
            .run(&shutdown.hard)
            .await;
        admin_stop.stop_soft();
        result
    };
    let (_, result) = tokio::join!(admin_server, work);
    result
}

/// Logs a role's first line: its build and its addresses.
fn log_start(kind: Kind, admin: &TcpListener, http: Option<&TcpListener>) {
    let built = baton_service::build::info();
    let address = |listener: &TcpListener| listener.local_addr().ok().map(tracing::field::display);
    tracing::info!(
        role = kind.name(),
        version = built.version,
        commit = built.commit,
        admin = address(admin),
        http = http.and_then(address),
        "starting"
    );
}

#[expect(
    clippy::too_many_arguments,
    reason = "the one place where a role's parts come together"
)]
async fn role(
    kind: Kind,
    live: LiveConfig,
    store: &Store,
    bus: &Bus,
    door: Option<DoorBuses>,
    clock: SharedClock,
    http: Option<TcpListener>,
    shutdown: &Shutdown,
    readiness: &Readiness,
    started: baton_service::readiness::Part,
) -> anyhow::Result<()> {
    let (store, bus, shutdown) = (store.clone(), bus.clone(), shutdown.clone());
    let readiness = readiness.clone();
    let config = &live.current();
    started.ready();
    match kind {
        Kind::Ingress => {
            let http = http.context("an ingress needs a listener")?;
            let programs = door
                .map(|door| program_door(config, door))
                .transpose()?
                .flatten();
            let intake = intake_options(config);
            let deps = IngressDeps {
                programs,
                intake,
                config: live,
                store,
                bus,
                clock,
                shutdown,
                readiness,
            };
            Ok(baton_ingress::run(deps, http).await?)
        }
        Kind::Worker => {
            let deps = WorkerDeps {
                config: live,
                store,
                bus,
                clock,
                shutdown,
                readiness,
            };
            Box::pin(baton_worker::run(deps)).await
        }
        Kind::Scheduler => {
            let streams = stream_options(config);
            let config = config.scheduler.clone();
            let deps = SchedulerDeps {
                config,
                streams,
                store,
                bus,
                clock,
                shutdown,
                readiness,
            };
            Box::pin(baton_scheduler::run(deps)).await
        }
    }
}

fn store_options(kind: Kind, config: &Config) -> StoreOptions {
    StoreOptions {
        url: config
            .database
            .url
            .as_ref()
            .map(|url| url.expose().to_owned())
            .unwrap_or_default(),
        max_connections: config.database.max_connections,
        acquire_timeout: config.database.acquire_timeout,
        slow_group: SLOW_GROUP,
        application_name: format!("baton {}", kind.name()),
    }
}

fn bus_options(kind: Kind, config: &Config) -> BusOptions {
    broker(kind.name(), config)
}

/// Waits until a connection to the broker can never come back, and returns the reason why the role
/// must end. It waits through outages of any length, because all connections reconnect for ever.
async fn lost_for_good(bus: &Bus, door: Option<&DoorBuses>) -> &'static str {
    let door_closed = async {
        match door {
            Some(door) => tokio::select! {
                () = door.system.closed() => {}
                () = door.callout.closed() => {}
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = bus.closed() => "the connection to NATS is closed for good",
        () = door_closed => "a connection to NATS that the door for programs needs is closed for good",
    }
}

/// The connections with which an ingress admits programs and closes their connections.
#[derive(Clone)]
pub(crate) struct DoorBuses {
    system: SystemBus,
    callout: CalloutBus,
}

/// Opens them, if an issuer is configured.
pub(crate) async fn door_buses(config: &Config) -> anyhow::Result<Option<DoorBuses>> {
    let nats = &config.nats;
    let as_user = |name: &str, user: &Option<String>, password: &Option<Secret<String>>| {
        let (user, password) = user.clone().zip(password.clone())?;
        let password = password.expose().clone();
        Some(BusOptions {
            auth: Auth::UserPassword { user, password },
            ..broker(name, config)
        })
    };
    let (Some(_), Some(system), Some(callout)) = (
        &nats.callout_seed,
        as_user(SYSTEM, &nats.system_user, &nats.system_password),
        as_user(CALLOUT, &nats.callout_user, &nats.callout_password),
    ) else {
        return Ok(None);
    };
    Ok(Some(DoorBuses {
        system: SystemBus::connect(system).await?,
        callout: CalloutBus::connect(callout).await?,
    }))
}

/// Makes the door for programs, if an issuer is configured.
fn program_door(config: &Config, door: DoorBuses) -> anyhow::Result<Option<ProgramDoor>> {
    let nats = &config.nats;
    let Some(seed) = &nats.callout_seed else {
        return Ok(None);
    };
    let issuer = Issuer::from_seed(seed.expose()).context("nats.callout_seed")?;
    let curve = nats
        .callout_xkey_seed
        .as_ref()
        .map(|seed| CurveKey::from_seed(seed.expose()).context("nats.callout_xkey_seed"))
        .transpose()?;
    tracing::info!(issuer = %issuer.public_key(), "programs may connect to the broker");
    Ok(Some(ProgramDoor {
        issuer,
        curve,
        session: nats.callout_session,
        connections: nats.callout_connections,
        system: door.system,
        callout: door.callout,
    }))
}

/// Returns the options of the connection on which an ingress receives programs' messages, if it
/// should.
fn intake_options(config: &Config) -> Option<IntakeOptions> {
    let nats = &config.nats;
    let (user, password) = nats
        .programs_user
        .clone()
        .zip(nats.programs_password.clone())?;
    let main = broker(PROGRAMS, config);
    Some(IntakeOptions {
        login: Some((user, password.expose().clone())),
        tls: main.tls,
        connect_timeout: main.connect_timeout,
        ..IntakeOptions::new(main.url, main.name)
    })
}

/// Returns the options for a connection of a role or a command to the broker. Replies arrive on
/// subjects that `nats/accounts.conf` permits to this user only.
pub(crate) fn broker(name: &str, config: &Config) -> BusOptions {
    let nats = &config.nats;
    let url = nats
        .url
        .as_ref()
        .map(|url| url.expose().to_owned())
        .unwrap_or_default();
    let auth = match (&nats.user, &nats.password, &nats.token, &nats.creds_file) {
        (Some(user), Some(password), _, _) => Auth::UserPassword {
            user: user.clone(),
            password: password.expose().clone(),
        },
        (_, _, Some(token), _) => Auth::Token(token.expose().clone()),
        (_, _, _, Some(file)) => Auth::CredsFile(file.clone()),
        _ => Auth::None,
    };
    BusOptions {
        auth,
        tls: Tls {
            ca: nats.tls_ca.clone(),
            identity: nats.tls_cert.clone().zip(nats.tls_key.clone()),
            // A client with certificates must never send a password unencrypted.
            required: nats.tls_ca.is_some() || nats.tls_cert.is_some(),
        },
        connect_timeout: nats.connect_timeout,
        inbox_prefix: Some(inbox_prefix(name)),
        ..BusOptions::new(url, format!("baton {name}"))
    }
}

/// Returns the configured options of streams and consumers.
pub(crate) fn stream_options(config: &Config) -> StreamOptions {
    let bytes =
        |size: baton_service::config::ByteSize| i64::try_from(size.as_u64()).unwrap_or(i64::MAX);
    StreamOptions {
        replicas: config.nats.replicas,
        event_retention: config.nats.event_retention,
        jobs_max_bytes: bytes(config.nats.jobs_max_bytes),
        jobs_per_tenant: config.nats.jobs_per_tenant,
        events_max_bytes: bytes(config.nats.events_max_bytes),
        events_per_run: config.nats.events_per_run,
        dead_max_bytes: bytes(config.nats.dead_max_bytes),
        ack_wait: config.worker.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delivered nats.conf has room for these, and the example configuration names them.
    #[test]
    fn the_default_configuration_asks_for_the_default_streams() {
        assert_eq!(stream_options(&Config::default()), StreamOptions::default());
    }

    #[test]
    fn a_client_certificate_reaches_the_connection() {
        let mut config = Config::default();
        config.nats.tls_cert = Some("baton.pem".into());
        config.nats.tls_key = Some("baton.key".into());
        let tls = broker("worker", &config).tls;
        assert_eq!(tls.identity, Some(("baton.pem".into(), "baton.key".into())));
        assert!(tls.required);
        assert!(!broker("worker", &Config::default()).tls.required);
    }
}
