//! Networks of outbound connections.

use super::super::Config;
use super::demand::Checks;

pub(super) fn outbound(checks: &mut Checks<'_>, config: &Config) {
    let outbound = &config.outbound;
    for network in &outbound.allow_networks {
        checks.demand(
            network.prefix_len() == network.max_prefix_len(),
            &[("outbound", "allow_networks")],
            format!("outbound.allow_networks has `{network}`, which is more than one address"),
            "list single addresses, such as \"169.254.169.254/32\"; tools reach private networks without it",
        );
    }
}
