//! Requests to a server that carry the tokens of a token server.

use std::collections::HashMap;
use std::sync::Arc;

use baton_outbound::{Client, Guard};
use http::{HeaderName, HeaderValue};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};

use crate::error::McpError;
use crate::tokens::Tokens;

/// An HTTP client that sends a token with each request. A refused token is replaced, and the request repeated, once.
#[derive(Clone)]
pub(crate) struct Authorized {
    http: reqwest::Client,
    token_server: Client,
    tokens: Arc<Tokens>,
}

type Failed = StreamableHttpError<reqwest::Error>;

impl Authorized {
    pub(crate) fn new(
        http: reqwest::Client,
        guard: &Guard,
        tokens: &Arc<Tokens>,
    ) -> Result<Self, McpError> {
        Ok(Self {
            http,
            token_server: tokens.server(guard)?,
            tokens: Arc::clone(tokens),
        })
    }

    async fn token(&self, refused: Option<&str>) -> Result<String, Failed> {
        let token = self.tokens.token(&self.token_server, refused).await;
        // The library's errors have a place for causes of any kind here.
        token.map_err(|error| StreamableHttpError::Io(std::io::Error::other(error)))
    }

    /// Sends a request with a token, and again with another one if the server refuses the first. A refused
    /// request has had no effect.
    async fn send<T, F>(&self, request: impl Fn(String) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let token = self.token(None).await?;
        match request(token.clone()).await {
            Err(error) if is_refusal(&error) => request(self.token(Some(&token)).await?).await,
            answered => answered,
        }
    }
}

/// Returns whether the server has refused the token itself.
fn is_refusal(error: &Failed) -> bool {
    match error {
        StreamableHttpError::AuthRequired(_) => true,
        StreamableHttpError::UnexpectedServerResponse(answer) => answer.starts_with("HTTP 401"),
        StreamableHttpError::Client(error) => {
            error.status() == Some(http::StatusCode::UNAUTHORIZED)
        }
        _ => false,
    }
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = futures_util::stream::BoxStream<'static, Result<sse_stream::Sse, SseError>>;

impl StreamableHttpClient for Authorized {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        )
        .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        self.send(|token| {
            self.http.post_message_with_response_limits(
                Arc::clone(&uri),
                message.clone(),
                session_id.clone(),
                Some(token),
                custom_headers.clone(),
                limits,
            )
        })
        .await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), Failed> {
        self.send(|token| {
            self.http.delete_session(
                Arc::clone(&uri),
                Arc::clone(&session_id),
                Some(token),
                custom_headers.clone(),
            )
        })
        .await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<Events, Failed> {
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            StreamableHttpResponseLimits::default().max_sse_event_size,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Result<Events, Failed> {
        self.send(|token| {
            self.http.get_stream_with_max_sse_event_size(
                Arc::clone(&uri),
                session_id.clone(),
                last_event_id.clone(),
                Some(token),
                custom_headers.clone(),
                max_sse_event_size,
            )
        })
        .await
    }
}
