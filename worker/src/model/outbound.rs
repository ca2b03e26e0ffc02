//! What every HTTP client of the worker has in common.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};

/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// A client that trusts the public certificate authorities compiled in, follows no redirect (it
/// would carry the request to where the operator did not send it), repeats nothing by itself and
/// ignores proxy variables.
pub(crate) fn client_builder() -> Result<reqwest::ClientBuilder, rustls::Error> {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Compression makes a server gather what it should stream. Some compress unasked: that is decoded.
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(usize::MAX)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy())
}
