//! Refuses requests with an ambiguous head.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, StatusCode, Version};

use crate::error::ApiError;

/// Headers that must have at most one value: a proxy and this server might otherwise pick different
/// ones. (`presented` checks the credential's headers.)
const SINGLE: [HeaderName; 4] = [
    HOST,
    CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];

/// Answers a request with an ambiguous head with 400.
pub(crate) async fn check_head(request: Request, next: Next) -> Response {
    match mistake(&request) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

fn mistake(request: &Request) -> Option<ApiError> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && !headers.contains_key(HOST) {
        let message = "a request of HTTP/1.1 has a `Host` header";
        return Some(ApiError::new(
            StatusCode::BAD_REQUEST,
            "host_missing",
            message,
        ));
    }
    let repeated = SINGLE
        .into_iter()
        .find(|name| headers.get_all(name).iter().nth(1).is_some())?;
    let message = format!("the header `{repeated}` is there more than once: send it once");
    Some(
        ApiError::new(StatusCode::BAD_REQUEST, "header_repeated", message).param(repeated.as_str()),
    )
}
