//! The reasons why a server cannot be used.

use std::error::Error;
use std::time::Duration;

use baton_outbound::Refused;
use rmcp::model::ErrorData;
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
};

use crate::endpoint::Endpoint;

/// A server could not be used. The texts are for the model and the operator, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// The guard of outbound connections does not allow it.
    #[error("the connection is not allowed: {0}")]
    Refused(#[from] Refused),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
    /// No connection came about; nothing was sent.
    #[error("it cannot be reached")]
    Unreachable,
    /// Its program could not be started.
    #[error("its program cannot be started: {0}")]
    NotStarted(String),
    /// Its program has ended, and is started again later.
    #[error("its program has ended ({0}), and is started again soon")]
    Ended(String),
    /// Its token server gave no token; nothing was sent.
    #[error("its token server gives no token: {0}")]
    NoToken(String),
    /// It asks for another credential.
    #[error("it refuses the credential")]
    Unauthorized,
    /// It took longer than allowed.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    /// It answered with an error of its own.
    #[error("it answered with the error {code}: {message}")]
    Answered {
        /// The JSON-RPC code.
        code: i32,
        /// The server's text.
        message: String,
    },
    /// It did not follow the protocol, or broke off.
    #[error("it does not speak MCP as expected: {0}")]
    Protocol(String),
    /// It sent more than is read.
    #[error("it sent too much: {0}")]
    TooMuch(String),
    /// It wants something of the client that Baton does not give.
    #[error("the tool needs {0}, which this server does not give")]
    Unsupported(&'static str),
}

impl McpError {
    /// Returns the kind, as metrics name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Setup(_) => "refused",
            Self::Unreachable => "unreachable",
            Self::NotStarted(_) => "not_started",
            Self::Ended(_) => "ended",
            Self::NoToken(_) => "no_token",
            Self::Unauthorized => "unauthorized",
            Self::TimedOut(_) => "timed_out",
            Self::Answered { .. } => "error",
            Self::Protocol(_) => "protocol",
            Self::TooMuch(_) => "too_much",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// All kinds.
    pub const KINDS: &'static [&'static str] = &[
        "refused",
        "unreachable",
        "not_started",
        "ended",
        "no_token",
        "unauthorized",
        "timed_out",
        "error",
        "protocol",
        "too_much",
        "unsupported",
    ];

    /// Returns whether a call with this error may have had an effect.
    pub const fn may_have_arrived(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Setup(_)
            | Self::Unreachable
            | Self::NotStarted(_)
            | Self::Ended(_)
            | Self::NoToken(_)
            | Self::Unauthorized => false,
            Self::TimedOut(_)
            | Self::Answered { .. }
            | Self::Protocol(_)
            | Self::TooMuch(_)
            | Self::Unsupported(_) => true,
        }
    }

    pub(crate) fn opening(error: &ClientInitializeError, endpoint: &Endpoint) -> Self {
        match error {
            ClientInitializeError::TransportError { error, .. } => {
                Self::transport(&*error.error, endpoint)
            }
            ClientInitializeError::JsonRpcError(data) => Self::answered(data, endpoint),
            ClientInitializeError::LegacyFallbackFailed { fallback, .. } => {
                Self::opening(fallback, endpoint)
            }
            ClientInitializeError::NoCompatibleProtocolVersion {
                server_supported, ..
            } => Self::Protocol(
                endpoint.said(format!("it offers only the versions {server_supported:?}")),
            ),
            ClientInitializeError::ConnectionClosed(_) => {
                Self::Protocol("it broke off the opening".to_owned())
            }
            _ => Self::Protocol("its answer to the opening is another one".to_owned()),
        }
    }

    pub(crate) fn using(error: &ServiceError, endpoint: &Endpoint) -> Self {
        match error {
            ServiceError::McpError(data) => Self::answered(data, endpoint),
            ServiceError::TransportSend(error) => Self::transport(&*error.error, endpoint),
            ServiceError::TransportClosed => Self::Protocol("it broke off".to_owned()),
            ServiceError::UnexpectedResponse => {
                Self::Protocol("its answer has another form".to_owned())
            }
            _ => Self::Protocol(endpoint.said(error.to_string())),
        }
    }

    fn answered(data: &ErrorData, endpoint: &Endpoint) -> Self {
        Self::Answered {
            code: data.code.0,
            message: endpoint.said(data.message.to_string()),
        }
    }

    /// Finds the reason of a failed request among an error's causes.
    fn transport(error: &(dyn Error + 'static), endpoint: &Endpoint) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return Self::Refused(refused.clone());
            }
            if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                // The guard's refusal is a cause of a failed connection.
                if let Some(refused) = refusal(error) {
                    return Self::Refused(refused);
                }
                return if error.is_connect() || error.is_builder() {
                    Self::Unreachable
                } else if let Some(status) = error.status() {
                    Self::Protocol(format!("HTTP status {status}"))
                } else {
                    Self::Protocol("it broke off".to_owned())
                };
            }
            if error.is::<AuthRequiredError>() || error.is::<InsufficientScopeError>() {
                return Self::Unauthorized;
            }
            if let Some(error) = error.downcast_ref::<HttpStatusError>() {
                return Self::Protocol(format!("HTTP status {}", error.status));
            }
            match error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
                Some(StreamableHttpError::ResponseBodyTooLarge { max_size }) => {
                    return Self::TooMuch(format!("more than {max_size} bytes in an answer"));
                }
                Some(StreamableHttpError::UnexpectedServerResponse(answer)) => {
                    let unauthorized = ["HTTP 401", "HTTP 403"];
                    if unauthorized.iter().any(|it| answer.starts_with(it)) {
                        return Self::Unauthorized;
                    }
                    return Self::Protocol(endpoint.said(answer.to_string()));
                }
                Some(StreamableHttpError::Client(error)) => cause = Some(error),
                Some(StreamableHttpError::Io(error)) => {
                    let own = error.get_ref().and_then(|it| it.downcast_ref::<Self>());
                    match own {
                        Some(own) => return own.clone(),
                        None => cause = error.source(),
                    }
                }
                Some(other) if other.source().is_none() => {
                    return Self::Protocol(endpoint.said(other.to_string()));
                }
                _ => cause = error.source(),
            }
        }
        Self::Protocol("it broke off".to_owned())
    }
}

fn refusal(error: &reqwest::Error) -> Option<Refused> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused.clone());
        }
        cause = error.source();
    }
    None
}
