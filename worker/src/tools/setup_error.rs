//! The errors of setting up tools.

/// The reason why a tool cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ToolSetupError {
    /// The name is not one that models can call.
    #[error("`{0}` is not a tool's name: use 1 to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// Two tools have the same name.
    #[error("there are two tools called `{0}`")]
    Twice(String),
    /// The parameters are not a JSON Schema, or refer to something outside it.
    #[error("the parameters of the tool `{name}` are not a JSON Schema that stands alone: {what}")]
    Schema {
        /// The tool.
        name: String,
        /// The mistake.
        what: String,
    },
    /// The configuration of an operator's tool has a mistake.
    #[error("the tool `{name}` cannot be used: {what}")]
    Http {
        /// The tool.
        name: String,
        /// The mistake.
        what: String,
    },
    /// The configuration of an MCP server has a mistake.
    #[error("the MCP server `{name}` cannot be used: {what}")]
    Mcp {
        /// The server.
        name: String,
        /// The mistake.
        what: String,
    },
    /// The HTTP client could not be set up.
    #[error(transparent)]
    Client(#[from] baton_outbound::SetupError),
}
