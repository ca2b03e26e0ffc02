//! The errors of a model turn.

use std::time::Duration;

use baton_openai::{AccumulateError, ErrorObject, SseError};
use baton_protocol::UpstreamError;
use http::StatusCode;

/// The part of an answer that did not arrive in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A place among the requests that the upstream may have at once.
    Place,
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
            Self::Place => "the model server had as many requests as it may have for too long",
            Self::Connection => "the model server did not accept a connection in time",
            Self::FirstByte => "the model server did not begin to answer in time",
            Self::NextByte => "the model server fell silent in the middle of its answer",
            Self::WholeAnswer => "the model server did not finish its answer in time",
        }
    }
}

/// The reason why a turn failed. The message (`Display`) may be shown to the client: it contains
/// neither the key nor the upstream's whole body; the sources are for the log.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model has no route here.
    #[error("there is no route for the model `{model}` here")]
    NoRoute {
        /// The requested name.
        model: String,
    },
    /// The upstreams of the model's route lack a part of the chat API.
    #[error("no model server for `{model}` here takes the field `{field}`")]
    NotServed {
        /// The requested name.
        model: String,
        /// The field of the request.
        field: &'static str,
    },
    /// No connection.
    #[error("the model server cannot be reached")]
    Unreachable {
        /// The cause.
        source: reqwest::Error,
    },
    /// A time limit was exceeded.
    #[error("{}", .0.describe())]
    TimedOut(Wait),
    /// 429: too many requests, or no money left.
    #[error("the model server refuses more requests: {message}")]
    RateLimited {
        /// The upstream's message, truncated.
        message: String,
        /// The pause that the upstream requests.
        retry_after: Option<Duration>,
        /// Whether the quota is used up, so that a retry soon is useless.
        quota_spent: bool,
    },
    /// 401 or 403: the operator's key is wrong.
    #[error(
        "the model server does not accept the configured key ({status}); check LLM_API_KEY, or the key of the upstream"
    )]
    Unauthorized {
        /// The status.
        status: StatusCode,
    },
    /// Another 4xx: the upstream does not accept this request.
    #[error("the model server rejects the request ({status}): {}", .error.message)]
    Rejected {
        /// The status.
        status: StatusCode,
        /// The upstream's error, truncated.
        error: ErrorObject,
    },
    /// A 5xx, or another status that is not an answer.
    #[error("the model server failed ({status})")]
    Failed {
        /// The status.
        status: StatusCode,
        /// The pause that the upstream requests.
        retry_after: Option<Duration>,
    },
    /// An error object instead of the answer, or in the middle of it.
    #[error("the model server reported an error: {}", .0.message)]
    Reported(ErrorObject),
    /// The model stopped for a reason that is not a good end.
    #[error("the model server ended its answer with `{reason}`")]
    BadEnd {
        /// The upstream's word for it, truncated.
        reason: String,
    },
    /// The connection broke, or the stream ended without the reason why the model stopped.
    #[error("the model server broke off its answer")]
    Cut {
        /// The cause, if the connection broke.
        source: Option<reqwest::Error>,
    },
    /// The body is not a chat stream.
    #[error("the model server sent what is not a chat stream: {what}")]
    Invalid {
        /// The mistake in it.
        what: &'static str,
        /// The position, if it is malformed JSON.
        source: Option<serde_json::Error>,
    },
    /// A line or the whole answer is longer than allowed.
    #[error("the model server sent more than {limit} bytes {of}")]
    TooLong {
        /// The part that is too long: a line or an answer.
        of: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl ModelError {
    /// Returns a stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoRoute { .. } => "model_not_found",
            Self::Unreachable { .. } => "upstream_unreachable",
            Self::TimedOut(_) => "upstream_timeout",
            Self::RateLimited { .. } => "upstream_rate_limited",
            Self::Unauthorized { .. } => "upstream_unauthorized",
            Self::Rejected { status, .. } if status.as_u16() == 404 => "model_not_found",
            Self::NotServed { .. } | Self::Rejected { .. } => "upstream_rejected",
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

    /// Returns whether the same request may succeed if it is sent again.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } | Self::BadEnd { .. } => true,
            Self::TimedOut(wait) => *wait != Wait::WholeAnswer,
            Self::RateLimited { quota_spent, .. } => !quota_spent,
            Self::Failed { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425)
            }
            Self::Reported(error) => reported_is_retryable(error),
            Self::NoRoute { .. }
            | Self::NotServed { .. }
            | Self::Unauthorized { .. }
            | Self::Rejected { .. }
            | Self::Invalid { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// Returns whether another upstream may answer the request: 429, a failure of the server or of the
    /// connection, or a time-out.
    pub fn another_may_do_better(&self) -> bool {
        self.retryable() || matches!(self, Self::RateLimited { .. })
    }

    /// Returns whether the upstream is not there or does not work, whatever is asked of it.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } => true,
            Self::TimedOut(wait) => matches!(wait, Wait::Connection | Wait::FirstByte),
            Self::Failed { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// Returns whether a turn that broke off with this error may succeed if it is repeated: also if
    /// the upstream sent malformed data in the middle.
    pub fn may_go_better(&self) -> bool {
        self.retryable() || matches!(self, Self::Invalid { .. })
    }

    /// Returns whether the upstream has done no work for the request: unreachable, or refused.
    pub const fn costs_nothing(&self) -> bool {
        match self {
            Self::NoRoute { .. }
            | Self::NotServed { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut(Wait::Place | Wait::Connection)
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

    /// Returns the pause that the upstream requests, if it does.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failed { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// The longest code or param of an upstream that is passed on, in bytes.
const MAX_NAME: usize = 100;

/// Phrases with which servers without a code report that the prompt is too long.
const TOO_LONG: [&str; 7] = [
    "maximum context length",
    "context length exceeded",
    "context window",
    "available context size",
    "prompt is too long",
    "input token count",
    "maximum number of tokens allowed",
];

/// The code of a prompt that is too long: clients shorten their history when they get it.
const CONTEXT_LENGTH: &str = "context_length_exceeded";

impl ModelError {
    /// Returns the upstream's own error for programs, if it sent one.
    pub fn upstream(&self) -> Option<UpstreamError> {
        let retry_after_ms = self
            .retry_after()
            .map(|pause| pause.as_millis().try_into().unwrap_or(u64::MAX));
        let said = match self {
            Self::Rejected { error, .. } | Self::Reported(error) => UpstreamError {
                code: code_of(error),
                param: error.param.clone().filter(|param| param.len() <= MAX_NAME),
                retry_after_ms,
            },
            Self::RateLimited { quota_spent, .. } => UpstreamError {
                code: quota_spent.then(|| "insufficient_quota".to_owned()),
                param: None,
                retry_after_ms,
            },
            _ => UpstreamError {
                retry_after_ms,
                ..UpstreamError::default()
            },
        };
        Some(said).filter(|said| *said != UpstreamError::default())
    }
}

/// Returns the error's code if it is a word: a number only repeats the status.
fn code_of(error: &ErrorObject) -> Option<String> {
    let is_word = |code: &&str| {
        let is_named = code.bytes().any(|byte| byte.is_ascii_alphabetic());
        is_named && code.len() <= MAX_NAME && code.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let code = error.code.as_deref().filter(is_word);
    let code = code.filter(|code| *code != "upstream_rejected");
    if let Some(code) = code {
        return Some(code.to_owned());
    }
    let message = error.message.to_ascii_lowercase();
    let is_too_long = error.kind == "exceed_context_size_error"
        || TOO_LONG.iter().any(|words| message.contains(words));
    is_too_long.then(|| CONTEXT_LENGTH.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_code_is_a_word_and_a_prompt_that_is_too_long_has_one() {
        let code = |code: Option<&str>, message: &str| {
            let error = ErrorObject {
                code: code.map(str::to_owned),
                ..ErrorObject::new("BadRequestError", "", message)
            };
            let status = StatusCode::BAD_REQUEST;
            let error = ModelError::Rejected { status, error };
            error.upstream().and_then(|upstream| upstream.code)
        };
        for (given, message, expected) in [
            (Some("invalid_image_url"), "no", Some("invalid_image_url")),
            (Some("400"), "no", None),
            (Some("a b"), "no", None),
            (None, "no", None),
            (
                Some("400"),
                "This model's maximum context length is 10 tokens",
                Some(CONTEXT_LENGTH),
            ),
            (None, "prompt is too long: 9 > 5", Some(CONTEXT_LENGTH)),
        ] {
            assert_eq!(code(given, message).as_deref(), expected, "{message}");
        }
    }
}
