//! The socket that systemd passes to an ingress, which takes connections while no ingress runs.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The sockets that the process was started with.
pub(crate) struct PassedSockets(ListenFd);

impl PassedSockets {
    /// Takes them from `LISTEN_FDS`, and removes the variable. It must run before other threads
    /// exist, because they may read the environment.
    pub(crate) fn from_env() -> Self {
        Self(ListenFd::from_env())
    }

    /// Returns the listener for HTTP, if one was passed. Fails if it cannot be served, or if there
    /// are several.
    pub(crate) fn http(mut self, configured: SocketAddr) -> anyhow::Result<Option<TcpListener>> {
        if self.0.len() > 1 {
            bail!(
                "systemd passed {} sockets: an ingress serves one ListenStream",
                self.0.len()
            );
        }
        let passed = self.0.take_tcp_listener(0);
        let Some(listener) = passed.context("systemd passed a socket that is not of TCP")? else {
            return Ok(None);
        };
        let address = listener.local_addr()?;
        if address != configured {
            tracing::warn!(
                %address,
                %configured,
                "systemd's socket is served, and http.listen is not: name the same address in both"
            );
        }
        listener.set_nonblocking(true)?;
        Ok(Some(TcpListener::from_std(listener)?))
    }

    /// Fails if there are any, because this process serves none.
    pub(crate) fn none(self) -> anyhow::Result<()> {
        match self.0.len() {
            0 => Ok(()),
            _ => bail!("systemd passed a socket, and only an ingress serves one"),
        }
    }
}
