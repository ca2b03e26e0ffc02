//! The HTTP client that connects through a guard.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::redirect::Policy as Redirects;
use reqwest::{Proxy, Request, RequestBuilder, Response, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::guard::{Guard, Reach, Refused, web_host};

/// The time limit of an unused connection.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// A client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
    /// The file of certificate authorities cannot be used.
    #[error("{path} holds no certificates in PEM form that can be trusted: {reason}")]
    Authorities {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// A URL that no client can be for.
    #[error("the URL cannot be used: {0}")]
    Url(#[from] Refused),
}

/// A request brought no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The guard did not allow it; nothing was sent.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was sent, or could not be.
    #[error(transparent)]
    Http(reqwest::Error),
}

impl SendError {
    /// Returns whether the request may have reached a server.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Http(error) => !error.is_connect() && !error.is_builder(),
        }
    }
}

impl From<reqwest::Error> for SendError {
    /// Finds the guard's refusal among an error's causes.
    fn from(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return Self::Refused(refused.clone());
            }
            cause = error.source();
        }
        Self::Http(error.without_url())
    }
}

/// An HTTP client that connects through a guard. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    guard: Guard,
    /// The origin of the operator's URL; none if any public URL will do.
    origin: Option<Origin>,
}

/// Scheme, host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn of(url: &Url) -> Result<Self, Refused> {
        Ok(Self {
            host: web_host(url).ok_or(Refused::Scheme)?.to_owned(),
            scheme: url.scheme().to_owned(),
            port: url.port_or_known_default(),
        })
    }
}

impl Client {
    /// Makes a client for URLs that a tenant or a model chose.
    pub fn to_public(guard: &Guard, connect_timeout: Duration) -> Result<Self, SetupError> {
        Ok(Self {
            http: connecting(guard, Reach::Public, connect_timeout)?,
            guard: guard.clone(),
            origin: None,
        })
    }

    /// Makes a client for the origin of a URL that the operator wrote. An address in the URL is what
    /// the operator meant, so that it is not checked; the addresses of a name are another's to choose.
    pub fn to_origin(
        guard: &Guard,
        url: &Url,
        connect_timeout: Duration,
    ) -> Result<Self, SetupError> {
        let origin = Origin::of(url)?;
        Ok(Self {
            http: connecting(guard, Reach::Private, connect_timeout)?,
            guard: guard.clone(),
            origin: Some(origin),
        })
    }

    /// Returns the inner HTTP client, for a library that sends requests itself. Names are checked when it
    /// connects, and redirects are not followed; the caller must give it no other URL than the
    /// operator's.
    pub fn into_http(self) -> reqwest::Client {
        self.http
    }

    /// Begins a request if the guard allows its URL.
    pub fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Refused> {
        // The builder turns a user name in a URL into a header, so that it is looked for now.
        self.check(&url)?;
        Ok(self.http.request(method, url))
    }

    /// Sends a request if the guard allows it. A redirect is a response like any other.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, SendError> {
        self.execute(request.build()?).await
    }

    /// Sends a request if the guard allows it. A redirect is a response like any other.
    pub async fn execute(&self, request: Request) -> Result<Response, SendError> {
        self.check(request.url())?;
        Ok(self.http.execute(request).await?)
    }

    fn check(&self, url: &Url) -> Result<(), Refused> {
        match &self.origin {
            None => self.guard.check_url(url),
            Some(origin) if Origin::of(url)? == *origin => Ok(()),
            Some(_) => Err(Refused::Origin(
                web_host(url).unwrap_or_default().to_owned(),
            )),
        }
    }
}

fn connecting(
    guard: &Guard,
    reach: Reach,
    connect_timeout: Duration,
) -> Result<reqwest::Client, SetupError> {
    let resolver = Arc::new(guard.resolver(reach));
    Ok(client_builder()?
        .dns_resolver(resolver)
        .connect_timeout(connect_timeout)
        .build()?)
}

/// Returns the builder that every HTTP client begins with: it trusts the public certificate
/// authorities compiled in, follows no redirect (it would carry the request to where nobody sent it),
/// repeats nothing by itself and ignores proxy variables.
pub fn client_builder() -> Result<reqwest::ClientBuilder, rustls::Error> {
    trusting(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
}

/// As [`client_builder`], for a server that the operator wrote: trusts also the certificate authorities
/// of a file, and connects through a proxy.
pub fn client_builder_of_operator(
    authorities: Option<&Path>,
    proxy: Option<&str>,
) -> Result<reqwest::ClientBuilder, SetupError> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(path) = authorities {
        add_authorities(&mut roots, path).map_err(|reason| SetupError::Authorities {
            path: path.display().to_string(),
            reason,
        })?;
    }
    let builder = trusting(roots)?;
    Ok(match proxy {
        Some(proxy) => builder.proxy(Proxy::all(proxy)?),
        None => builder,
    })
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let before = roots.len();
    for certificate in read {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before {
        return Err("it is empty".to_owned());
    }
    Ok(())
}

fn trusting(roots: RootCertStore) -> Result<reqwest::ClientBuilder, rustls::Error> {
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
        .redirect(Redirects::none())
        .retry(reqwest::retry::never())
        .no_proxy())
}
