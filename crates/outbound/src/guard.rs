//! The guard: what may be connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::{is_metadata, is_public, reached};

/// The networks and ports that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Networks that may be connected to although they are not public. A metadata service is allowed
    /// only by a network that consists of its address. Default: none.
    pub allow_networks: Vec<IpNet>,
    /// Ports of public URLs. Default: 80 and 443.
    pub ports: Vec<u16>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            ports: vec![80, 443],
        }
    }
}

/// A connection that the guard does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither `http` nor `https`, or without a host.
    #[error("not an http or https URL with a host")]
    Scheme,
    /// A user name or a password before the host.
    #[error("the URL holds a user name or a password")]
    Credentials,
    /// A port that is not listed.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// An address that is not public and in no allowed network. The address is not in the message,
    /// because models and tenants read it.
    #[error("`{host}` has an address that is not public")]
    Address {
        /// The host as the URL has it.
        host: String,
    },
    /// A name without an address.
    #[error("`{0}` has no address")]
    NoAddress(String),
    /// Another origin than the one that this client is for.
    #[error("`{0}` is not the configured server")]
    Origin(String),
}

/// The addresses that a client may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Public ones and allowed networks.
    Public,
    /// All but metadata services that no allowed network consists of.
    Private,
}

/// The checks of outbound connections. Clones share the look-up of names.
#[derive(Clone)]
pub struct Guard {
    policy: Arc<Policy>,
    lookup: Arc<dyn Resolve>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Makes a guard that looks names up as the system does.
    pub fn new(policy: Policy) -> Self {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// Makes a guard that looks names up by `lookup`, and checks the addresses that it finds.
    pub fn with_lookup(policy: Policy, lookup: Arc<dyn Resolve>) -> Self {
        Self {
            policy: Arc::new(policy),
            lookup,
        }
    }

    /// Checks the parts of a public URL that are known before a look-up: scheme, port, and the address
    /// of a host that is one. The URL's parser has read every spelling of an address already.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let Some(host) = web_host(url) else {
            return Err(Refused::Scheme);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        // Both schemes have a default.
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.policy.ports.contains(&port) {
            return Err(Refused::Port(port));
        }
        match literal(host) {
            Some(address) if !self.permits(address, Reach::Public) => Err(Refused::Address {
                host: host.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns whether a client of this reach may connect to an address.
    pub(crate) fn permits(&self, address: IpAddr, reach: Reach) -> bool {
        let address = reached(address);
        let metadata = is_metadata(address);
        let mut networks = self.policy.allow_networks.iter();
        let allowed = networks.any(|network| {
            network.contains(&address)
                && (!metadata || network.prefix_len() == network.max_prefix_len())
        });
        allowed
            || match reach {
                Reach::Public => is_public(address),
                Reach::Private => !metadata,
            }
    }

    /// Returns the guard as a resolver of names for clients of this reach.
    pub(crate) fn resolver(&self, reach: Reach) -> CheckedLookup {
        CheckedLookup {
            guard: self.clone(),
            reach,
        }
    }
}

/// Returns the host of a web URL.
pub(crate) fn web_host(url: &Url) -> Option<&str> {
    matches!(url.scheme(), "http" | "https")
        .then(|| url.host_str())
        .flatten()
}

/// Returns the address that a host is, if it is one.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').unwrap_or(host);
    host.strip_suffix(']').unwrap_or(host).parse().ok()
}

/// Looks names up, and refuses a name if any of its addresses is refused.
pub(crate) struct CheckedLookup {
    guard: Guard,
    reach: Reach,
}

impl Resolve for CheckedLookup {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.guard.lookup.resolve(name);
        let (guard, reach) = (self.guard.clone(), self.reach);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = found.await?.collect();
            if addresses.is_empty() {
                return Err(Refused::NoAddress(host).into());
            }
            // All of them: a name that mixes the two is an attack or a mistake.
            if addresses
                .iter()
                .all(|address| guard.permits(address.ip(), reach))
            {
                Ok(Box::new(addresses.into_iter()) as Addrs)
            } else {
                Err(Refused::Address { host }.into())
            }
        })
    }
}

/// Looks names up as the system does.
struct SystemLookup;

impl Resolve for SystemLookup {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client replaces port 0 by the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}
