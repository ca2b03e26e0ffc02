//! The shape of an error: OpenAI's error object or problem+json, according to the path of its
//! request; or a refusal for programs on the bus.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use baton_nats::Refusal;
use baton_openai::{ErrorBody, ErrorObject};
use baton_service::Problem;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::ApiError;
use super::causes::BUDGET_EXCEEDED;
use super::routes::Routes;

/// The format of a route's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// OpenAI's error object.
    OpenAi,
    /// Problem details (RFC 9457).
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
        // An SDK expects OpenAI's error object even if its base URL lacks the version.
        let rest = path.strip_prefix("/v1/").or(path.strip_prefix('/'));
        let first = rest.and_then(|rest| rest.split('/').next());
        if first.is_some_and(|first| OPENAI.contains(&first)) {
            Self::OpenAi
        } else {
            Self::Problem
        }
    }
}

impl ApiError {
    /// Returns the error as a refusal for programs on the bus.
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

    /// Returns the error as OpenAI's error object.
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

    /// Returns the error as an answer, where [`shape_errors`] does not apply.
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
                // A problem's code is one of a fixed set; a run's failure has a code of its own.
                let code = match self.code {
                    Cow::Borrowed(code) => code,
                    Cow::Owned(_) => "run_failed",
                };
                let mut problem = Problem::new(self.status, code).detail(self.message);
                if let Some(param) = self.param {
                    problem = problem.with("param", param);
                }
                if let Some((name, value)) = self.field
                    && let Ok(value) = serde_json::from_str::<serde_json::Value>(value.get())
                {
                    problem = problem.with(name, value);
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

/// Returns the error class that OpenAI's API uses for a status.
pub(crate) fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// Gives every error the shape that its path requires.
pub(crate) async fn shape_errors(
    State(routes): State<Arc<Routes>>,
    request: Request,
    next: Next,
) -> Response {
    let shape = Shape::of(request.uri().path());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return error.into_shape(shape);
    }
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    // The router's own answers, and the answer to a caught panic.
    let allow = response.headers_mut().remove(http::header::ALLOW);
    let mut error = generic(status);
    if status == StatusCode::NOT_FOUND {
        error.message = routes.not_found(&method, uri.path());
    }
    let error = match allow {
        Some(allow) => error.header(http::header::ALLOW, allow),
        None => error,
    };
    error.into_shape(shape)
}

fn generic(status: StatusCode) -> ApiError {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is nothing at this address"),
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
    use http::HeaderMap;
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
            .layer(middleware::from_fn_with_state(
                Arc::new(Routes::described(&crate::openapi())),
                shape_errors,
            ))
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
        for path in ["/v1/models/none", "/models", "/chat/completions"] {
            let (status, _, body) = ask("GET", path).await;
            assert_eq!(
                (status, &body["error"]["code"]),
                (StatusCode::NOT_FOUND, &"not_found".into())
            );
        }
        let (_, _, body) = ask("GET", "/runs/x").await;
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("`GET /v1/runs/{id}`"), "{detail}");
        let (status, headers, body) = ask("DELETE", "/v1/runs").await;
        assert_eq!(status, 405);
        assert_eq!(headers["allow"], "POST");
        assert_eq!(body["code"], "method_not_allowed");
        assert_eq!(ask("GET", "/v1/runs/x").await.0, 200);
    }
}
