//! Refusals of submissions.

pub use baton_protocol::Invalid;
use baton_protocol::RunId;
use baton_store::{AcceptError, Refusal, StoreError};

/// A reason for which a run was not accepted. Nothing was written, except perhaps with
/// [`SubmitError::InDoubt`].
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No agent has this name.
    #[error("there is no agent `{0}`")]
    UnknownAgent(String),
    /// The key's list of models does not include this one.
    #[error("this API key may not use the model `{0}`")]
    ModelNotAllowed(String),
    /// The key's list of tools does not include this one.
    #[error("this API key may not use the tool `{0}`")]
    ToolNotAllowed(String),
    /// The server has no such tool.
    #[error("there is no tool `{0}` here: GET /v1/tools lists those that there are")]
    UnknownTool(String),
    /// The model has no route to an upstream.
    #[error("there is no model `{0}` here: GET /v1/models lists those that there are")]
    NoRoute(String),
    /// The ledger does not accept the run: a key, an id or a thread is in the way, or a limit.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The API key has a budget in money, and the model no price.
    #[error(
        "this API key has a budget in money, and the model `{0}` has no price here: the operator can give it one under [[llm.prices]]"
    )]
    PriceUnknown(String),
    /// The request has a limit in money, and the model no price.
    #[error(
        "`max_cost` limits this run, and the model `{0}` has no price here: the operator can give it one under [[llm.prices]]"
    )]
    CostUnknown(String),
    /// The broker is known to be unreachable.
    #[error("the message broker cannot be reached: try again later")]
    BrokerDown,
    /// The ledger could not be reached, or refused.
    #[error("the ledger cannot be reached: try again later")]
    Store(#[from] StoreError),
    /// The ledger's answer was lost: the run may be accepted.
    #[error(
        "the ledger's answer was lost, and whether run {run} was accepted is unknown: the same request with the same Idempotency-Key (on the bus: the same run id) tells, as does GET /v1/runs/{run}"
    )]
    InDoubt {
        /// The run's id, if it was accepted.
        run: RunId,
        /// The failures since.
        #[source]
        cause: AcceptError,
    },
}
