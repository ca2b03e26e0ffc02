//! A token server for tests: it issues access tokens for client credentials (RFC 6749, 4.4).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A request for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The `Authorization` header.
    pub authorization: String,
    /// The form.
    pub form: String,
}

/// The answer of the server, in place of a token.
type Answer = (StatusCode, Value);

/// A server at a free port of the loopback. It ends when dropped.
#[derive(Debug)]
pub struct TokenServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<TokenRequest>,
    answer: Option<Answer>,
}

impl TokenServer {
    /// Begins to serve. The tokens are [`TokenServer::token`], and hold for an hour.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let router = Router::new()
            .route("/token", post(answer))
            .with_state(Arc::clone(&state));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        TaskTracker::new().spawn(async move {
            tokio::select! {
                _ = axum::serve(listener, router) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self {
            address,
            state,
            _stop: stop.drop_guard(),
        })
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Returns the token that the request of this number gets, from 1.
    pub fn token(number: usize) -> String {
        format!("issued-token-{number}")
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<TokenRequest> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.clone()
    }

    /// Answers requests from now on with this in place of a token.
    pub fn answer_with(&self, status: StatusCode, body: Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.answer = Some((status, body));
    }
}

async fn answer(
    Shared(state): Shared<Arc<Mutex<State>>>,
    headers: HeaderMap,
    form: String,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|it| it.to_str().ok());
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.requests.push(TokenRequest {
        authorization: authorization.unwrap_or_default().to_owned(),
        form,
    });
    if let Some((status, body)) = state.answer.clone() {
        return (status, Json(body)).into_response();
    }
    let token = TokenServer::token(state.requests.len());
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
    Json(body).into_response()
}
