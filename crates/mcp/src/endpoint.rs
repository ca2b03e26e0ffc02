//! A server as the operator configured it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use url::Url;

use crate::program::Program;
use crate::tokens::{ClientCredentials, Tokens};

/// The largest message of a server, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The most requests at a time that wait for the head of their response; further ones wait for a place.
const MAX_CALLS: usize = 256;
/// The longest part of an answer that is not MCP that is read for an error, in bytes.
const MAX_REFUSAL: usize = 2 * 1024;
/// The longest text of a server in an error, in characters.
const MAX_SAID: usize = 500;
/// The length of the shortest secret: a shorter text might occur in any answer.
const SHORTEST_SECRET: usize = 8;

/// The way to a server, its credential, and the limits of its use.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) way: Way,
    /// The time limit of opening a connection, and of listing the tools.
    pub(crate) open_timeout: Duration,
    /// The time for which a list of tools holds if the server gives none.
    pub(crate) list_for: Duration,
}

impl Endpoint {
    /// Makes an endpoint without a credential.
    pub fn new(url: Url, open_timeout: Duration, list_for: Duration) -> Self {
        Self {
            way: Way::Http(Address {
                url,
                bearer: None,
                tokens: None,
                headers: HashMap::new(),
            }),
            open_timeout,
            list_for,
        }
    }

    /// Makes the endpoint of a local program.
    pub const fn of_program(program: Program, open_timeout: Duration, list_for: Duration) -> Self {
        Self {
            way: Way::Program(program),
            open_timeout,
            list_for,
        }
    }

    /// Sets the bearer token of each request over HTTP.
    #[must_use]
    pub fn with_bearer(mut self, token: String) -> Self {
        if let Way::Http(address) = &mut self.way {
            address.bearer = Some(token);
        }
        self
    }

    /// Gets the bearer token of each request over HTTP from a token server.
    #[must_use]
    pub fn with_client_credentials(mut self, credentials: ClientCredentials) -> Self {
        let limit = self.open_timeout;
        if let Way::Http(address) = &mut self.way {
            address.tokens = Some(Arc::new(Tokens::new(credentials, limit)));
        }
        self
    }

    /// Adds a header to each request over HTTP. Its value counts as a secret.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        if let Way::Http(address) = &mut self.way {
            address.headers.insert(name, value);
        }
        self
    }

    /// Returns a text without the secrets that requests carry, because some servers repeat them.
    pub(crate) fn clear(&self, mut text: String) -> String {
        for secret in self.secrets() {
            if text.contains(&secret) {
                text = text.replace(&secret, "[secret]");
            }
        }
        text
    }

    /// Makes a server's text short, printable, and free of secrets.
    pub(crate) fn said(&self, text: String) -> String {
        let text = self.clear(text);
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(MAX_SAID).collect()
    }

    /// Returns the secrets, the longest first.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = match &self.way {
            Way::Http(address) => address.secrets(),
            Way::Program(program) => program.environment.values().cloned().collect(),
        };
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        secrets
    }
}

/// The way to a server.
#[derive(Clone)]
pub(crate) enum Way {
    /// Streamable HTTP.
    Http(Address),
    /// A local program.
    Program(Program),
}

/// The address of a server, and the credential of its requests.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) url: Url,
    bearer: Option<String>,
    pub(crate) tokens: Option<Arc<Tokens>>,
    headers: HashMap<HeaderName, HeaderValue>,
}

impl Address {
    pub(crate) fn transport(&self) -> StreamableHttpClientTransportConfig {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .custom_headers(self.headers.clone())
            .max_concurrent_requests(MAX_CALLS)
            .max_sse_event_size(MAX_MESSAGE)
            .max_json_response_size(MAX_MESSAGE)
            .max_error_response_size(MAX_REFUSAL);
        match &self.bearer {
            Some(token) => config.auth_header(token),
            None => config,
        }
    }

    /// Returns the tokens, the client's secret, the values of headers and of the URL's query, and the
    /// credential after a scheme such as `Basic`.
    fn secrets(&self) -> Vec<String> {
        let headers = self.headers.values().filter_map(|it| it.to_str().ok());
        let headers = headers.flat_map(|value| {
            let credential = value.split_once(' ').map(|(_, rest)| rest.trim());
            [Some(value.trim()), credential]
        });
        let raw = self.url.query().unwrap_or_default().split('&');
        let raw = raw.filter_map(|pair| Some(pair.split_once('=')?.1));
        let decoded = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let written = headers.flatten().chain(raw).chain(self.bearer.as_deref());
        let issued = self.tokens.iter().flat_map(|tokens| tokens.secrets());
        written
            .map(str::to_owned)
            .chain(decoded)
            .chain(issued)
            .collect()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Endpoint");
        match &self.way {
            Way::Http(address) => shown.field("host", &address.url.host_str()),
            Way::Program(program) => shown.field("program", program),
        };
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cleared_of_every_credential() {
        let url = Url::parse("https://mcp.example/mcp?api_key=query%2Fsecret").unwrap();
        let endpoint = Endpoint::new(url, Duration::from_secs(1), Duration::from_secs(1))
            .with_bearer("bearer-secret".to_owned())
            .with_header(
                HeaderName::from_static("x-key"),
                HeaderValue::from_static("Basic header-secret"),
            );
        let cleared = endpoint.clear(
            "a bearer-secret b header-secret c query%2Fsecret d query/secret e Basic".to_owned(),
        );
        assert_eq!(
            cleared,
            "a [secret] b [secret] c [secret] d [secret] e Basic"
        );
        assert!(!format!("{endpoint:?}").contains("secret"), "{endpoint:?}");
    }
}
