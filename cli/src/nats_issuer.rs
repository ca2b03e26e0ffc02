//! `baton nats-issuer`: the key pair by which ingresses say who may connect to the broker.

use baton_nats::Issuer;

use crate::config_command::print;

pub(crate) fn run() -> anyhow::Result<()> {
    let issuer = Issuer::generate();
    print(&format!(
        "# Public, into the environment of every nats-server:\n\
         BATON_NATS_CALLOUT_ISSUER={}\n\
         # Secret, into the environment of every ingress, with BATON_NATS__SYSTEM_USER and\n\
         # BATON_NATS__SYSTEM_PASSWORD:\n\
         BATON_NATS__CALLOUT_SEED={}",
        issuer.public_key(),
        issuer.seed()?,
    ))
}
