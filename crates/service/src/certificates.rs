//! Measures the ends of the certificates that the configuration names.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use x509_parser::error::{PEMError, X509Error};
use x509_parser::pem::Pem;

use crate::config::Config;
use crate::metrics;
use crate::reload::LiveConfig;

/// The interval of looks at the files. Certificates are renewed days before they end.
const EVERY: Duration = Duration::from_secs(30);

/// The label that PEM gives to a certificate.
const CERTIFICATE: &str = "CERTIFICATE";

/// The kind of a file of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A certificate and those that lead to its authority: useless once one of them has ended.
    Chain,
    /// Authorities to trust: useless once all of them have ended.
    Authorities,
}

/// A reason for which the end of a certificate is not known.
#[derive(Debug, Error)]
enum CertificateError {
    #[error("the file cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the file is not PEM")]
    Pem(#[source] PEMError),
    #[error("a certificate in the file cannot be parsed")]
    Parse(#[source] X509Error),
    #[error("the file has no certificate")]
    Empty,
}

/// Sets the gauge of each certificate of the configuration, again and again.
///
/// An unreadable file counts as ended in 1970, so that the alert for certificates reports it too.
pub async fn measure(live: LiveConfig) -> Infallible {
    let mut looks = tokio::time::interval(EVERY);
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        looks.tick().await;
        let files = files(&live.current());
        for setting in seen.keys().filter(|setting| !files.contains_key(*setting)) {
            // The settings of this process no longer name it, so it can never end.
            metrics::certificate_ends(setting, None);
        }
        seen.retain(|setting, _| files.contains_key(setting));
        for (setting, (path, kind)) in files {
            let end = end(&path, kind).await;
            let readable = end.is_ok();
            match end {
                Ok(end) => metrics::certificate_ends(&setting, Some(end)),
                Err(error) => {
                    metrics::certificate_ends(&setting, Some(0));
                    if seen.get(&setting) != Some(&false) {
                        tracing::error!(
                            setting, path = %path.display(),
                            error = &error as &dyn std::error::Error,
                            "the end of a certificate is not known"
                        );
                    }
                }
            }
            seen.insert(setting, readable);
        }
    }
}

/// Returns the files of certificates in the configuration by their settings.
fn files(config: &Config) -> BTreeMap<String, (PathBuf, Kind)> {
    let nats = &config.nats;
    let own = [
        ("nats.tls_ca", &nats.tls_ca, Kind::Authorities),
        ("nats.tls_cert", &nats.tls_cert, Kind::Chain),
    ];
    let own = own
        .into_iter()
        .filter_map(|(setting, path, kind)| Some((setting.to_owned(), (path.clone()?, kind))));
    let upstreams = config.llm.upstreams.iter().filter_map(|upstream| {
        let setting = format!("llm.upstreams.{}.ca_file", upstream.name);
        Some((setting, (upstream.ca_file.clone()?, Kind::Authorities)))
    });
    own.chain(upstreams).collect()
}

/// Returns the end of a file's certificates, in seconds since 1970.
async fn end(path: &Path, kind: Kind) -> Result<i64, CertificateError> {
    let bytes = tokio::fs::read(path)
        .await
        .map_err(CertificateError::Read)?;
    let mut ends = Vec::new();
    for block in Pem::iter_from_buffer(&bytes) {
        let block = block.map_err(CertificateError::Pem)?;
        if block.label != CERTIFICATE {
            continue;
        }
        let certificate = block.parse_x509().map_err(|error| match error {
            x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => {
                CertificateError::Parse(error)
            }
            x509_parser::nom::Err::Incomplete(_) => CertificateError::Parse(X509Error::Generic),
        })?;
        ends.push(certificate.validity().not_after.timestamp());
    }
    let end = match kind {
        Kind::Chain => ends.into_iter().min(),
        Kind::Authorities => ends.into_iter().max(),
    };
    end.ok_or(CertificateError::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    /// Returns a certificate in PEM that ends so many seconds after 1970.
    fn certificate(end: i64) -> String {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let day = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        parameters.not_before = day(0);
        parameters.not_after = day(u64::try_from(end).unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().pem()
    }

    async fn end_of(text: &str, kind: Kind) -> Result<i64, CertificateError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        end(file.path(), kind).await
    }

    #[tokio::test]
    async fn a_chain_ends_with_its_first_certificate_and_authorities_with_their_last() {
        let text = certificate(HOUR) + &certificate(2 * HOUR);
        assert_eq!(end_of(&text, Kind::Chain).await.unwrap(), HOUR);
        assert_eq!(end_of(&text, Kind::Authorities).await.unwrap(), 2 * HOUR);
    }

    #[tokio::test]
    async fn a_key_in_the_file_is_passed_over() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let text = key.clone() + &certificate(HOUR);
        assert_eq!(end_of(&text, Kind::Chain).await.unwrap(), HOUR);
        let error = end_of(&key, Kind::Chain).await.unwrap_err();
        assert!(matches!(error, CertificateError::Empty), "{error:?}");
    }

    #[tokio::test]
    async fn each_unreadable_file_has_an_error_of_its_kind() {
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = end_of(garbled, Kind::Chain).await.unwrap_err();
        assert!(matches!(error, CertificateError::Parse(_)), "{error:?}");
        let cut = "-----BEGIN CERTIFICATE-----\n!\n";
        let error = end_of(cut, Kind::Chain).await.unwrap_err();
        assert!(matches!(error, CertificateError::Pem(_)), "{error:?}");
        let error = end(Path::new("/nowhere/at/all"), Kind::Chain).await;
        assert!(matches!(error, Err(CertificateError::Read(_))), "{error:?}");
    }

    #[test]
    fn every_file_of_certificates_in_the_configuration_is_measured() {
        let text = r#"
            [nats]
            tls_ca = "ca.pem"
            tls_cert = "own.pem"
            tls_key = "own.key"
            [[llm.upstreams]]
            name = "private"
            base_url = "https://models.example/v1"
            ca_file = "models.pem"
        "#;
        let config: Config = toml::from_str(text).unwrap();
        let found: Vec<_> = files(&config).into_iter().collect();
        let wanted = [
            (
                "llm.upstreams.private.ca_file",
                "models.pem",
                Kind::Authorities,
            ),
            ("nats.tls_ca", "ca.pem", Kind::Authorities),
            ("nats.tls_cert", "own.pem", Kind::Chain),
        ];
        let wanted = wanted.map(|(setting, path, kind)| (setting.to_owned(), (path.into(), kind)));
        assert_eq!(found, wanted);
    }
}
