//! A Baton server, asked with an API key.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use baton_outbound::client_builder_of_operator;
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::visible::visible_lines;

/// The server to ask, and the credential.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    /// The server's address
    #[arg(
        long,
        value_name = "URL",
        env = "BATON_BASE_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: url::Url,
    /// The API key; the variable keeps it out of process lists
    #[arg(
        long,
        value_name = "KEY",
        env = "BATON_API_KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub(crate) key_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust besides the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Print JSON, as the server answers it
    #[arg(long)]
    pub(crate) json: bool,
}

/// The time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A Baton server and a credential.
pub(crate) struct Server {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// The server's refusal of a request: the part of its problem that people read.
#[derive(Debug, Deserialize, thiserror::Error)]
#[error("{}: {}", visible_lines(.code), visible_lines(.detail))]
pub(crate) struct Refusal {
    /// The word for programs.
    pub(crate) code: String,
    /// The sentence for people.
    #[serde(default)]
    pub(crate) detail: String,
}

impl Server {
    pub(crate) fn new(args: &ApiArgs) -> anyhow::Result<Self> {
        let key = match (&args.key, &args.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?,
            (None, None) => bail!(
                "no API key is given: set BATON_API_KEY, or name a file with --key-file; `baton keys \
                 create` makes one"
            ),
        };
        let client = client_builder_of_operator(args.ca_file.as_deref(), None)?
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            base: args.url.as_str().trim_end_matches('/').to_owned(),
            key: key.trim().to_owned(),
        })
    }

    /// Reads a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.client.get(format!("{}{path}", self.base));
        self.answer(request).await
    }

    /// Sends a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        self.answer(request).await
    }

    /// Replaces a resource.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let request = self.client.put(format!("{}{path}", self.base)).json(body);
        self.answer(request).await
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.client.delete(format!("{}{path}", self.base));
        self.body(request).await.map(|_nothing| ())
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let body = self.body(request).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("{} answers something else than Baton does", self.base))
    }

    async fn body(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Bytes> {
        let sent = request.bearer_auth(&self.key).send().await;
        let unreachable = || {
            format!(
                "{} does not answer: name the server with --url or BATON_BASE_URL",
                self.base
            )
        };
        let answer = sent.with_context(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.context("the answer broke off")?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.into(),
            Err(_) => anyhow!("{} answers {status}", self.base),
        })
    }
}
