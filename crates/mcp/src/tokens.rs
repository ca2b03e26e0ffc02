//! Access tokens for client credentials (OAuth 2.0: RFC 6749, 4.4).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use baton_outbound::{Client, Guard, Refused, SendError};
use http::{Method, header};
use reqwest::RequestBuilder;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use url::Url;
use url::form_urlencoded::{self, byte_serialize};

use crate::error::McpError;

/// The largest answer of a token server, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// The longest token, in bytes: a head of a request holds it.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest time before its end at which a token is replaced.
const EARLY: Duration = Duration::from_secs(30);
/// The life of a token without one in its answer.
const LIFE: Duration = Duration::from_mins(5);
/// The longest life that is believed.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// The longest word of a token server in an error, in characters.
const MAX_WORD: usize = 60;

/// The way in which a client gives its credential to a token server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// In the `Authorization` header.
    Basic,
    /// In the form.
    Form,
}

/// A client of a token server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The token server's address.
    pub token_url: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// The way in which they are sent.
    pub auth: ClientAuth,
    /// The scopes to ask for, separated by spaces.
    pub scope: Option<String>,
    /// The server that the token is for (RFC 8707).
    pub resource: Option<String>,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("host", &self.token_url.host_str())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A token, and the time from which it is not used.
#[derive(Clone)]
struct Token {
    text: String,
    until: Instant,
}

/// The tokens of a client. All connections to its server share them.
pub(crate) struct Tokens {
    credentials: ClientCredentials,
    /// The time limit of a request for a token.
    limit: Duration,
    /// The newest, and the one before it, which requests on the way still carry.
    known: Mutex<[Option<Token>; 2]>,
    /// Held while a token is asked for, so that all who need it wait for one request.
    asking: tokio::sync::Mutex<()>,
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Issued {
    access_token: String,
    token_type: String,
    expires_in: Option<f64>,
}

/// The refusal of a token server.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Tokens {
    pub(crate) fn new(credentials: ClientCredentials, limit: Duration) -> Self {
        Self {
            credentials,
            limit,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the HTTP client for the token server.
    pub(crate) fn server(&self, guard: &Guard) -> Result<Client, McpError> {
        Client::to_origin(guard, &self.credentials.token_url, self.limit)
            .map_err(|error| McpError::Setup(error.to_string()))
    }

    /// Returns the secrets that texts must not have.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = String> + use<> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = known.clone().into_iter().flatten().map(|it| it.text);
        let secret = &self.credentials.client_secret;
        let encoded: String = byte_serialize(secret.as_bytes()).collect();
        tokens.chain([secret.clone(), encoded])
    }

    fn newest(&self, refused: Option<&str>) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.first()?.as_ref()?;
        let holds = Instant::now() < newest.until && refused != Some(&newest.text);
        holds.then(|| newest.text.clone())
    }

    /// Returns a token that holds, and is another one than `refused`.
    pub(crate) async fn token(
        &self,
        server: &Client,
        refused: Option<&str>,
    ) -> Result<String, McpError> {
        if let Some(token) = self.newest(refused) {
            return Ok(token);
        }
        let _asking = self.asking.lock().await;
        if let Some(token) = self.newest(refused) {
            return Ok(token);
        }
        let asked = timeout(self.limit, self.ask(server)).await;
        let token = asked.unwrap_or_else(|_| {
            let limit = self.limit;
            Err(McpError::NoToken(format!(
                "it did not answer within {limit:?}"
            )))
        })?;
        let text = token.text.clone();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let [newest, before] = &mut *known;
        *before = newest.replace(token);
        Ok(text)
    }

    /// Makes the request for a token.
    fn request(&self, server: &Client) -> Result<RequestBuilder, Refused> {
        let ClientCredentials {
            token_url,
            client_id,
            client_secret,
            auth,
            scope,
            resource,
        } = &self.credentials;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", scope), ("resource", resource)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        let mut request = server
            .request(Method::POST, token_url.clone())?
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        match auth {
            ClientAuth::Basic => {
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                request = request.basic_auth(encoded(client_id), Some(encoded(client_secret)));
            }
            ClientAuth::Form => {
                form.append_pair("client_id", client_id);
                form.append_pair("client_secret", client_secret);
            }
        }
        Ok(request.body(form.finish()))
    }

    async fn ask(&self, server: &Client) -> Result<Token, McpError> {
        let no_token = |reason: &str| McpError::NoToken(reason.to_owned());
        let asked_at = Instant::now();
        let answer = server.send(self.request(server)?).await;
        let mut answer = answer.map_err(|error| match error {
            SendError::Refused(refused) => McpError::Refused(refused),
            SendError::Http(error) if error.is_connect() => no_token("it cannot be reached"),
            SendError::Http(_) => no_token("it broke off"),
        })?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|_| no_token("it broke off"))? {
            if body.len() + part.len() > MAX_ANSWER {
                return Err(no_token("it sent too much"));
            }
            body.extend_from_slice(&part);
        }
        if !status.is_success() {
            let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
            let word = refusal.map(|refusal| self.word(&refusal.error));
            return Err(McpError::NoToken(match word {
                Some(word) => format!("it answers {status} and `{word}`"),
                None => format!("it answers {status}"),
            }));
        }
        let issued: Issued =
            serde_json::from_slice(&body).map_err(|_| no_token("its answer holds no token"))?;
        let token = issued.access_token;
        let is_sent = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sent || token.len() > MAX_TOKEN || !issued.token_type.eq_ignore_ascii_case("bearer")
        {
            return Err(no_token("its answer holds no bearer token"));
        }
        let life = issued.expires_in.map_or(LIFE, |seconds| {
            Duration::try_from_secs_f64(seconds).map_or(Duration::ZERO, |it| it.min(LONGEST_LIFE))
        });
        Ok(Token {
            text: token,
            until: asked_at + life.saturating_sub(EARLY.min(life / 10)),
        })
    }

    /// Returns an error's word without what does not belong into one.
    fn word(&self, given: &str) -> String {
        let is_secret = self.secrets().any(|secret| given.contains(&secret));
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if is_secret {
            return "[secret]".to_owned();
        }
        given.chars().filter(plain).take(MAX_WORD).collect()
    }
}
