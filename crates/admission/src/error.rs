//! Refusals of submissions.

pub use baton_protocol::Invalid;
use baton_protocol::RunId;
use baton_store::{AcceptError, Budget, StoreError};
use chrono::NaiveDate;

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
    /// The tenant has no such thread.
    #[error("there is no thread with this id")]
    ThreadNotFound,
    /// A run of the thread has not ended.
    #[error(
        "a run of this thread has not ended: wait for its end, cancel it, or send `\"on_busy\": \"queue\"`"
    )]
    ThreadBusy,
    /// The tenant has reached its limit of queued runs.
    #[error("this tenant already has {limit} queued runs, as many as it may: try again later")]
    TenantQueueFull {
        /// The limit.
        limit: u32,
    },
    /// All tenants together have reached the limit of queued runs.
    #[error("the system is full: try again later")]
    SystemQueueFull,
    /// The API key has reached its limit of runs that are queued or running.
    #[error(
        "this API key already has {limit} runs queued or at work, as many as it may: try again when one has ended"
    )]
    ConcurrencyLimit {
        /// The limit.
        limit: u32,
    },
    /// The API key's budget for this month is too small for the request.
    #[error("this API key's {} is used up, or what is left is too little for this request: there is another one from {until} on", .budget.of_what())]
    BudgetExceeded {
        /// The exceeded budget.
        budget: Budget,
        /// The day on which the next budget begins, UTC.
        until: NaiveDate,
        /// The time until then.
        seconds: u32,
    },
    /// The rest of the API key's budget is reserved for its other runs.
    #[error(
        "what is left of this API key's budget is set aside for its other runs: try again when one has ended"
    )]
    BudgetReserved,
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
    /// The idempotency key was used with another request.
    #[error("this Idempotency-Key was used with a different request: use a fresh key for it")]
    KeyReused,
    /// The run's id, which the caller generated, names another run: of another request, or of
    /// another caller.
    #[error(
        "this run id is taken: draw a fresh UUIDv7 for each run, and repeat it only with the same request"
    )]
    RunIdTaken,
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
