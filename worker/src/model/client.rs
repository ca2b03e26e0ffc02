//! Sends a turn's request to one upstream, and waits for the first token.

use std::sync::Arc;
use std::time::Duration;

use baton_openai::{ChatAccumulator, ErrorObject, ModelList};
use baton_outbound::client_builder_of_operator;
use baton_protocol::RunSpec;
use baton_service::config::{ConnectionUrl, UpstreamFeature};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::{Method, Request, Response, Url};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::answer_decoder::AnswerDecoder;
use super::config::{ModelConfig, ModelSetupError, Timeouts};
use super::exchange::Exchange;
use super::plain_answer::{error_of, read_plain};
use super::quote::Quote;
use super::render_request::{Turn, render_request};
use super::retry_after::retry_after;
use super::turn_stream::{Deadlines, TurnStream};
use super::{ModelError, Wait};

/// The request that a turn belongs to, for the upstream's own logs.
#[derive(Debug, Clone, Default)]
pub struct TurnContext {
    /// Sent as `X-Request-Id`.
    pub request_id: Option<String>,
    /// Sent as `traceparent`.
    pub traceparent: Option<String>,
    /// Whether only tries that cost nothing are repeated: the reservation of the turn covers one
    /// try.
    pub only_free_retries: bool,
}

/// The parts of a turn's request, for any upstream.
#[derive(Debug, Clone, Copy)]
pub struct TurnParts<'a> {
    /// The run's request.
    pub spec: &'a RunSpec,
    /// The messages: an array of OpenAI objects.
    pub messages: &'a RawValue,
    /// The tools: an array of OpenAI objects.
    pub tools: Option<&'a RawValue>,
    /// Whether it is the run's first turn.
    pub first_turn: bool,
    /// The most tokens of the answer, or fewer if the client wants so.
    pub answer_limit: Option<u64>,
}

/// An upstream. Clones share connections.
#[derive(Debug, Clone)]
pub struct ModelClient {
    http: Arc<dyn Exchange>,
    chat: Url,
    models: Url,
    headers: HeaderMap,
    quote: Arc<Quote>,
    timeouts: Timeouts,
    max_line: usize,
    max_answer: usize,
    answer_limit_field: &'static str,
    unsupported: Arc<[UpstreamFeature]>,
    draining: TaskTracker,
}

impl ModelClient {
    /// A client for an upstream; it connects when it is first used.
    pub fn with_config(config: ModelConfig) -> Result<Self, ModelSetupError> {
        let mut builder = client_builder_of_operator(
            config.ca_file.as_deref(),
            config.proxy.as_ref().map(ConnectionUrl::expose),
        )?
        .connect_timeout(config.timeouts.connect);
        if Url::parse(&config.base_url).is_ok_and(|url| url.scheme() == "http") {
            builder = builder.http1_only();
        }
        let http = builder.build()?;
        Self::over(Arc::new(http), config)
    }

    /// A client that sends its requests this way.
    pub fn over(http: Arc<dyn Exchange>, config: ModelConfig) -> Result<Self, ModelSetupError> {
        let base = config.base_url.trim_end_matches('/');
        let url = |path| {
            Url::parse(&format!("{base}/{path}"))
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| ModelSetupError::InvalidUrl {
                    given: base.to_owned(),
                })
        };
        let chat = url("chat/completions")?;
        let models = url("models")?;
        let bearer = config.api_key.as_ref();
        let bearer = bearer.map(|key| ("authorization", format!("Bearer {}", key.expose())));
        let own = config.headers.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.expose().clone()));
        let mut headers = HeaderMap::new();
        // A header that the operator wrote replaces the one made of the key.
        for (name, value) in bearer.into_iter().chain(own) {
            let invalid = |_| ModelSetupError::InvalidKey;
            let name = HeaderName::try_from(name).map_err(|_| ModelSetupError::InvalidKey)?;
            let mut value = HeaderValue::try_from(value).map_err(invalid)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let secrets = config
            .api_key
            .into_iter()
            .chain(config.headers.into_values());
        Ok(Self {
            http,
            chat,
            models,
            headers,
            quote: Arc::new(Quote::new(secrets)),
            timeouts: config.timeouts,
            max_line: config.max_line,
            max_answer: config.max_answer,
            answer_limit_field: config.answer_limit_field,
            unsupported: config.unsupported.into(),
            draining: TaskTracker::new(),
        })
    }

    /// The body of a turn's request for the upstream's model: the client's fields, known or not, around
    /// the messages and tools. A `tool_choice` that forces a call holds until the client's tools are
    /// called. The upstream lacks some fields: they are left out or renamed.
    pub fn render(&self, model: &str, parts: &TurnParts<'_>) -> Bytes {
        let limit = parts.answer_limit;
        let turn = Turn {
            model,
            messages: parts.messages,
            tools: parts.tools,
            is_first: parts.first_turn,
            answer_limit: limit.map(|tokens| (self.answer_limit_field, tokens)),
        };
        render_request(parts.spec, turn, &self.unsupported)
    }

    /// Returns the models that the upstream offers.
    pub async fn list_models(&self) -> Result<ModelList, ModelError> {
        let request = Request::new(Method::GET, self.models.clone());
        let deadline = Instant::now() + self.timeouts.first_byte;
        let response = self.send(request, deadline).await?;
        let body = read_plain(response, deadline).await?;
        ModelList::read(&body).map_err(|source| ModelError::Invalid {
            what: "the list of models is not JSON of the expected shape",
            source: Some(source),
        })
    }

    /// Sends a rendered request once; returns once the first token is there, or the answer has ended
    /// without one.
    pub(super) async fn try_turn(
        &self,
        body: Bytes,
        context: &TurnContext,
    ) -> Result<TurnStream, ModelError> {
        let started = Instant::now();
        let mut request = Request::new(Method::POST, self.chat.clone());
        *request.body_mut() = Some(body.into());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let told = [
            ("x-request-id", &context.request_id),
            ("traceparent", &context.traceparent),
        ];
        for (name, value) in told {
            if let Some(value) = value
                .as_deref()
                .and_then(|value| HeaderValue::try_from(value).ok())
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let first_byte = started + self.timeouts.first_byte;
        let response = self.send(request, first_byte).await?;
        let deadlines = Deadlines {
            first_byte,
            idle: self.timeouts.idle,
            total: started + self.timeouts.total,
        };
        let call_ids = format!("call_{:016x}_", rand::random::<u64>());
        let mut stream = TurnStream::new(
            response,
            AnswerDecoder::new(self.max_line),
            ChatAccumulator::new(call_ids, self.max_answer),
            deadlines,
            self.quote.clone(),
            self.draining.clone(),
        );
        stream.read_first().await?;
        Ok(stream)
    }

    /// Sends a request, and converts every status but a success into an error.
    async fn send(&self, mut request: Request, deadline: Instant) -> Result<Response, ModelError> {
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let response = match timeout_at(deadline, self.http.send(request)).await {
            Err(_) => return Err(ModelError::TimedOut(Wait::FirstByte)),
            Ok(Err(error)) => return Err(send_error(error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ModelError::Unauthorized { status });
        }
        if !status.is_client_error() || matches!(status.as_u16(), 408 | 409 | 425) {
            return Err(ModelError::Failed {
                status,
                retry_after,
            });
        }
        let patience = deadline.min(Instant::now() + Duration::from_secs(5));
        let body = read_plain(response, patience).await.unwrap_or_default();
        let error = self.quote.apply(error_of(&body).unwrap_or_else(|| {
            ErrorObject::new(
                "invalid_request_error",
                "upstream_rejected",
                "it does not say why",
            )
        }));
        if status == StatusCode::TOO_MANY_REQUESTS {
            let quota_spent = [Some(error.kind.as_str()), error.code.as_deref()]
                .contains(&Some("insufficient_quota"));
            let message = error.message;
            return Err(ModelError::RateLimited {
                message,
                retry_after,
                quota_spent,
            });
        }
        Err(ModelError::Rejected { status, error })
    }
}

fn send_error(error: reqwest::Error) -> ModelError {
    let source = error.without_url();
    if source.is_connect() {
        if source.is_timeout() {
            return ModelError::TimedOut(Wait::Connection);
        }
        return ModelError::Unreachable { source };
    }
    ModelError::Cut {
        source: Some(source),
    }
}

#[cfg(test)]
mod tests {
    use baton_service::Secret;

    use super::*;

    #[test]
    fn a_wrong_url_is_named_and_the_key_never() {
        let config = ModelConfig {
            api_key: Some(Secret::new("sk-very-secret".to_owned())),
            ..ModelConfig::new("file:///etc/passwd")
        };
        assert!(!format!("{config:?}").contains("very-secret"));
        let error = ModelClient::with_config(config.clone()).unwrap_err();
        assert!(error.to_string().contains("file:///etc/passwd"), "{error}");
        let config = ModelConfig {
            base_url: "https://host/v1/".to_owned(),
            ..config
        };
        let client = ModelClient::with_config(config).unwrap();
        assert_eq!(client.chat.as_str(), "https://host/v1/chat/completions");
        assert!(!format!("{client:?}").contains("very-secret"));
    }
}
