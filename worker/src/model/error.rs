//! What can go wrong with a model turn.

use std::time::Duration;

use baton_openai::{AccumulateError, ErrorObject, SseError};
use http::StatusCode;

/// What was being waited for when the time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A connection.
    Connection,
    /// The first byte of the answer.
    FirstByte,
    /// The next byte of the answer.
    NextByte,
    /// The end of the answer.
    WholeAnswer,
}

impl Wait {
    const fn describe(self) -> &'static str {
        match self {
            Self::Connection => "the model server did not accept a connection in time",
            Self::FirstByte => "the model server did not begin to answer in time",
            Self::NextByte => "the model server fell silent in the middle of its answer",
            Self::WholeAnswer => "the model server did not finish its answer in time",
        }
    }
}

/// A turn failed. The message (`Display`) may be shown to the client: it holds neither the key nor
/// the upstream's whole body; the sources are for the log.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No connection.
    #[error("the model server cannot be reached")]
    Unreachable {
        /// Why.
        source: reqwest::Error,
    },
    /// Time ran out.
    #[error("{}", .0.describe())]
    TimedOut(Wait),
    /// 429: too many requests, or no money left.
    #[error("the model server refuses more requests: {message}")]
    RateLimited {
        /// The upstream's words, cut.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// The quota is spent: asking again soon is useless.
        quota_spent: bool,
    },
    /// 401 or 403: the operator's key is wrong.
    #[error("the model server does not accept the configured key ({status}); check LLM_API_KEY")]
    Unauthorized {
        /// The status.
        status: StatusCode,
    },
    /// Another 4xx: the upstream does not take this request.
    #[error("the model server rejects the request ({status}): {}", .error.message)]
    Rejected {
        /// The status.
        status: StatusCode,
        /// The upstream's words, cut.
        error: ErrorObject,
    },
    /// A 5xx or another status that is no answer.
    #[error("the model server failed ({status})")]
    Failed {
        /// The status.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An error object in place of the answer, or in the middle of it.
    #[error("the model server reported an error: {}", .0.message)]
    Reported(ErrorObject),
    /// The model stopped for a reason that is no good end.
    #[error("the model server ended its answer with `{reason}`")]
    BadEnd {
        /// The upstream's word for it, cut.
        reason: String,
    },
    /// The connection broke, or the stream ended without saying why the model stopped.
    #[error("the model server broke off its answer")]
    Cut {
        /// Why, if the connection broke.
        source: Option<reqwest::Error>,
    },
    /// What came is no chat stream.
    #[error("the model server sent what is not a chat stream: {what}")]
    Invalid {
        /// What is wrong with it.
        what: &'static str,
        /// Where, if it is bad JSON.
        source: Option<serde_json::Error>,
    },
    /// A line or the whole answer is longer than allowed.
    #[error("the model server sent more than {limit} bytes {of}")]
    TooLong {
        /// In what: a line or an answer.
        of: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl ModelError {
    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "upstream_unreachable",
            Self::TimedOut(_) => "upstream_timeout",
            Self::RateLimited { .. } => "upstream_rate_limited",
            Self::Unauthorized { .. } => "upstream_unauthorized",
            Self::Rejected { status, .. } if status.as_u16() == 404 => "model_not_found",
            Self::Rejected { .. } => "upstream_rejected",
            Self::Failed { .. } | Self::Reported(_) | Self::BadEnd { .. } => "upstream_error",
            Self::Cut { .. } => "upstream_cut",
            Self::Invalid { .. } => "upstream_invalid",
            Self::TooLong { .. } => "upstream_too_long",
        }
    }

    /// Every code, for metrics that begin at 0.
    pub const CODES: [&'static str; 10] = [
        "model_not_found",
        "upstream_unreachable",
        "upstream_timeout",
        "upstream_rate_limited",
        "upstream_unauthorized",
        "upstream_rejected",
        "upstream_error",
        "upstream_cut",
        "upstream_invalid",
        "upstream_too_long",
    ];

    /// Whether the same request may succeed if it is sent again.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } | Self::BadEnd { .. } => true,
            Self::TimedOut(wait) => *wait != Wait::WholeAnswer,
            Self::RateLimited { quota_spent, .. } => !quota_spent,
            Self::Failed { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425)
            }
            Self::Reported(error) => reported_is_retryable(error),
            Self::Unauthorized { .. }
            | Self::Rejected { .. }
            | Self::Invalid { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// Whether the upstream has done nothing for the request: it was not reached, or said no.
    pub const fn costs_nothing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut(Wait::Connection)
            | Self::RateLimited { .. }
            | Self::Unauthorized { .. }
            | Self::Rejected { .. }
            | Self::Failed { .. } => true,
            Self::TimedOut(_)
            | Self::Reported(_)
            | Self::BadEnd { .. }
            | Self::Cut { .. }
            | Self::Invalid { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// When the upstream wants to be asked again, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failed { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

fn reported_is_retryable(error: &ErrorObject) -> bool {
    let status = error
        .code
        .as_deref()
        .and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(status) => status >= 500 || matches!(status, 408 | 409 | 425 | 429),
        None => {
            error.kind != "invalid_request_error"
                && error.code.as_deref() != Some("insufficient_quota")
        }
    }
}

impl From<SseError> for ModelError {
    fn from(error: SseError) -> Self {
        match error {
            SseError::TooLong { limit } => Self::TooLong {
                of: "in one line",
                limit,
            },
        }
    }
}

impl From<AccumulateError> for ModelError {
    fn from(error: AccumulateError) -> Self {
        match error {
            AccumulateError::Reported(error) => Self::Reported(error),
            AccumulateError::BadEnd(reason) => Self::BadEnd { reason },
            AccumulateError::Incomplete => Self::Cut { source: None },
            AccumulateError::TooLong { limit } => Self::TooLong {
                of: "in one answer",
                limit,
            },
            AccumulateError::Malformed(what) => Self::Invalid { what, source: None },
        }
    }
}
