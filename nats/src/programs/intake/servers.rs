//! The servers to try, in turn.

use async_nats::ServerAddr;

/// The most servers that are learned from a cluster.
const MAX_LEARNED: usize = 64;

/// An address that this connection cannot use.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be read as an address of a NATS server.
    #[error("nats.url has no address that can be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// It names no host.
    #[error("nats.url names no host: write nats://host:4222")]
    NoHost,
    /// It has a scheme other than `nats` and `tls`, such as a websocket's.
    #[error("nats.url begins with {0}://: write nats:// or tls://")]
    Scheme(String),
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the connection must be encrypted.
    pub(super) tls: bool,
    /// The name that its certificate must have.
    pub(super) name: String,
}

/// The configured servers, and those that their cluster announced.
#[derive(Debug)]
pub(super) struct Servers {
    configured: Vec<Server>,
    learned: Vec<Server>,
    next: usize,
}

impl Servers {
    /// Reads addresses separated by commas. Ignores users and passwords in them.
    pub(super) fn parse(url: &str) -> Result<Self, AddressError> {
        let addresses = url.split(',').map(str::trim).map(|address| {
            let parsed: ServerAddr = address.parse().map_err(AddressError::Unreadable)?;
            if !matches!(parsed.scheme(), "nats" | "tls") {
                return Err(AddressError::Scheme(parsed.scheme().to_owned()));
            }
            let host = parsed.host().to_owned();
            if host.is_empty() {
                return Err(AddressError::NoHost);
            }
            Ok(Server {
                name: host.clone(),
                host,
                port: parsed.port(),
                tls: parsed.tls_required(),
            })
        });
        Ok(Self {
            configured: addresses.collect::<Result<_, _>>()?,
            learned: Vec::new(),
            next: 0,
        })
    }

    /// Returns the server to try now.
    pub(super) fn next(&mut self) -> Server {
        let all = self.configured.len() + self.learned.len();
        let at = self.next % all;
        self.next = (at + 1) % all;
        let learned = at.checked_sub(self.configured.len());
        match learned {
            None => self.configured[at].clone(),
            Some(learned) => self.learned[learned].clone(),
        }
    }

    /// Remembers the other servers of the cluster, as this one announces them (`host:port`). A
    /// numeric address must prove the name of the server that announced it.
    pub(super) fn learn(&mut self, from: &Server, others: &[String]) {
        let others = others.iter().take(MAX_LEARNED).filter_map(|address| {
            let parsed: ServerAddr = address.parse().ok()?;
            let host = parsed.host().to_owned();
            let numeric = host.parse::<std::net::IpAddr>().is_ok();
            let name = if numeric {
                from.name.clone()
            } else {
                host.clone()
            };
            let port = parsed.port();
            let known = self
                .configured
                .iter()
                .any(|server| server.host == host && server.port == port);
            (!known && !host.is_empty()).then_some(Server {
                host,
                port,
                tls: from.tls,
                name,
            })
        });
        self.learned = others.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(servers: &mut Servers, n: usize) -> Vec<String> {
        (0..n)
            .map(|_| servers.next())
            .map(|server| format!("{}:{}", server.host, server.port))
            .collect()
    }

    #[test]
    fn all_addresses_are_tried_in_turn_with_those_that_the_cluster_names() {
        let mut servers = Servers::parse("nats://u:p@one:4222, tls://two , three:1").unwrap();
        assert_eq!(
            hosts(&mut servers, 4),
            ["one:4222", "two:4222", "three:1", "one:4222"]
        );
        let two = servers.next();
        assert!(two.tls);
        servers.learn(
            &two,
            &["one:4222".into(), "10.0.0.4:4222".into(), "?".into()],
        );
        assert_eq!(hosts(&mut servers, 2), ["three:1", "10.0.0.4:4222"]);
        assert_eq!(servers.learned[0].name, "two");
        assert!(servers.learned[0].tls);
    }

    #[test]
    fn what_cannot_be_connected_to_is_an_error_at_once() {
        for (url, says) in [
            ("ws://one", "write nats:// or tls://"),
            ("http://one", "cannot be read"),
            ("", "no"),
        ] {
            let error = Servers::parse(url).unwrap_err().to_string();
            let matched =
                error.contains(says) || says == "cannot be read" && error.contains("no address");
            assert!(matched, "{url}: {error}");
        }
    }
}
