//! Each request's id, log line and metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::{Instrument as _, field};
use uuid::Uuid;

use baton_traces::{Span, SpanKind};

use crate::metrics as names;
use crate::request_line::{ObservedBody, RequestLine, RequestTrace, TRACE};

/// The header with the id, in requests and answers.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header with the W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id of a client, because longer ids would bloat every log line.
const MAX_LENGTH: usize = 128;

/// The id of one request in answers, logs and messages. It is an extension of every request, so
/// that a handler can take `Extension<RequestId>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Returns the client's only id if it is 1 to 128 visible ASCII characters, else a new UUIDv7.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut ids = headers.get_all(X_REQUEST_ID).iter();
        let given = ids
            .next()
            .filter(|_| ids.next().is_none())
            .map(HeaderValue::as_bytes)
            .filter(|id| {
                (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
            });
        match given.and_then(|id| std::str::from_utf8(id).ok()) {
            Some(id) => Self(id.into()),
            None => Self(Uuid::now_v7().hyphenated().to_string().into()),
        }
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives every request of `router` an id, a span, a log line and metrics. The line is written once
/// the last byte of the answer is sent, or nobody is there any longer to take it.
///
/// Handlers record in the span the fields that they learn: see `docs/logs.md`. Apply it last, so that
/// it sees the answers of other layers too.
pub fn instrument(router: Router) -> Router {
    router.layer(middleware::from_fn(observe))
}

async fn observe(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    // Never the path itself, because clients choose paths and would choose the number of series.
    let label: Arc<str> = route
        .as_ref()
        .map_or("unmatched", MatchedPath::as_str)
        .into();
    let span = tracing::info_span!(
        "http",
        request.id = %id,
        method,
        route = %label,
        client.address = field::Empty,
        caller = field::Empty,
        tenant.id = field::Empty,
        run.id = field::Empty,
        trace.id = field::Empty,
        stream.end = field::Empty,
    );
    request.extensions_mut().insert(id.clone());
    let mut trace = Span::begin(
        || format!("{method} {label}"),
        SpanKind::Server,
        traceparent(request.headers()).as_deref(),
    );
    trace.set("http.request.method", || method);
    trace.set("http.route", || label.to_string());
    trace.set("baton.request.id", || id.to_string());
    // The handlers read it as if the client had sent it.
    if let Some(own) = trace.traceparent()
        && let Ok(own) = HeaderValue::try_from(own)
    {
        request.headers_mut().insert(TRACEPARENT, own);
    }

    let start = Instant::now();
    let noted = RequestTrace::of(&trace);
    let sampled = noted.sampled();
    let mut line = RequestLine::begin(span.clone(), trace, noted.clone(), start);
    let answering = TRACE.scope(noted, next.run(request));
    let mut response = answering.instrument(span).await;
    let took = start.elapsed();

    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    line.answered(status, took);
    metrics::counter!(
        names::HTTP_REQUESTS,
        "method" => method, "route" => Arc::clone(&label), "status" => status.to_string()
    )
    .increment(1);
    if let Some(sampled) = sampled {
        let labels = [("method", method), ("route", &*label)];
        sampled.exemplifies(names::HTTP_REQUEST_DURATION, &labels, took);
    }
    metrics::histogram!(names::HTTP_REQUEST_DURATION, "method" => method, "route" => label)
        .record(took.as_secs_f64());
    response.map(|body| Body::new(ObservedBody::new(body, line)))
}

/// Returns the only `traceparent` of a request.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    // One of two might be anybody's (W3C Trace Context, 3.2.1).
    let mut given = headers.get_all(TRACEPARENT).iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    only.to_str().ok().map(str::to_owned)
}

/// Returns a known method's name, because clients can invent methods.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(id: Option<&str>) -> (String, String) {
        let echo = |Extension(id): Extension<RequestId>| async move { id.to_string() };
        let router = instrument(Router::new().route("/things/{id}", get(echo)));
        let mut request = Request::get("/things/7");
        if let Some(id) = id {
            request = request.header(X_REQUEST_ID, id);
        }
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let header = response.headers()[X_REQUEST_ID]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (header, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_clients_id_is_kept_and_echoed() {
        let (header, seen) = ask(Some("order-17/retry.2")).await;
        assert_eq!(
            (header.as_str(), seen.as_str()),
            ("order-17/retry.2", "order-17/retry.2")
        );
    }

    #[tokio::test]
    async fn an_id_that_is_missing_too_long_or_not_visible_is_replaced() {
        for bad in [None, Some(""), Some("two words"), Some(&*"x".repeat(129))] {
            let (header, seen) = ask(bad).await;
            assert_eq!(header, seen);
            assert_eq!(
                header.parse::<Uuid>().unwrap().get_version_num(),
                7,
                "for {bad:?}"
            );
        }
    }
}
