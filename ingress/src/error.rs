//! Errors of the public API. A handler reports an error once; its shape follows the path of the
//! request: the OpenAI error object on OpenAI routes, problem+json on all others. Answers that
//! middleware and the router produce themselves (404, 405, a panic) get their shape there, too.

mod causes;
mod problem;
mod routes;
mod shape;

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use baton_protocol::{BadMessage, RunId};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

pub(crate) use causes::{code_of_error, status_of_error};
pub(crate) use problem::Problem;
pub(crate) use routes::Routes;
pub(crate) use shape::{Shape, openai_type, shape_errors};

/// Names the run that an answer is about.
pub(crate) const X_RUN_ID: HeaderName = HeaderName::from_static("x-run-id");
/// Tells the official SDKs whether to repeat a request automatically.
pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error, without a shape.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// A stable word for programs.
    pub(crate) code: Cow<'static, str>,
    /// A sentence for people.
    pub(crate) message: String,
    /// The field of the request at fault.
    pub(crate) param: Option<String>,
    /// A further field of a problem.
    field: Option<(&'static str, Box<RawValue>)>,
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
            field: None,
            headers: Box::default(),
        }
    }

    pub(crate) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).header(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"baton\""),
        )
    }

    /// An access token that is not good, or no longer good.
    pub(crate) fn invalid_token(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message).header(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"baton\", error=\"invalid_token\""),
        )
    }

    /// The last error of a stream after its credential has ended.
    pub(crate) fn credential_ended() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "credential_ended",
            "the credential that opened this was revoked or has expired",
        )
    }

    /// The caller tried to give, change or take a role above their own.
    pub(crate) fn role_too_low() -> Self {
        let message = "this takes a role that is not below the one in question";
        Self::forbidden("role_too_low", message)
    }

    /// Refuses a caller that lost authority while the request was under way.
    pub(crate) fn authority_changed() -> Self {
        let message = "your role has changed or your key has ended since you were let in: look what \
                       you may do now, and ask again";
        Self::forbidden("authority_changed", message)
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// A message on the bus that cannot be read.
    pub(crate) fn bad_message(bad: &BadMessage) -> Self {
        Self::new(StatusCode::BAD_REQUEST, bad.code, bad.message.clone())
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

    /// A part that Baton needs is unavailable: not the client's fault, and worth a retry.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(1)
    }

    /// A fault of the server. The cause is logged here, once, and not sent to the client.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the server failed to answer this request; its log names the request id",
        )
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds a field to the problem; OpenAI's error object has no room for it.
    pub(crate) fn with(mut self, name: &'static str, value: Box<RawValue>) -> Self {
        self.field = Some((name, value));
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// For statuses that the SDKs would retry although that cannot help.
    pub(crate) fn do_not_retry(self) -> Self {
        self.header(X_SHOULD_RETRY, HeaderValue::from_static("false"))
    }

    /// Whether it names its run.
    pub(crate) fn is_of_run(&self) -> bool {
        self.headers.contains_key(X_RUN_ID)
    }

    pub(crate) fn of_run(self, run: RunId) -> Self {
        match HeaderValue::try_from(run.to_string()) {
            Ok(value) => self.header(X_RUN_ID, value),
            Err(_) => self,
        }
    }
}

impl IntoResponse for ApiError {
    /// Returns a placeholder. [`shape_errors`] replaces its body, because only it knows the path.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns the header of an answer about a run.
pub(crate) fn run_header(run: RunId) -> [(HeaderName, String); 1] {
    [(X_RUN_ID, run.to_string())]
}
