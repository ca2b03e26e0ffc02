//! Errors of other parts, converted to errors of the API: a submission's, the ledger's, the
//! broker's, a run's.

use baton_admission::{Invalid, SubmitError};
use baton_protocol::{RunError, RunId};
use baton_service::RequestTrace;
use baton_store::{Refusal, StoreError};
use http::StatusCode;

use super::ApiError;

/// The code for a used-up budget. OpenAI uses its word for that as the error's class.
pub(super) const BUDGET_EXCEEDED: &str = "budget_exceeded";

impl ApiError {
    /// Reports that an accepted run is active, but cannot be answered here: not a refusal. With an
    /// `Idempotency-Key` (`keyed`) the same request finds the run again; without one it would
    /// create another.
    pub(crate) fn goes_on(run: RunId, code: &'static str, why: &str, keyed: bool) -> Self {
        let again = if keyed {
            ", or send this request again with its Idempotency-Key"
        } else {
            ""
        };
        let message =
            format!("{why}; run {run} was accepted and goes on: GET /v1/runs/{run}{again}");
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).of_run(run);
        if keyed {
            error.retry_after(1)
        } else {
            error.do_not_retry()
        }
    }

    /// Converts a run's failure into the answer to a request that waited for it. The official
    /// client libraries retry automatically after a 429 or a 5xx, which creates another run. That
    /// is harmless if the upstream accepted no request of this run; otherwise the same work is paid
    /// for twice. `worked` says whether the run had done or shown anything before it failed.
    pub(crate) fn run_failed(run: RunId, error: &RunError, worked: bool) -> Self {
        // The status may say that the client is to blame.
        RequestTrace::current().fail("run_failed");
        let mut failed = Self::new(
            status_of_error(error),
            code_of_error(error).to_owned(),
            format!("run {run} failed: {}", error.message),
        )
        .of_run(run);
        let upstream = error.upstream.as_deref();
        failed.param = upstream.and_then(|upstream| upstream.param.clone());
        if let Some(pause) = upstream.and_then(|upstream| upstream.retry_after_ms) {
            failed = failed.retry_after(pause.div_ceil(1_000).try_into().unwrap_or(u32::MAX));
        }
        let is_hopeless = code_of_error(error) == "insufficient_quota";
        if is_hopeless || worked || !costs_nothing(&error.code) {
            failed.do_not_retry()
        } else {
            failed
        }
    }
}

/// Returns the code that a client acts on: the model server's own, if its refusal has one.
pub(crate) fn code_of_error(error: &RunError) -> &str {
    let upstream = error.upstream.as_deref();
    upstream
        .and_then(|upstream| upstream.code.as_deref())
        .unwrap_or(&error.code)
}

/// Returns the status of a run's failure. A prompt that is too long is the client's error, even if
/// the model server noticed only after its answer had begun.
pub(crate) fn status_of_error(error: &RunError) -> StatusCode {
    if code_of_error(error) == "context_length_exceeded" {
        StatusCode::BAD_REQUEST
    } else {
        status_of_failed_run(&error.code)
    }
}

/// Returns the status of a failed run for a client that waited for the answer.
pub(crate) fn status_of_failed_run(code: &str) -> StatusCode {
    match code {
        "upstream_timeout" | "upstream_first_byte_timeout" | "upstream_idle_timeout" => {
            StatusCode::GATEWAY_TIMEOUT
        }
        "upstream_rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "upstream_overloaded" | "upstream_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "model_not_found" => StatusCode::NOT_FOUND,
        "api_key_revoked" => StatusCode::UNAUTHORIZED,
        "scope_missing" | "model_not_allowed" | "tool_not_allowed" | "price_unknown" => {
            StatusCode::FORBIDDEN
        }
        "upstream_rejected"
        | "upstream_refused"
        | "context_length_exceeded"
        | "invalid_request" => StatusCode::BAD_REQUEST,
        code if code.starts_with("upstream") => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns whether a turn that failed like this has used nothing: the upstream was not reached, or
/// refused. An upstream that fell silent or broke off may have done work.
fn costs_nothing(code: &str) -> bool {
    matches!(
        code,
        "upstream_unreachable" | "upstream_rate_limited" | "upstream_error"
    )
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, invalid.code, invalid.message);
        match invalid.param {
            Some(param) => error.param(param),
            None => error,
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Invalid(invalid) => invalid.into(),
            SubmitError::UnknownAgent(_) => {
                Self::new(StatusCode::NOT_FOUND, "agent_not_found", message).param("agent")
            }
            SubmitError::NoRoute(_) => {
                Self::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
            }
            SubmitError::UnknownTool(_) => {
                Self::new(StatusCode::NOT_FOUND, "tool_not_found", message)
            }
            SubmitError::ToolNotAllowed(_) => Self::forbidden("tool_not_allowed", message),
            SubmitError::ModelNotAllowed(_) => {
                Self::forbidden("model_not_allowed", message).param("model")
            }
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::PriceUnknown(_) => {
                Self::forbidden("price_unknown", message).param("model")
            }
            SubmitError::CostUnknown(_) => {
                Self::forbidden("price_unknown", message).param("limits.max_cost")
            }
            SubmitError::BrokerDown => Self::unavailable("broker_unavailable", message),
            SubmitError::Store(error) => error.into(),
            SubmitError::InDoubt { run, ref cause } => {
                tracing::error!(
                    error = cause as &dyn std::error::Error,
                    run.id = %run,
                    "the answer to a commit was lost"
                );
                Self::unavailable("acceptance_unknown", message).of_run(run)
            }
        }
    }
}

/// The table of the ledger's refusals, for HTTP and the bus.
impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let of = |status, code| Self::new(status, code, &*message);
        match refusal {
            Refusal::KeyReused => of(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Refusal::IdTaken => of(StatusCode::CONFLICT, "run_id_taken").param("run_id"),
            Refusal::ThreadNotFound => {
                of(StatusCode::NOT_FOUND, "thread_not_found").param("thread_id")
            }
            Refusal::ThreadBusy => of(StatusCode::CONFLICT, "thread_busy")
                .param("thread_id")
                .do_not_retry(),
            Refusal::AlreadyAnswered => of(StatusCode::CONFLICT, "already_decided").do_not_retry(),
            Refusal::AnsweredLate => of(StatusCode::CONFLICT, "approval_expired").do_not_retry(),
            // No door answers with it.
            Refusal::TitleNotWanted => of(StatusCode::CONFLICT, "title_not_wanted"),
            Refusal::InputsFull => {
                of(StatusCode::TOO_MANY_REQUESTS, "too_many_messages").retry_after(1)
            }
            Refusal::TenantQueueFull { .. } => {
                of(StatusCode::TOO_MANY_REQUESTS, "queue_full").retry_after(2)
            }
            Refusal::SystemQueueFull { .. } => {
                of(StatusCode::SERVICE_UNAVAILABLE, "system_full").retry_after(5)
            }
            Refusal::TooManyRuns { .. } => {
                of(StatusCode::TOO_MANY_REQUESTS, "concurrency_limit").retry_after(2)
            }
            Refusal::BudgetExceeded { seconds, .. } => {
                of(StatusCode::TOO_MANY_REQUESTS, BUDGET_EXCEEDED)
                    .retry_after(seconds)
                    .do_not_retry()
            }
            Refusal::BudgetReserved => {
                of(StatusCode::TOO_MANY_REQUESTS, "budget_reserved").retry_after(2)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the ledger failed a request"
        );
        if error.is_bad_value() {
            return Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_value",
                "the request holds a value that cannot be stored, such as text with a NUL character: \
                 leave it out",
            );
        }
        Self::unavailable(
            "ledger_unavailable",
            "the ledger cannot be reached: try again",
        )
    }
}

impl From<baton_nats::BusError> for ApiError {
    fn from(error: baton_nats::BusError) -> Self {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the broker failed a request"
        );
        Self::unavailable(
            "broker_unavailable",
            "the message broker cannot be reached: try again",
        )
    }
}

#[cfg(test)]
mod tests {
    use baton_protocol::UpstreamError;

    use super::*;

    #[test]
    fn failures_of_the_upstream_are_told_apart() {
        for (code, status) in [
            ("upstream_timeout", 504),
            ("upstream_unreachable", 502),
            ("upstream_cut", 502),
            ("upstream_rate_limited", 429),
            ("max_failures", 500),
        ] {
            assert_eq!(status_of_failed_run(code).as_u16(), status, "{code}");
        }
    }

    #[test]
    fn a_refusing_upstreams_code_param_and_pause_reach_the_client() {
        let failed = |code: &str, upstream: UpstreamError| {
            let error = RunError {
                upstream: Some(Box::new(upstream)),
                ..RunError::new(code, "why")
            };
            ApiError::run_failed(RunId::from_uuid(uuid::Uuid::nil()), &error, false)
        };
        let error = failed(
            "upstream_rejected",
            UpstreamError {
                code: Some("context_length_exceeded".to_owned()),
                param: Some("messages".to_owned()),
                retry_after_ms: None,
            },
        );
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert_eq!(error.code, "context_length_exceeded");
        assert_eq!(error.param.as_deref(), Some("messages"));

        let pause = UpstreamError {
            retry_after_ms: Some(6_001),
            ..UpstreamError::default()
        };
        let error = failed("upstream_rate_limited", pause);
        assert_eq!(error.headers.get("retry-after").unwrap(), "7");
        assert_eq!(
            error.headers.get("x-should-retry"),
            None,
            "the SDKs may wait and repeat"
        );

        let spent = UpstreamError {
            code: Some("insufficient_quota".to_owned()),
            ..UpstreamError::default()
        };
        let error = failed("upstream_rate_limited", spent);
        assert_eq!(error.headers.get("x-should-retry").unwrap(), "false");
    }
}
