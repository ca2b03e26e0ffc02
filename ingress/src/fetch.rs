//! Asking servers that the operator named: bounded in time and size, and never led elsewhere.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// There is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the TLS settings do not work")]
    Tls(#[from] rustls::Error),
    #[error("the HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// A document cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the server cannot be asked")]
    Ask(#[from] reqwest::Error),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the answer broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A client that trusts the public certificate roots, and follows nobody elsewhere.
pub(crate) fn client(connect_timeout: Duration) -> Result<reqwest::Client, ClientError> {
    let roots = webpki_roots::TLS_SERVER_ROOTS
        .iter()
        .cloned()
        .collect::<RootCertStore>();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .redirect(Policy::none())
        .no_proxy()
        .build()?)
}

/// The document at a URL, of at most so many bytes.
pub(crate) async fn get(
    client: &reqwest::Client,
    url: &str,
    longest: usize,
) -> Result<Vec<u8>, FetchError> {
    let response = client.get(url).timeout(TIMEOUT).send().await?;
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status()));
    }
    let body = reqwest::Body::from(response);
    let whole = Limited::new(body, longest)
        .collect()
        .await
        .map_err(FetchError::Body)?;
    Ok(whole.to_bytes().to_vec())
}
