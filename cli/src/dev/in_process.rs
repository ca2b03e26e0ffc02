//! Runs all roles in this process: the quickest way to a running Baton.

use anyhow::Context as _;
use baton_service::{Config, LiveConfig, Shutdown};
use futures_util::future::try_join_all;
use tokio::net::TcpListener;

use super::DevArgs;
use super::announce::{ANY_PORT, AdminAddresses, Ready};
use super::servers::Servers;
use crate::role::{self, Kind};

pub(crate) async fn serve(
    args: &DevArgs,
    config: &Config,
    base: &LiveConfig,
    servers: &Servers,
    http: TcpListener,
    shutdown: &Shutdown,
    ready: &Ready,
) -> anyhow::Result<()> {
    let workers = std::iter::repeat_n(Kind::Worker, args.workers);
    let kinds = [Kind::Ingress, Kind::Scheduler].into_iter().chain(workers);
    let configs: Vec<_> = kinds
        .map(|kind| (kind, base.of_role(servers.config_of(kind.name(), config))))
        .collect();
    // Workers stop before the ingress and the scheduler, so that streams see the requeue of their
    // runs. The demo model stops after all of them.
    let mut http = Some(http);
    let mut roles = Vec::new();
    let mut admin = Vec::new();
    for (kind, live) in configs {
        let listener = TcpListener::bind(ANY_PORT).await.context("no free port")?;
        admin.push(listener.local_addr()?);
        let http = if kind == Kind::Ingress {
            http.take()
        } else {
            None
        };
        roles.push(role::serve(kind, live, listener, http, shutdown));
    }
    let admin = AdminAddresses {
        ingress: admin[0],
        scheduler: admin[1],
        workers: admin[2..].to_vec(),
    };
    let announcing = async {
        admin.until_ready().await?;
        ready.announce(&admin, args.ready_file.as_deref())
    };
    tokio::try_join!(try_join_all(roles), announcing)?;
    Ok(())
}
