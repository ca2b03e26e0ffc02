//! `baton nats-issuer`: makes two key pairs. With one, ingresses sign who may connect to the
//! broker; the other encrypts the broker's questions to them.

use baton_nats::{CurveKey, Issuer};

use crate::config_command::print;

pub(crate) fn run() -> anyhow::Result<()> {
    let (issuer, curve) = (Issuer::generate(), CurveKey::generate());
    print(&format!(
        "# With Compose, these four lines replace those of .env. Otherwise:\n\
         # Public, into the environment of every nats-server:\n\
         BATON_NATS_CALLOUT_ISSUER={}\n\
         # Public too, if questions are to be encrypted (`xkey` in accounts.conf):\n\
         BATON_NATS_CALLOUT_XKEY={}\n\
         # Secret, into the environment of every ingress, with BATON_NATS__SYSTEM_USER and\n\
         # BATON_NATS__SYSTEM_PASSWORD:\n\
         BATON_NATS__CALLOUT_SEED={}\n\
         # Secret, into the same, if and only if accounts.conf has `xkey`:\n\
         BATON_NATS__CALLOUT_XKEY_SEED={}",
        issuer.public_key(),
        curve.public_key(),
        issuer.seed()?,
        curve.seed()?,
    ))
}
