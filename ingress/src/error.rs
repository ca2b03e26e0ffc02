//! Errors of the public API. A handler says what is wrong once; the shape that the client sees
//! follows the path of its request: the OpenAI error object on OpenAI routes, problem+json on all
//! others. What middleware and the router answer by themselves (404, 405, a panic) is given a shape
//! in the same place.

use std::borrow::Cow;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use baton_admission::{Invalid, SubmitError};
use baton_nats::Refusal;
use baton_openai::{ErrorBody, ErrorObject};
use baton_protocol::{RunError, RunId};
use baton_service::Problem;
use baton_store::StoreError;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// Names the run that an answer is about.
pub(crate) const X_RUN_ID: HeaderName = HeaderName::from_static("x-run-id");
/// Tells the official SDKs whether to repeat a request by themselves.
pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The code of a budget that is used up: OpenAI's word for that is the class of the error.
const BUDGET_EXCEEDED: &str = "budget_exceeded";

/// What went wrong, without a shape.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// A stable word for programs.
    pub(crate) code: Cow<'static, str>,
    /// For people.
    pub(crate) message: String,
    /// The request's field at fault.
    pub(crate) param: Option<String>,
    headers: Box<HeaderMap>,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            param: None,
            headers: Box::default(),
        }
    }

    pub(crate) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).header(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"baton\""),
        )
    }

    /// A token that is not good, or not any more.
    pub(crate) fn invalid_token(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message).header(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"baton\", error=\"invalid_token\""),
        )
    }

    /// What a stream says whose credential is not good any more.
    pub(crate) fn credential_ended() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "credential_ended",
            "the credential that opened this was revoked or has expired",
        )
    }

    /// A role is given, changed or taken by somebody whose own is below it.
    pub(crate) fn role_too_low() -> Self {
        let message = "this takes a role that is not below the one in question";
        Self::forbidden("role_too_low", message)
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn no_such_run() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "run_not_found",
            "there is no run with this id",
        )
    }

    pub(crate) fn no_such_approval() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "approval_not_found",
            "the run has no question with this id",
        )
    }

    /// A part that Baton needs is away: not the client's fault, and worth another try.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(1)
    }

    /// A fault of the server's own. The cause is logged here, once, and not told.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the server failed to answer this request; its log names the request id",
        )
    }

    /// A run's failure, as the answer to a request that waited for it. The official client
    /// libraries ask again by themselves after a 429 or a 5xx, which makes another run: harmless if
    /// the upstream took no request of this one, and otherwise the same work paid for twice.
    /// `worked` says whether the run had done or shown anything before it failed.
    pub(crate) fn run_failed(run: RunId, error: &RunError, worked: bool) -> Self {
        let failed = Self::new(
            status_of_failed_run(&error.code),
            error.code.clone(),
            format!("run {run} failed: {}", error.message),
        )
        .of_run(run);
        if worked || !costs_nothing(&error.code) {
            failed.do_not_retry()
        } else {
            failed
        }
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// For statuses that the SDKs would repeat although that cannot help.
    pub(crate) fn do_not_retry(self) -> Self {
        self.header(X_SHOULD_RETRY, HeaderValue::from_static("false"))
    }

    pub(crate) fn of_run(self, run: RunId) -> Self {
        match HeaderValue::try_from(run.to_string()) {
            Ok(value) => self.header(X_RUN_ID, value),
            Err(_) => self,
        }
    }

    /// The error as programs on the bus are told of it.
    pub(crate) fn to_refusal(&self) -> Refusal {
        let after = self.headers.get(RETRY_AFTER);
        Refusal {
            status: self.status.as_u16(),
            code: self.code.clone().into_owned(),
            message: self.message.clone(),
            param: self.param.clone(),
            retry_after: after.and_then(|after| after.to_str().ok()?.parse().ok()),
        }
    }

    /// The error as OpenAI's error object.
    pub(crate) fn to_openai(&self) -> ErrorObject {
        ErrorObject {
            message: self.message.clone(),
            kind: match &*self.code {
                BUDGET_EXCEEDED => "insufficient_quota",
                _ => openai_type(self.status),
            }
            .to_owned(),
            param: self.param.clone(),
            code: Some(self.code.clone().into_owned()),
        }
    }

    /// As an answer, where [`shape_errors`] does not come by.
    pub(crate) fn into_answer(self, path: &str) -> Response {
        self.into_shape(Shape::of(path))
    }

    fn into_shape(self, shape: Shape) -> Response {
        let mut response = match shape {
            Shape::OpenAi => {
                let body = ErrorBody {
                    error: self.to_openai(),
                };
                // Strings always serialise.
                let body = serde_json::to_vec(&body).unwrap_or_default();
                (self.status, [(CONTENT_TYPE, "application/json")], body).into_response()
            }
            Shape::Problem => {
                // A problem's code is one of a fixed set; a run's failure brings its own.
                let code = match self.code {
                    Cow::Borrowed(code) => code,
                    Cow::Owned(_) => "run_failed",
                };
                let mut problem = Problem::new(self.status, code).detail(self.message);
                if let Some(param) = self.param {
                    problem = problem.with("param", param);
                }
                problem.into_response()
            }
        };
        response.headers_mut().extend(*self.headers);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The class that OpenAI's API gives errors of a status.
pub(crate) fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// What a run's failure means to somebody who waited for the answer.
pub(crate) fn status_of_failed_run(code: &str) -> StatusCode {
    match code {
        "upstream_timeout" | "upstream_first_byte_timeout" | "upstream_idle_timeout" => {
            StatusCode::GATEWAY_TIMEOUT
        }
        "upstream_rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "upstream_overloaded" | "upstream_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "model_not_found" => StatusCode::NOT_FOUND,
        "api_key_revoked" => StatusCode::UNAUTHORIZED,
        "scope_missing" | "model_not_allowed" | "price_unknown" => StatusCode::FORBIDDEN,
        "upstream_rejected"
        | "upstream_refused"
        | "context_length_exceeded"
        | "invalid_request" => StatusCode::BAD_REQUEST,
        code if code.starts_with("upstream") => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether a turn that fails like this has used nothing: the upstream was not reached, or refused.
/// One that fell silent or broke off may have been at work.
fn costs_nothing(code: &str) -> bool {
    matches!(
        code,
        "upstream_unreachable" | "upstream_rate_limited" | "upstream_error"
    )
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, invalid.code, invalid.message);
        match invalid.param {
            Some(param) => error.param(param),
            None => error,
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Invalid(invalid) => invalid.into(),
            SubmitError::UnknownAgent(_) => {
                Self::new(StatusCode::NOT_FOUND, "agent_not_found", message).param("agent")
            }
            SubmitError::ModelNotAllowed(_) => {
                Self::forbidden("model_not_allowed", message).param("model")
            }
            SubmitError::TenantQueueFull { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).retry_after(2)
            }
            SubmitError::ConcurrencyLimit { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "concurrency_limit", message)
                    .retry_after(2)
            }
            SubmitError::BudgetExceeded { seconds, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, BUDGET_EXCEEDED, message)
                    .retry_after(seconds)
                    .do_not_retry()
            }
            SubmitError::BudgetReserved => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "budget_reserved", message).retry_after(2)
            }
            SubmitError::PriceUnknown(_) => {
                Self::forbidden("price_unknown", message).param("model")
            }
            SubmitError::SystemQueueFull => {
                Self::unavailable("system_full", message).retry_after(5)
            }
            SubmitError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                message,
            ),
            SubmitError::RunIdTaken => {
                Self::new(StatusCode::CONFLICT, "run_id_taken", message).param("run_id")
            }
            SubmitError::BrokerDown => Self::unavailable("broker_unavailable", message),
            SubmitError::Store(error) => error.into(),
            SubmitError::Encode(error) => Self::internal(&error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the ledger failed a request"
        );
        Self::unavailable(
            "ledger_unavailable",
            "the ledger cannot be reached: try again",
        )
    }
}

impl From<baton_nats::BusError> for ApiError {
    fn from(error: baton_nats::BusError) -> Self {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the broker failed a request"
        );
        Self::unavailable(
            "broker_unavailable",
            "the message broker cannot be reached: try again",
        )
    }
}

impl IntoResponse for ApiError {
    /// A placeholder that [`shape_errors`] gives its body; it alone knows the path.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The header of an answer about a run.
pub(crate) fn run_header(run: RunId) -> [(HeaderName, String); 1] {
    [(X_RUN_ID, run.to_string())]
}

/// How the errors of a route are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// OpenAI's error object.
    OpenAi,
    /// RFC 9457.
    Problem,
}

impl Shape {
    pub(crate) fn of(path: &str) -> Self {
        const OPENAI: [&str; 6] = [
            "chat",
            "models",
            "responses",
            "completions",
            "embeddings",
            "conversations",
        ];
        let first = path
            .strip_prefix("/v1/")
            .and_then(|rest| rest.split('/').next());
        if first.is_some_and(|first| OPENAI.contains(&first)) {
            Self::OpenAi
        } else {
            Self::Problem
        }
    }
}

/// Gives every error the shape of its path.
pub(crate) async fn shape_errors(request: Request, next: Next) -> Response {
    let shape = Shape::of(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return error.into_shape(shape);
    }
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    // The router's own answers, and a caught panic's.
    let allow = response.headers_mut().remove(http::header::ALLOW);
    let error = generic(status);
    let error = match allow {
        Some(allow) => error.header(http::header::ALLOW, allow),
        None => error,
    };
    error.into_shape(shape)
}

fn generic(status: StatusCode) -> ApiError {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address; see /docs"),
        StatusCode::METHOD_NOT_ALLOWED => (
            "method_not_allowed",
            "this address does not take this method; see /docs",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the request body is too large"),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request took too long to arrive"),
        status if status.is_server_error() => (
            "internal_error",
            "the server failed to answer this request; its log names the request id",
        ),
        _ => ("bad_request", "the request is malformed"),
    };
    ApiError::new(status, code, message)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::routing::{get, post};
    use axum::{Router, middleware};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    fn router() -> Router {
        let fail = || async {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", "full")
                .param("x")
                .retry_after(2)
                .do_not_retry()
        };
        Router::new()
            .route("/v1/chat/completions", post(fail))
            .route("/v1/runs", post(fail))
            .route("/v1/runs/{id}", get(|| async { "fine" }))
            .layer(middleware::from_fn(shape_errors))
    }

    async fn ask(method: &str, path: &str) -> (StatusCode, HeaderMap, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&body).unwrap_or(Value::Null),
        )
    }

    #[tokio::test]
    async fn the_shape_follows_the_path() {
        let (status, headers, body) = ask("POST", "/v1/chat/completions").await;
        assert_eq!(status, 429);
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["x-should-retry"], "false");
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "full", "type": "rate_limit_error", "param": "x", "code": "queue_full"
            }})
        );
        let (_, headers, body) = ask("POST", "/v1/runs").await;
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(
            (&body["code"], &body["detail"]),
            (&"queue_full".into(), &"full".into())
        );
        assert_eq!(body["param"], "x");
    }

    #[tokio::test]
    async fn what_the_router_answers_has_a_shape_too() {
        let (status, _, body) = ask("GET", "/v1/models/none").await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::NOT_FOUND, &"not_found".into())
        );
        let (status, headers, body) = ask("DELETE", "/v1/runs").await;
        assert_eq!(status, 405);
        assert_eq!(headers["allow"], "POST");
        assert_eq!(body["code"], "method_not_allowed");
        assert_eq!(ask("GET", "/v1/runs/x").await.0, 200);
    }

    #[test]
    fn failures_of_the_upstream_are_told_apart() {
        for (code, status) in [
            ("upstream_timeout", 504),
            ("upstream_unreachable", 502),
            ("upstream_cut", 502),
            ("upstream_rate_limited", 429),
            ("max_failures", 500),
        ] {
            assert_eq!(status_of_failed_run(code).as_u16(), status, "{code}");
        }
    }
}
