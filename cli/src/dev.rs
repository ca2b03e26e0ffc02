//! `baton dev`: everything on one machine, for trying, developing, testing and measuring.
//!
//! Starts private copies of nats-server and PostgreSQL (or uses those that `NATS_URL` and
//! `DATABASE_URL` name), prepares both, starts all roles, and the demo model if no `LLM_BASE_URL`
//! is set. Restarts its own servers when they die. Stops everything that it started, and nothing
//! else.

mod announce;
mod broker;
mod demo_agent;
mod in_process;
mod separate;
mod servers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use baton_service::config::{
    AuthConfig, BuiltInTool, ConnectionUrl, LogConfig, Registration, weakness,
};
use baton_service::{Config, LiveConfig, Secret, Shutdown, run_until_stopped, telemetry};
use clap::Args;
use tokio::net::TcpListener;

use crate::args::ConfigArgs;
use crate::{config_command, demo_model, keys, migrate, private_file, role};

use announce::{ANY_PORT, Ready};
use servers::Servers;

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The folder for the data of the private servers
    #[arg(long, value_name = "DIR", default_value = ".baton")]
    pub(crate) data: PathBuf,
    /// The address to serve HTTP at; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,
    /// Write addresses and a key to this file, as JSON, once everything is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// The number of workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) workers: usize,
    /// Start each role as a process of its own, and restart it when it dies
    #[arg(long)]
    pub(crate) separate: bool,
}

/// The tenant that the ready-made key belongs to.
const TENANT: &str = "dev";

pub(crate) async fn run(args: DevArgs, sources: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let mut config = load(sources)?;
    let telemetry = telemetry::install(&config.log);
    baton_traces::install("baton")?;
    let reloader = role::reloader(sources, config.clone(), load)?;
    // The port comes first, because an address in use is the commonest reason for a failed start.
    let http = TcpListener::bind(args.http).await.with_context(|| {
        format!(
            "{} cannot be served: stop what uses it, or name another with --http",
            args.http
        )
    })?;
    let shutdown = Shutdown::new();
    let (servers, mut own) = Servers::start(&args.data, &config).await?;
    let base = reloader.live();
    let ended = run_until_stopped(&shutdown, async {
        servers.apply_to(&mut config);
        let file = sources.file.as_deref();
        // The servers run until the last role has stopped, because an orderly stop needs both.
        tokio::select! {
            served = Box::pin(serve(&args, &mut config, file, &base, &servers, http, &shutdown)) => served,
            never = own.keep() => match never {},
            never = reloader.run(telemetry) => match never {},
        }
    })
    .await;
    own.stop().await;
    let _flushed = tokio::task::spawn_blocking(baton_traces::flush).await;
    Ok(ended.into())
}

async fn serve(
    args: &DevArgs,
    config: &mut Config,
    file: Option<&Path>,
    base: &LiveConfig,
    servers: &Servers,
    http: TcpListener,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    migrate::apply(&servers.config_of("migrate", config)).await?;
    let demo = if config.llm.has_upstream() {
        false
    } else {
        let demo = demo_model::DemoModel::start(ANY_PORT, shutdown).await?;
        config.llm.base_url = Some(demo.base_url());
        config
            .llm
            .default_model
            .get_or_insert_with(|| demo_model::MODEL.to_owned());
        // The demo model can use these tools, so that users see the agent loop at once.
        if config.tools.built_in.is_empty() {
            config.tools.built_in = vec![BuiltInTool::Calculator, BuiltInTool::CurrentTime];
        }
        true
    };
    config.http.listen = http.local_addr()?;
    // There is no load balancer that must notice the stop first.
    config.http.lame_duck = std::time::Duration::ZERO;
    open_doors(config, &args.data)?;
    let made = keys::ready_made(config, TENANT, &args.data).await?;
    if demo {
        demo_agent::ensure(config, made.tenant).await?;
    }
    let ready = Ready {
        base_url: format!("http://{}", config.http.listen),
        api_key: made.key,
        key_id: made.id,
        tenant: made.tenant,
        programs: servers.broker.is_some() || config.nats.callout_seed.is_some(),
        nats_url: expose(config.nats.url.as_ref()),
        database_url: expose(config.database.url.as_ref()),
        model: config.llm.default_model.clone(),
        demo,
    };
    if args.separate {
        let told = separate::Told {
            config,
            file,
            servers,
        };
        separate::serve(args, told, http, shutdown, &ready).await
    } else {
        in_process::serve(args, config, base, servers, http, shutdown, &ready).await
    }
}

/// Loads the configuration with the defaults of `dev`.
fn load(sources: &ConfigArgs) -> anyhow::Result<Config> {
    let mut config = config_command::load_for_development(sources)?;
    config_command::try_out(&config)?;
    // Users of `dev` want to see its announcement; RUST_LOG or the file shows more.
    let asked = ["RUST_LOG", "BATON_LOG__FILTER"].map(std::env::var_os);
    if asked.iter().all(Option::is_none) && config.log.filter == LogConfig::default().filter {
        "warn".clone_into(&mut config.log.filter);
    }
    Ok(config)
}

/// Lets people register and sign in, with a signing key that is drawn here and kept with the data.
/// Settings of the configuration are not changed.
fn open_doors(config: &mut Config, data: &Path) -> anyhow::Result<()> {
    let auth = &mut config.auth;
    if auth.key_environment == AuthConfig::default().key_environment {
        "dev".clone_into(&mut auth.key_environment);
    }
    if auth.registration == AuthConfig::default().registration {
        auth.registration = Registration::Open;
    }
    if auth.jwt_secret.is_some() || !auth.keys.is_empty() {
        return Ok(());
    }
    let path = data.join("jwt-secret");
    let kept = std::fs::read_to_string(&path)
        .map(|text| text.trim().to_owned())
        .ok()
        .filter(|secret| weakness(secret).is_none());
    let secret = if let Some(kept) = kept {
        kept
    } else {
        let half = || uuid::Uuid::new_v4().simple();
        let fresh = format!("{}{}", half(), half());
        private_file::write(&path, &fresh)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        fresh
    };
    auth.jwt_secret = Some(Secret::new(secret));
    Ok(())
}

fn expose(url: Option<&ConnectionUrl>) -> String {
    url.map(|url| url.expose().to_owned()).unwrap_or_default()
}
