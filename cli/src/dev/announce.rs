//! The announcement of `baton dev`, for people and scripts, once everything serves.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use baton_protocol::{ApiKeyId, TenantId};
use serde_json::json;

use super::demo_agent;
use crate::private_file;

/// The address of each role's probes in `dev`: a free port on the loopback.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The data that a client needs.
pub(crate) struct Ready {
    pub(crate) base_url: String,
    pub(crate) api_key: String,
    /// The key's id, which is part of the subjects that the key may publish to.
    pub(crate) key_id: ApiKeyId,
    /// The tenant of the key.
    pub(crate) tenant: TenantId,
    /// Whether programs can connect to the broker with the key.
    pub(crate) programs: bool,
    pub(crate) nats_url: String,
    pub(crate) database_url: String,
    pub(crate) model: Option<String>,
    pub(crate) demo: bool,
}

/// The address of each role's probes.
pub(crate) struct AdminAddresses {
    pub(crate) ingress: SocketAddr,
    pub(crate) workers: Vec<SocketAddr>,
    pub(crate) scheduler: SocketAddr,
}

impl Ready {
    /// Prints the announcement for people on standard output, and writes the one for scripts into
    /// `ready_file`, whole or not at all.
    pub(crate) fn announce(
        &self,
        admin: &AdminAddresses,
        ready_file: Option<&Path>,
    ) -> anyhow::Result<()> {
        self.print().context("standard output is closed")?;
        let Some(path) = ready_file else {
            return Ok(());
        };
        let url = |address: &SocketAddr| format!("http://{address}");
        let ready = json!({
            "base_url": self.base_url,
            "api_key": self.api_key,
            "key_id": self.key_id,
            "tenant": self.tenant,
            "nats_url": self.nats_url,
            "database_url": self.database_url,
            "admin": {
                "ingress": url(&admin.ingress),
                "workers": admin.workers.iter().map(url).collect::<Vec<_>>(),
                "scheduler": url(&admin.scheduler),
            },
        });
        let partial = path.with_extension("partial");
        // The file holds a key, and the password of the database's user.
        private_file::write(&partial, &format!("{ready:#}"))
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    fn print(&self) -> std::io::Result<()> {
        let Self {
            base_url,
            api_key,
            nats_url,
            tenant,
            key_id,
            ..
        } = self;
        let model = self.model.as_deref().unwrap_or("MODEL");
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\nBaton serves at {base_url}   (API reference: {base_url}/docs)"
        )?;
        if self.demo {
            writeln!(
                out,
                "Model: a built-in demo. Set LLM_BASE_URL to use a real one."
            )?;
        }
        writeln!(out, "NATS: {nats_url}\nAPI key: {api_key}\n\nTry it:\n")?;
        writeln!(out, "  curl -N {base_url}/v1/chat/completions \\")?;
        writeln!(out, "    -H 'Authorization: Bearer {api_key}' \\")?;
        writeln!(out, "    -H 'Content-Type: application/json' \\")?;
        writeln!(
            out,
            "    -d '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"What is 15% of 847?\"}}]}}'\n"
        )?;
        if self.demo {
            writeln!(
                out,
                "With the model {} a run waits until you approve its calculation:\n",
                demo_agent::AGENT
            )?;
            writeln!(
                out,
                "  curl {base_url}/v1/runs -H 'Authorization: Bearer {api_key}' \\"
            )?;
            writeln!(out, "    -H 'Content-Type: application/json' \\")?;
            writeln!(
                out,
                "    -d '{{\"model\":\"{}\",\"input\":\"What is 15% of 847?\"}}'",
                demo_agent::AGENT
            )?;
            writeln!(
                out,
                "  export BATON_BASE_URL={base_url} BATON_API_KEY={api_key}"
            )?;
            writeln!(out, "  baton approvals list\n")?;
        }
        if self.programs {
            writeln!(
                out,
                "Over NATS the key is the token; its id is {key_id}, its tenant is {tenant}. To follow its runs:\n"
            )?;
            writeln!(
                out,
                "  nats --server {nats_url} --user {api_key} --inbox-prefix _INBOX_{tenant} \\"
            )?;
            writeln!(out, "    sub 'live.{tenant}.*'\n")?;
        }
        writeln!(out, "Ctrl-C stops everything.")?;
        out.flush()
    }
}

impl AdminAddresses {
    /// Waits until every role reports that it is ready.
    pub(crate) async fn until_ready(&self) -> anyhow::Result<()> {
        let all = [self.ingress, self.scheduler]
            .into_iter()
            .chain(self.workers.iter().copied());
        for address in all {
            while crate::healthcheck::ask_ready(address).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}
