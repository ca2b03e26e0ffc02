//! The certificate that a proxy uses until it has one that clients trust.

use anyhow::Context as _;

/// A certificate and its private key, both in PEM.
pub(super) struct Certificate {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Certificate {
    /// Makes a certificate for `host`, signed with its own key.
    pub(super) fn self_signed(host: &str) -> anyhow::Result<Self> {
        let key = rcgen::KeyPair::generate().context("no key for a certificate")?;
        let certificate = rcgen::CertificateParams::new([host.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .with_context(|| {
                format!("{host:?} is no name for a certificate: give the host's name with --host")
            })?;
        Ok(Self {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
