//! The address of the upstream, and the limits on its answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use baton_service::Secret;
use baton_service::config::{
    AnswerLimitField, ConnectionUrl, LlmConfig, UpstreamConfig, UpstreamFeature,
};

use super::RetryPolicy;

/// The longest time to wait for each part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection. Default: 5 s.
    pub connect: Duration,
    /// The first byte of an answer's body, from sending the request. Default: 60 s.
    pub first_byte: Duration,
    /// The next byte. Default: 60 s.
    pub idle: Duration,
    /// The whole answer. Default: 10 min.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_mins(1),
            idle: Duration::from_mins(1),
            total: Duration::from_mins(10),
        }
    }
}

/// Where the upstream is, and how much patience it deserves.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Its URL, including `/v1`.
    pub base_url: String,
    /// Its key.
    pub api_key: Option<Secret<String>>,
    /// The time limits.
    pub timeouts: Timeouts,
    /// The rules for retries.
    pub retry: RetryPolicy,
    /// The number of times that a turn that broke off in the middle is repeated. Default: 2.
    pub turn_retries: u32,
    /// The longest line of a stream, in bytes. Default: 16 MiB.
    pub max_line: usize,
    /// The longest answer, in bytes of text and arguments. Default: 8 MiB.
    pub max_answer: usize,
    /// The field that limits the tokens of an answer. Default: `max_tokens`.
    pub answer_limit_field: &'static str,
    /// Parts of the chat API that the upstream lacks. Default: none.
    pub unsupported: Vec<UpstreamFeature>,
    /// Headers of each request. Default: none.
    pub headers: BTreeMap<String, Secret<String>>,
    /// The most requests at once. Default: no limit.
    pub max_concurrent: Option<u32>,
    /// A file of certificate authorities that are trusted besides the public ones. Default: none.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy. Default: none.
    pub proxy: Option<ConnectionUrl>,
}

impl ModelConfig {
    /// Returns the configuration of an upstream without a key, with defaults for the rest.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: None,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            turn_retries: 2,
            max_line: 16 << 20,
            max_answer: 8 << 20,
            answer_limit_field: AnswerLimitField::default().as_str(),
            unsupported: Vec::new(),
            headers: BTreeMap::new(),
            max_concurrent: None,
            ca_file: None,
            proxy: None,
        }
    }

    /// The operator's configuration of an upstream.
    pub fn of(config: &LlmConfig, upstream: UpstreamConfig) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            base_url: upstream.base_url,
            api_key: upstream.api_key,
            headers: upstream.headers,
            timeouts: Timeouts {
                connect: upstream.connect_timeout.unwrap_or(config.connect_timeout),
                first_byte: upstream
                    .first_byte_timeout
                    .unwrap_or(config.first_byte_timeout),
                idle: upstream.idle_timeout.unwrap_or(config.idle_timeout),
                total: upstream.total_timeout.unwrap_or(config.total_timeout),
            },
            retry: RetryPolicy {
                max_retries: config.max_retries,
                ..RetryPolicy::default()
            },
            turn_retries: config.turn_retries,
            max_line: bytes(config.max_line_bytes),
            max_answer: bytes(config.max_answer_bytes),
            answer_limit_field: upstream.answer_limit_field.as_str(),
            unsupported: upstream.unsupported,
            max_concurrent: upstream.max_concurrent,
            ca_file: upstream.ca_file,
            proxy: upstream.proxy,
        }
    }
}

/// The configuration names no usable upstream.
#[derive(Debug, thiserror::Error)]
pub enum ModelSetupError {
    /// No URL.
    #[error(
        "no model server is configured: set LLM_BASE_URL, for instance https://host/v1, or [[llm.upstreams]]"
    )]
    NoBaseUrl,
    /// Not a URL of a web server.
    #[error("the URL of a model server is not an http or https URL: {given}")]
    InvalidUrl {
        /// The configured text.
        given: String,
    },
    /// The key cannot stand in a header.
    #[error(
        "the key or a header of a model server holds characters that cannot be sent in a header"
    )]
    InvalidKey,
    /// TLS or the proxy could not be set up.
    #[error(transparent)]
    Connection(#[from] baton_outbound::SetupError),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
}
