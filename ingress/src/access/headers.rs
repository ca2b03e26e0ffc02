//! Headers for browsers on every answer, and the CORS rules.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baton_service::config::HttpConfig;
use baton_service::request_id::X_REQUEST_ID;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::{X_RUN_ID, X_SHOULD_RETRY};

/// Answers are data: a browser that displays one loads and runs nothing, and frames it nowhere.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// `/docs` runs its own scripts, sends requests to this server only, and writes style attributes.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";
/// The time for which a browser caches the answer to a preflight.
const PREFLIGHT: Duration = Duration::from_hours(1);

/// The headers that do not depend on the answer.
#[derive(Debug, Clone)]
pub(crate) struct FixedHeaders {
    hsts: Option<HeaderValue>,
}

impl FixedHeaders {
    pub(crate) fn of(config: &HttpConfig) -> Self {
        let age = config.hsts.as_secs();
        let hsts = (age > 0).then(|| HeaderValue::try_from(format!("max-age={age}")));
        Self {
            hsts: hsts.and_then(Result::ok),
        }
    }
}

/// Sets the headers. A `Cache-Control` that the handler has set is kept.
pub(crate) async fn fix_headers(
    State(fixed): State<FixedHeaders>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_docs = path == "/docs" || path.starts_with("/docs/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // For browsers that do not know `frame-ancestors`.
    set(X_FRAME_OPTIONS, "DENY");
    set(REFERRER_POLICY, "no-referrer");
    if is_docs {
        set(CONTENT_SECURITY_POLICY, DOCS_POLICY);
    } else {
        set(CONTENT_SECURITY_POLICY, DATA_POLICY);
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    if let Some(hsts) = fixed.hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
    }
    response
}

/// Allows cross-origin calls from the configured origins, each compared byte for byte. Without any
/// there is no layer, and no page of another origin can read an answer. Pages send credentials in
/// headers that they set themselves, so cookies never need to be allowed.
pub(crate) fn cors(config: &HttpConfig) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = config
        .cors_origins
        .iter()
        .filter_map(|origin| HeaderValue::try_from(origin).ok())
        .collect();
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        // SDKs send headers of their own, so a list would never be complete.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed())
        .max_age(PREFLIGHT);
    Some(layer)
}

/// Returns the headers that a page may read from an answer.
fn exposed() -> Vec<HeaderName> {
    let mut names = vec![
        X_RUN_ID,
        X_REQUEST_ID,
        X_SHOULD_RETRY,
        RETRY_AFTER,
        LOCATION,
        HeaderName::from_static("idempotent-replayed"),
        HeaderName::from_static("preference-applied"),
    ];
    // Browsers accept no prefix here, so each header is listed.
    names.extend(
        [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ]
        .map(HeaderName::from_static),
    );
    names
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(config: &HttpConfig, path: &str) -> Response {
        let router = Router::new()
            .route("/v1/runs", get(|| async { "run" }))
            .route("/docs/", get(|| async { "page" }))
            .layer(middleware::from_fn_with_state(
                FixedHeaders::of(config),
                fix_headers,
            ));
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn answers_are_neither_stored_nor_framed_nor_sniffed() {
        let answer = ask(&HttpConfig::default(), "/v1/runs").await;
        let headers = answer.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["content-security-policy"], DATA_POLICY);
    }

    #[tokio::test]
    async fn the_docs_may_run_their_own_scripts_and_be_cached() {
        let answer = ask(&HttpConfig::default(), "/docs/").await;
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(policy.contains("script-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!answer.headers().contains_key("cache-control"));
    }

    #[tokio::test]
    async fn https_is_demanded_only_where_the_operator_says_so() {
        let mut config = HttpConfig::default();
        let silent = ask(&config, "/v1/runs").await;
        assert!(!silent.headers().contains_key("strict-transport-security"));
        config.hsts = Duration::from_hours(24);
        let strict = ask(&config, "/v1/runs").await;
        assert_eq!(
            strict.headers()["strict-transport-security"],
            "max-age=86400"
        );
    }
}
