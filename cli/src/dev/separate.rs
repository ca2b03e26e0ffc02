//! Runs each role as a process of its own, as in production, for testing faults.
//!
//! Restarts a role that dies, as an orchestrator would. Passes a soft stop on as SIGTERM, workers
//! first. The processes die with this one, whatever ends it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use baton_service::config::sources::DEVELOPMENT_VARIABLE;
use baton_service::config::{ConnectionUrl, Registration};
use baton_service::{Config, Shutdown};
use futures_util::future::try_join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::DevArgs;
use super::announce::{ANY_PORT, AdminAddresses, Ready};
use super::servers::Servers;
use crate::config_command;
use crate::role::Kind;

/// The pause before a restart, so that a role that dies at once does not keep the machine busy.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// The settings of every role.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) config: &'a Config,
    /// The configuration file, if an argument names it.
    pub(crate) file: Option<&'a Path>,
    pub(crate) servers: &'a Servers,
}

pub(crate) async fn serve(
    args: &DevArgs,
    told: Told<'_>,
    http: TcpListener,
    shutdown: &Shutdown,
    ready: &Ready,
) -> anyhow::Result<()> {
    let address = http.local_addr()?;
    // The ingress binds the port itself. In the moment between, another process gets it only by bad
    // luck.
    drop(http);
    let workers = std::iter::repeat_n(Kind::Worker, args.workers);
    let mut roles = Vec::new();
    for kind in [Kind::Ingress, Kind::Scheduler].into_iter().chain(workers) {
        roles.push(Role {
            kind,
            admin: free_address().await?,
            http: address,
            config: told.servers.config_of(kind.name(), told.config),
            file: told.file,
        });
    }
    let admin = AdminAddresses {
        ingress: roles[0].admin,
        scheduler: roles[1].admin,
        workers: roles[2..].iter().map(|role| role.admin).collect(),
    };
    let announcing = async {
        admin.until_ready().await?;
        ready.announce(&admin, args.ready_file.as_deref())
    };
    // Workers finish the current step of their runs while the ingress still streams.
    let workers_gone = Shutdown::new();
    let supervised = async {
        let workers = try_join_all(roles[2..].iter().map(|role| role.supervise(shutdown)));
        let others = try_join_all(roles[..2].iter().map(|role| role.supervise(&workers_gone)));
        let workers = async {
            let ended = workers.await;
            workers_gone.stop_soft();
            ended
        };
        tokio::try_join!(workers, others)
    };
    tokio::try_join!(supervised, announcing)?;
    Ok(())
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(ANY_PORT).await.context("no free port")?;
    Ok(listener.local_addr()?)
}

struct Role<'a> {
    kind: Kind,
    admin: SocketAddr,
    http: SocketAddr,
    config: Config,
    file: Option<&'a Path>,
}

impl Role<'_> {
    async fn supervise(&self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let name = self.kind.name();
        let mut hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
        loop {
            let mut child = self.spawn()?;
            let pid = child.id().unwrap_or_default();
            config_command::print(&format!(
                "{name}: process {pid}, probes at http://{}",
                self.admin
            ))?;
            let status = tokio::select! {
                status = child.wait() => status?,
                never = pass_on_hangups(&mut hangups, pid) => match never {},
                () = shutdown.soft.cancelled() => {
                    terminate(&child);
                    tokio::select! {
                        status = child.wait() => {
                            tracing::info!(role = name, status = %status?, "a role has stopped");
                        }
                        () = shutdown.hard.cancelled() => child.kill().await?,
                    }
                    return Ok(());
                }
            };
            tracing::warn!(role = name, %status, "a role has died and is started again");
            tokio::select! {
                () = tokio::time::sleep(RESTART_AFTER) => {}
                () = shutdown.soft.cancelled() => return Ok(()),
            }
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("this program cannot be found again")?;
        let url = |url: &Option<ConnectionUrl>| {
            url.as_ref()
                .map(|url| url.expose().to_owned())
                .unwrap_or_default()
        };
        let mut command = Command::new(program);
        command
            .arg(self.kind.name())
            .env("DATABASE_URL", url(&self.config.database.url))
            .env("NATS_URL", url(&self.config.nats.url))
            .env(DEVELOPMENT_VARIABLE, "1")
            .env("BATON_HTTP__LISTEN", self.http.to_string())
            .env("BATON_HTTP__LAME_DUCK", "0s")
            .env("RUST_LOG", &self.config.log.filter)
            .env(
                format!("BATON_ADMIN__{}", self.kind.name().to_uppercase()),
                self.admin.to_string(),
            )
            .stdin(Stdio::null())
            // A process group of its own: Ctrl-C reaches only `dev`, which stops the roles in
            // order.
            .process_group(0)
            .kill_on_drop(true);
        // The roles inherit the environment of this process. The settings below were found or made
        // by it.
        if let Some(file) = self.file {
            command.arg("--config").arg(file);
        }
        if let Some(secret) = &self.config.auth.jwt_secret {
            command.env("JWT_SECRET", secret.expose());
        }
        let nats = &self.config.nats;
        for (name, value) in [
            ("BATON_NATS__USER", nats.user.as_ref()),
            ("BATON_NATS__SYSTEM_USER", nats.system_user.as_ref()),
            ("BATON_NATS__CALLOUT_USER", nats.callout_user.as_ref()),
            ("BATON_NATS__PROGRAMS_USER", nats.programs_user.as_ref()),
        ] {
            command.envs(value.map(|value| (name, value)));
        }
        for (name, secret) in [
            ("BATON_NATS__PASSWORD", &nats.password),
            ("BATON_NATS__CALLOUT_SEED", &nats.callout_seed),
            ("BATON_NATS__CALLOUT_XKEY_SEED", &nats.callout_xkey_seed),
            ("BATON_NATS__SYSTEM_PASSWORD", &nats.system_password),
            ("BATON_NATS__CALLOUT_PASSWORD", &nats.callout_password),
            ("BATON_NATS__PROGRAMS_PASSWORD", &nats.programs_password),
        ] {
            command.envs(secret.as_ref().map(|secret| (name, secret.expose())));
        }
        command.env(
            "BATON_AUTH__KEY_ENVIRONMENT",
            &self.config.auth.key_environment,
        );
        command.env(
            "BATON_AUTH__REGISTRATION",
            match self.config.auth.registration {
                Registration::Open => "open",
                Registration::Invited => "invited",
                Registration::Closed => "closed",
            },
        );
        if let Some(base_url) = &self.config.llm.base_url {
            command.env("LLM_BASE_URL", base_url);
        }
        if let Some(model) = &self.config.llm.default_model {
            command.env("LLM_DEFAULT_MODEL", model);
        }
        let built_in = self.config.tools.built_in.iter();
        let built_in: Vec<_> = built_in.map(|tool| tool.as_str()).collect();
        command.env(
            "BATON_TOOLS__BUILT_IN",
            serde_json::json!(built_in).to_string(),
        );
        command
            .spawn()
            .with_context(|| format!("baton {} cannot be started", self.kind.name()))
    }
}

/// Makes a role reload its configuration whenever this process is asked to.
async fn pass_on_hangups(
    hangups: &mut tokio::signal::unix::Signal,
    pid: u32,
) -> std::convert::Infallible {
    loop {
        if hangups.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0)
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGHUP)
        {
            tracing::warn!(%error, "a role could not be asked to reload");
        }
    }
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid
        && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM)
    {
        tracing::warn!(%error, "a role could not be told to stop");
    }
}
