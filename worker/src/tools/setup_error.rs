//! Why a tool cannot be offered.

/// A tool cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ToolSetupError {
    /// Not a name that models can call.
    #[error("`{0}` is not a tool's name: use 1 to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// Two of the same name.
    #[error("there are two tools called `{0}`")]
    Twice(String),
    /// Not a JSON Schema, or one that refers to something outside.
    #[error("the parameters of the tool `{name}` are not a JSON Schema that stands alone: {what}")]
    Schema {
        /// The tool.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A mistake in an operator's tool.
    #[error("the tool `{name}` cannot be used: {what}")]
    Http {
        /// The tool.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The HTTP client could not be set up.
    #[error(transparent)]
    Client(#[from] baton_outbound::SetupError),
}
