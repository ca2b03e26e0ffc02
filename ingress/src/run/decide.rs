//! Decides the questions that a parked run waits for: about tool calls, a limit of the run, or the input of a
//! tool's server. The row decides; the job that
//! follows only saves time.

use std::borrow::Cow;

use baton_admission::tool_arguments;
use baton_nats::{Bus, JobHeaders};
use baton_protocol::{
    ApiKeyId, ApprovalId, ApprovalScope, Decision, InvalidLimit, Nanos, RequestLimits,
    RequestedInput, RunId, TenantId,
};
use baton_store::{ApprovalRecord, AuditEntry, DecideOutcome, RaiseBounds, Store, TenantTx};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::metrics;

/// The dependencies of a decision.
#[derive(Clone)]
pub(crate) struct Decider {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
}

/// A decision about one question, with its entry in the audit log.
pub(crate) struct Wish<'a> {
    pub(crate) approval: ApprovalId,
    pub(crate) decision: &'a Decision,
    /// Committed with the decision.
    pub(crate) audit: AuditEntry,
}

impl Decider {
    /// Decides a question once. Repeating the same decision is neither an error nor another entry.
    pub(crate) async fn decide(
        &self,
        tenant: TenantId,
        run: RunId,
        by: Option<ApiKeyId>,
        wish: Wish<'_>,
    ) -> Result<(), ApiError> {
        let outcomes = self.decide_all(tenant, run, by, &[wish]).await?;
        outcomes.into_iter().collect()
    }

    /// Decides questions of one run in one commit, each as [`Decider::decide`] does. A refused one leaves the
    /// others as they are. An error means that none is decided.
    pub(crate) async fn decide_all(
        &self,
        tenant: TenantId,
        run: RunId,
        by: Option<ApiKeyId>,
        wishes: &[Wish<'_>],
    ) -> Result<Vec<Result<(), ApiError>>, ApiError> {
        let mut tx = self.store.tenant(tenant).await?;
        let mut outcomes = Vec::with_capacity(wishes.len());
        let mut decided = Vec::new();
        let mut job = None;
        for wish in wishes {
            let decision = match check(&mut tx, run, wish).await? {
                Ok(decision) => decision,
                Err(refusal) => {
                    outcomes.push(Err(refusal));
                    continue;
                }
            };
            let outcome = tx.decide(run, wish.approval, &decision, by).await?;
            if let DecideOutcome::Decided { newly, queued } = &outcome {
                if *newly {
                    tx.record_audit(&wish.audit).await?;
                    decided.push(wish);
                }
                job = job.or(*queued);
            }
            outcomes.push(refusal(outcome));
        }
        tx.commit().await?;
        for wish in decided {
            metrics::approval_decided(wish.decision);
            tracing::info!(run.id = %run, approval.id = %wish.approval,
                           decision = wish.decision.as_str(), "a parked call was decided");
        }
        if let Some(job) = job {
            let headers = JobHeaders::default();
            let published = self.bus.publish_or_leave(tenant, job.lane, run, &headers);
            let _left = published.await;
        }
        Ok(outcomes)
    }
}

/// Checks the texts, arguments, limits and content of a decision. Returns the decision, in which the defaults of
/// the asked schema fill the content. The outer error is a fault of the ledger.
async fn check<'a>(
    tx: &mut TenantTx,
    run: RunId,
    wish: &Wish<'a>,
) -> Result<Result<Cow<'a, Decision>, ApiError>, ApiError> {
    let as_wished = Cow::Borrowed(wish.decision);
    let text = wish.decision.text();
    if text.is_some_and(|text| text.len() > Decision::MAX_TEXT) {
        let message = format!("the text may be at most {} bytes long", Decision::MAX_TEXT);
        let refusal = ApiError::new(StatusCode::BAD_REQUEST, "text_too_long", message);
        return Ok(Err(refusal));
    }
    let arguments = wish.decision.edited_arguments();
    let limits = wish.decision.raised_limits();
    let accepts = matches!(wish.decision, Decision::Accept { .. });
    if arguments.is_none() && limits.is_none() && !accepts {
        return Ok(Ok(as_wished));
    }
    let asked = tx.run_approvals(run).await?;
    let Some(asked) = asked.into_iter().find(|asked| asked.id == wish.approval) else {
        return Ok(Err(ApiError::no_such_approval()));
    };
    if let Some(arguments) = arguments {
        return Ok(check_arguments(&asked, arguments).map(|()| as_wished));
    }
    if accepts {
        // A question about something else is refused with its own reason.
        let Some(input) = &asked.input else {
            return Ok(Ok(as_wished));
        };
        let content = check_content(input, wish.decision.content());
        return Ok(content.map(|content| Cow::Owned(Decision::Accept { content })));
    }
    // A question that is decided, or about something else, is refused with its own reason.
    let (Some(limits), Some(reached), None) = (limits, &asked.reached, &asked.decided) else {
        return Ok(Ok(as_wished));
    };
    let Some(bounds) = tx.raise_bounds(run).await? else {
        return Ok(Err(ApiError::no_such_run()));
    };
    let checked = reached
        .check_raise(limits, bounds.lived)
        .and_then(|()| within_key(limits, &bounds));
    let checked = checked.map(|()| as_wished);
    Ok(checked.map_err(|InvalidLimit { field, message }| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_limit", message)
            .param(format!("limits.{field}"))
    }))
}

/// Refuses limits above the monthly budgets of the run's key.
fn within_key(limits: &RequestLimits, bounds: &RaiseBounds) -> Result<(), InvalidLimit> {
    let above = |field: &'static str, most: String| {
        let message = format!(
            "the run's key has a monthly budget of {most}: set `{field}` to no more than that"
        );
        Err(InvalidLimit { field, message })
    };
    let asked = limits.read()?;
    let (tokens, cost) = (asked.max_tokens, asked.max_cost_nanos.map(Nanos));
    match (bounds.tokens, bounds.cost) {
        (Some(most), _) if tokens.is_some_and(|tokens| tokens > most) => {
            above("max_tokens", most.to_string())
        }
        (_, Some(most)) if cost.is_some_and(|cost| cost > most) => {
            above("max_cost", most.to_string())
        }
        _ => Ok(()),
    }
}

/// Returns the error of a question that is not decided as wished.
fn refusal(outcome: DecideOutcome) -> Result<(), ApiError> {
    let conflict = |code, message: String| ApiError::new(StatusCode::CONFLICT, code, message);
    Err(match outcome {
        DecideOutcome::Decided { .. } => return Ok(()),
        DecideOutcome::NotFound => ApiError::no_such_approval(),
        DecideOutcome::NotAnOption(reason) => ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_decision",
            format!(
                "the run waits because: {}. Decide {}",
                reason.as_str(),
                reason.options().join(" or ")
            ),
        ),
        DecideOutcome::AlreadyDecided(earlier) => conflict(
            "already_decided",
            format!("this was decided before: {}", earlier.as_str()),
        ),
        DecideOutcome::Expired => conflict(
            "approval_expired",
            "nobody decided in time: the question is closed".to_owned(),
        ),
        DecideOutcome::NoThread => ApiError::new(
            StatusCode::BAD_REQUEST,
            "no_thread",
            "the run is on no thread: approve with `\"scope\": \"run\"` or `\"once\"`",
        )
        .param("scope"),
        DecideOutcome::Ended(status) => conflict(
            "run_ended",
            format!("the run has ended ({status}): there is nothing left to decide"),
        ),
    })
}

/// Returns a decision in the words of the audit log.
pub(crate) fn words(decision: &Decision) -> Cow<'static, str> {
    if let Some(limits) = decision.raised_limits() {
        return Cow::Owned(format!("raise {}", serde_json::json!(limits)));
    }
    let edited = decision.edited_arguments().is_some();
    let plain = match (decision.scope(), edited) {
        (ApprovalScope::Once, false) => decision.as_str(),
        (ApprovalScope::Once, true) => "approve, with other arguments",
        (ApprovalScope::Run, false) => "approve, for the run",
        (ApprovalScope::Run, true) => "approve, with other arguments, for the run",
        (ApprovalScope::Thread, false) => "approve, for the thread",
        (ApprovalScope::Thread, true) => "approve, with other arguments, for the thread",
    };
    Cow::Borrowed(plain)
}

/// A stored schema of a tool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the schema that was stored with a question cannot be used: {0}")]
struct UnusableSchema(String);

/// Checks the content that a person gives to the server of a tool: its length, and its match with the schema of
/// the question. Returns it with the defaults of the schema.
fn check_content(
    input: &RequestedInput,
    content: Option<&Map<String, Value>>,
) -> Result<Option<Map<String, Value>>, ApiError> {
    let invalid = |message: String| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Err(ApiError::new(status, "invalid_content", message).param("content"))
    };
    let Some(schema) = input.schema() else {
        return match content {
            None => Ok(None),
            Some(_) => invalid("the question takes no `content`: leave it out".to_owned()),
        };
    };
    let filled = input.filled(content).map(Value::Object).unwrap_or_default();
    if filled.to_string().len() > Decision::MAX_TEXT {
        let most = Decision::MAX_TEXT;
        return invalid(format!("`content` may be at most {most} bytes of JSON"));
    }
    // The worker that asked has compiled it.
    let schema = tool_arguments::compile(&schema)
        .map_err(|error| ApiError::internal(&UnusableSchema(error)))?;
    match (tool_arguments::mistakes(&schema, &filled), filled) {
        (None, Value::Object(filled)) => Ok(Some(filled)),
        (mistakes, _) => invalid(format!(
            "`content` does not match the schema of the question:{}",
            mistakes.unwrap_or_default()
        )),
    }
}

/// Checks arguments that a person gives in place of the model's: their length, and their match with the schema
/// that the tool had when the question was asked.
fn check_arguments(asked: &ApprovalRecord, arguments: &Map<String, Value>) -> Result<(), ApiError> {
    let invalid = |message: String| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Err(ApiError::new(status, "invalid_arguments", message).param("arguments"))
    };
    let arguments = Value::Object(arguments.clone());
    if arguments.to_string().len() > Decision::MAX_TEXT {
        let most = Decision::MAX_TEXT;
        return invalid(format!("`arguments` may be at most {most} bytes of JSON"));
    }
    let Some(parameters) = &asked.parameters else {
        return Ok(());
    };
    // The worker that asked has compiled it.
    let schema = serde_json::from_str(parameters)
        .map_err(|error| error.to_string())
        .and_then(|schema| tool_arguments::compile(&schema))
        .map_err(|error| ApiError::internal(&UnusableSchema(error)))?;
    match tool_arguments::mistakes(&schema, &arguments) {
        None => Ok(()),
        Some(mistakes) => invalid(format!(
            "`arguments` do not match the schema of `{}`:{mistakes}",
            asked.name
        )),
    }
}
