//! `baton`: the one binary. Roles and operator commands are sub-commands.

mod agents;
mod approvals;
mod args;
mod audit;
mod config_command;
mod dead;
mod demo_model;
mod dev;
mod doctor;
mod healthcheck;
mod init;
mod keys;
mod ledger;
mod log_level;
mod mcp;
mod migrate;
mod nats_issuer;
mod passed_socket;
mod private_file;
mod role;
mod runs;
mod server;
mod service_manager;
mod tenants;
mod usage;
mod users;
mod visible;

use std::pin::Pin;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::passed_socket::PassedSockets;
use crate::role::Kind;

/// jemalloc returns unused memory to the system within seconds. glibc's allocator returns a block
/// only if it is the last of its arena, so that the process would keep the memory of a large body
/// to its end.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let sockets = PassedSockets::from_env();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(command(sockets)),
        Err(error) => {
            eprintln!("baton: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Executes the command of the arguments.
async fn command(sockets: PassedSockets) -> ExitCode {
    // This comes before the first TLS connection, because rustls has no default provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let ended = match args.command {
        Command::Ingress => boxed(role::run(Kind::Ingress, sockets, &args.config)).await,
        Command::Worker => boxed(role::run(Kind::Worker, sockets, &args.config)).await,
        Command::Scheduler => boxed(role::run(Kind::Scheduler, sockets, &args.config)).await,
        Command::Dev(options) => boxed(dev::run(options, &args.config)).await,
        Command::Init(options) => finished(init::run(&options)),
        Command::Migrate(options) => finished(migrate::run(&options, &args.config).await),
        Command::Tenants(command) => finished(tenants::run(command, &args.config).await),
        Command::Keys(command) => finished(keys::run(command, &args.config).await),
        Command::Users(command) => finished(users::run(command, &args.config).await),
        Command::NatsIssuer => finished(nats_issuer::run()),
        Command::Audit(options) => finished(audit::run(options, &args.config).await),
        Command::Usage(options) => finished(usage::run(options, &args.config).await),
        Command::Runs(command) => finished(runs::run(command, &args.config).await),
        Command::Agents(command) => finished(agents::run(command).await),
        Command::Approvals(command) => finished(approvals::run(command).await),
        Command::LogLevel(options) => finished(log_level::run(options, &args.config).await),
        Command::Dead(command) => finished(dead::run(command, &args.config).await),
        Command::Mcp(command) => finished(mcp::run(command, &args.config).await),
        Command::Config(command) => finished(config_command::run(&command, &args.config)),
        Command::Doctor(options) => doctor::run(&options, &args.config).await,
        Command::Healthcheck(options) => finished(healthcheck::run(&options).await),
        Command::DemoModel(options) => boxed(demo_model::run(&options, &args.config)).await,
        Command::Version => finished(config_command::version()),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // The error with all its causes, because each says more about what to change.
            eprintln!("baton: {}", visible::visible_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Boxes a role's future, because it takes tens of kilobytes.
fn boxed<'a, T>(role: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(role)
}

fn finished(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
