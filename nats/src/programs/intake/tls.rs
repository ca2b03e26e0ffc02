//! Encryption of the intake's connection, with the certificates of the process's main connection.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bus::Tls;

/// Encrypts a connection to the server with this name. Reads the files anew each time, so that the
/// next connection uses a renewed certificate.
pub(super) async fn encrypt(
    stream: TcpStream,
    name: &str,
    tls: &Tls,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let tls = tls.clone();
    let config = tokio::task::spawn_blocking(move || config(&tls)).await??;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn config(tls: &Tls) -> std::io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = &tls.ca {
        for certificate in certificates(ca)? {
            roots
                .add(certificate)
                .map_err(|error| unreadable(ca, error))?;
        }
    } else {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_root_certificates(roots);
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let read = std::fs::read(key).map_err(|error| unreadable(key, error))?;
            let secret =
                PrivateKeyDer::from_pem_slice(&read).map_err(|error| unreadable(key, error))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| unreadable(certificate, error))
        }
    }
}

fn certificates(path: &Path) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let read = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    CertificateDer::pem_slice_iter(&read)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        format!("{}: {error}", path.display()),
    )
}
