//! The refusal of a request.

/// A reason for which a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// A stable word for programs.
    pub code: &'static str,
    /// The path of the field at fault, such as `input[2].content[0].image_url`; `None` if the body
    /// as a whole is wrong.
    pub param: Option<String>,
    /// A sentence for people, which names the field and says what to change.
    pub message: String,
}

impl Invalid {
    /// Refuses the value of a field.
    pub fn field(code: &'static str, param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// Refuses a body.
    pub fn body(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            param: None,
            message: message.into(),
        }
    }

    /// Refuses a field of the wire that this server does not serve.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::field("unsupported_value", param, message)
    }
}
