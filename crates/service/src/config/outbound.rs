//! Connections of tools.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[outbound]`: the addresses that tools may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Addresses that a tool's name may resolve to although they are link-local or a cloud's metadata
    /// service; each by itself, as `169.254.169.254/32`. Default: none.
    pub allow_networks: Vec<IpNet>,
}
