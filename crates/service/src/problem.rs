//! Errors as RFC 9457 problem details, the shape of every native route and of the admin port.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

/// A problem, answered as `application/problem+json`.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` if the status says everything.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words, the same each time.
    pub title: String,
    /// The HTTP status, repeated in the body.
    #[serde(serialize_with = "status_as_number")]
    pub status: StatusCode,
    /// The details of this occurrence, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A URI of this occurrence, such as the request id's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The kind for a program: a stable word such as `cursor_unknown`.
    pub code: &'static str,
    /// Further members, by name.
    #[serde(flatten)]
    pub members: Map<String, Value>,
    /// Headers of the answer, such as `Retry-After`.
    #[serde(skip)]
    pub headers: HeaderMap,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn status_as_number<S: serde::Serializer>(s: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(s.as_u16())
}

impl Problem {
    /// Makes a problem with a status and a code; the title is the status's reason.
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status,
            detail: None,
            instance: None,
            code,
            members: Map::new(),
            headers: HeaderMap::new(),
        }
    }

    /// Adds the details of this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status = self.status;
        let mut headers = std::mem::take(&mut self.headers);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        // Strings, numbers and JSON values always serialise; otherwise the body is empty.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, headers, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_is_answered_with_its_own_media_type_members_and_headers() {
        let response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full")
            .detail("10000 runs are waiting")
            .with("limit", 10_000)
            .header(http::header::RETRY_AFTER, HeaderValue::from_static("2"))
            .into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(response.headers()["retry-after"], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "about:blank", "title": "Too Many Requests", "status": 429,
                "detail": "10000 runs are waiting", "code": "queue_full", "limit": 10_000,
            })
        );
    }
}
