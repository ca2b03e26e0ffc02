//! Every metric of the worker: name, kind, help, labels.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use baton_mcp::McpError;
use baton_metrics::{Label, Metric};
use baton_protocol::{ApprovalReason, Charge, FinishReason, Outcome};
use baton_traces::SampledSpan;
use metrics::{counter, gauge, histogram};

use crate::model::ModelError;
use crate::tools::CallEnd;

const RUNS_ENDED: &str = "baton_runs_ended_total";
const CLAIMS: &str = "baton_runs_claimed_total";
const QUEUE_WAIT: &str = "baton_run_queue_wait_seconds";
const RUN_DURATION: &str = "baton_run_duration_seconds";
const ACTIVE: &str = "baton_worker_active_runs";
const SLOTS: &str = "baton_worker_slots";
const HANDED_OVER: &str = "baton_runs_handed_over_total";
const PARKED: &str = "baton_runs_parked_total";
const QUESTIONS: &str = "baton_approvals_requested_total";
/// The labels of [`ApprovalReason::ALL`].
const QUESTION_REASONS: [&str; 4] = ["outcome_unknown", "approval_required", "budget", "input"];
const INPUTS_APPLIED: &str = "baton_run_inputs_applied_total";
const LEASES_LOST: &str = "baton_leases_lost_total";
const FENCED: &str = "baton_writes_fenced_total";
const DRAIN_CUT: &str = "baton_worker_drain_cut_runs_total";
const QUARANTINED: &str = "baton_jobs_quarantined_total";
const REQUESTS: &str = "baton_model_requests_total";
const TURNS: &str = "baton_model_turns_total";
const TURN_FAILURES: &str = "baton_model_turn_failures_total";
const TURN_DURATION: &str = "baton_model_turn_duration_seconds";
const COMPACTIONS: &str = "baton_worker_compactions_total";
const TURNS_WITHDRAWN: &str = "baton_model_turns_withdrawn_total";
const FALLBACKS: &str = "baton_model_fallbacks_total";
const UPSTREAM_UP: &str = "baton_model_upstream_up";
const OTHER_MODELS: &str = "baton_model_other_answers_total";
const FIRST_TOKEN: &str = "baton_model_first_token_seconds";
const TOKENS: &str = "baton_model_tokens_total";
const COST: &str = "baton_model_cost_nanos_total";
const BUDGET_STOPS: &str = "baton_worker_budget_stops_total";
const LIMITS_REACHED: &str = "baton_worker_limits_reached_total";
const BUDGET_WAITS: &str = "baton_worker_budget_waits_total";
const TOOL_CALLS: &str = "baton_tool_calls_total";
const TOOL_FAILURES: &str = "baton_tool_call_failures_total";
const TOOL_DURATION: &str = "baton_tool_call_duration_seconds";
const MCP_UP: &str = "baton_mcp_server_up";
const MCP_FAILURES: &str = "baton_mcp_failures_total";
const CANCEL_LATENCY: &str = "baton_cancel_latency_seconds";

/// Names that clients and models invent are not labels.
const OTHER: &str = "other";
const OK: &[&str] = &["true", "false"];
const DIRECTIONS: &[&str] = &["input", "cached", "output"];
const MODEL: Label = Label::bounded(
    "model",
    "the models that the configuration names (the default one, those with a price, and those with a route), and `other`",
);
const UPSTREAM: Label = Label::bounded("upstream", "the upstreams of the configuration");
const TOOL: Label = Label::bounded("tool", "the server's tools, and `other`");

const MCP_SERVER: Label = Label::bounded("server", "the MCP servers of the configuration");

/// All metrics of the worker.
pub const METRICS: &[Metric] = &[
    Metric::counter(
        RUNS_ENDED,
        "Runs ended by this worker, by terminal status",
        &[Label::of("status", &["completed", "failed", "cancelled"])],
    ),
    Metric::counter(
        CLAIMS,
        "Runs claimed, by whether it was the first attempt",
        &[Label::of("attempt", &["first", "later"])],
    ),
    Metric::histogram(QUEUE_WAIT, "From being queued to being claimed", &[]),
    Metric::histogram(RUN_DURATION, "From being accepted to being ended", &[]),
    Metric::gauge(ACTIVE, "Runs that this worker holds", &[]),
    Metric::gauge(SLOTS, "Runs that this worker may hold", &[]),
    Metric::counter(HANDED_OVER, "Runs given back for another worker", &[]),
    Metric::counter(PARKED, "Runs that were parked until a person decides", &[]),
    Metric::counter(
        QUESTIONS,
        "Calls that a person was asked about, by the reason",
        &[Label::of("reason", &QUESTION_REASONS)],
    ),
    Metric::counter(
        INPUTS_APPLIED,
        "Messages to working runs that became part of them",
        &[],
    ),
    Metric::counter(
        LEASES_LOST,
        "Attempts stopped because the run was, or may have been, another's",
        &[],
    ),
    Metric::counter(
        FENCED,
        "Writes of an attempt that were refused because a newer attempt has the run",
        &[Label::of("by", &["ledger", "log"])],
    ),
    Metric::counter(
        DRAIN_CUT,
        "Runs cut in the middle of a step because the drain's deadline had come",
        &[],
    ),
    Metric::counter(
        QUARANTINED,
        "Jobs that were moved to DEAD: unreadable, of runs that were given up, or for no consumer",
        &[],
    ),
    Metric::counter(
        REQUESTS,
        "Requests to the model server, retries included: `ok` if an answer began, else the error's code",
        &[Label::of("outcome", REQUEST_OUTCOMES)],
    ),
    Metric::counter(TURNS, "Model turns that ended well", &[MODEL]),
    Metric::counter(
        TURN_FAILURES,
        "Model turns that failed for good, by error code",
        &[Label::of("code", &ModelError::CODES)],
    ),
    Metric::counter(
        COMPACTIONS,
        "Conversations that were to be compacted, by whether the model wrote a whole summary",
        &[Label::of("result", &["made", "failed"])],
    ),
    Metric::counter(
        TURNS_WITHDRAWN,
        "Model turns that broke off in the middle, were withdrawn, and were asked for again",
        &[],
    ),
    Metric::counter(
        FALLBACKS,
        "Upstreams that a turn did not get an answer of, so that another one was asked: by the error's code, or `down` or `busy` if it was passed over",
        &[UPSTREAM, Label::of("reason", FALLBACK_REASONS)],
    ),
    Metric::gauge(
        UPSTREAM_UP,
        "Whether an upstream is asked in its turn (1), or passed over because it failed several times (0)",
        &[UPSTREAM],
    ),
    Metric::counter(
        OTHER_MODELS,
        "Model turns that another model answered than was asked, by whether that has a price",
        &[Label::of("priced", OK)],
    ),
    Metric::histogram(TURN_DURATION, "Length of a model turn", &[MODEL]),
    Metric::histogram(
        FIRST_TOKEN,
        "From asking the model to its first output",
        &[MODEL],
    ),
    Metric::counter(
        TOKENS,
        "Tokens as the upstream counted them, or as estimated if it did not; cached ones are part of the input",
        &[MODEL, Label::of("direction", DIRECTIONS)],
    ),
    Metric::counter(
        COST,
        "Cost of model turns at the configured prices, in billionths of their currency",
        &[MODEL],
    ),
    Metric::counter(
        BUDGET_STOPS,
        "Runs that ended because too little was left of their key's budget: for a turn, or for all of one",
        &[Label::of("turn", &["refused", "shortened"])],
    ),
    Metric::counter(
        LIMITS_REACHED,
        "Runs that ended at a limit of their own",
        &[Label::of(
            "limit",
            &["max_tokens", "max_cost", "max_tool_calls", "max_wall_time"],
        )],
    ),
    Metric::counter(
        BUDGET_WAITS,
        "Times that a run went back to the queue because other runs had its key's budget set aside",
        &[],
    ),
    Metric::counter(
        TOOL_CALLS,
        "Tool calls executed, by tool and success",
        &[TOOL, Label::of("ok", OK)],
    ),
    Metric::counter(
        TOOL_FAILURES,
        "Tool calls without a result, by the reason that the model is given",
        &[TOOL, Label::of("reason", CallEnd::FAILURES)],
    ),
    Metric::histogram(TOOL_DURATION, "Length of a tool call", &[TOOL]),
    Metric::gauge(
        MCP_UP,
        "Whether an MCP server could be used when it was last asked for its tools (1) or not (0)",
        &[MCP_SERVER],
    ),
    Metric::counter(
        MCP_FAILURES,
        "Times that an MCP server could not be asked for its tools or did not answer a call, by kind",
        &[MCP_SERVER, Label::of("kind", McpError::KINDS)],
    ),
    Metric::histogram(
        CANCEL_LATENCY,
        "From a run's cancel being asked for to the end of all work on it",
        &[],
    ),
];

const REQUEST_OUTCOMES: &[&str] = &{
    let mut all = ["ok"; ModelError::CODES.len() + 1];
    let mut at = 0;
    while at < ModelError::CODES.len() {
        all[at + 1] = ModelError::CODES[at];
        at += 1;
    }
    all
};

/// The codes of errors after which another upstream is asked, and the reasons for which one is passed
/// over.
const FALLBACK_REASONS: &[&str] = &[
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_rate_limited",
    "upstream_error",
    "upstream_cut",
    "down",
    "busy",
];

/// The names of models and tools that are labels; all others share one.
#[derive(Debug)]
pub(crate) struct KnownNames {
    models: HashSet<Arc<str>>,
    tools: HashSet<Arc<str>>,
}

impl KnownNames {
    pub(crate) fn new<'a>(
        models: impl IntoIterator<Item = &'a str>,
        tools: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let with_other = |name: &str| Arc::<str>::from(name);
        Self {
            models: models.into_iter().chain([OTHER]).map(with_other).collect(),
            tools: tools.into_iter().chain([OTHER]).map(with_other).collect(),
        }
    }

    fn model(&self, name: &str) -> Arc<str> {
        known(&self.models, name)
    }

    fn tool(&self, name: &str) -> Arc<str> {
        known(&self.tools, name)
    }
}

fn known(names: &HashSet<Arc<str>>, name: &str) -> Arc<str> {
    names.get(name).map_or_else(|| OTHER.into(), Arc::clone)
}

/// Registers all metrics, and creates the series of the known models and tools.
pub(crate) fn register(slots: usize, names: &KnownNames) {
    baton_metrics::register(METRICS);
    create_known_series(names);
    // Several workers may share a process.
    #[expect(clippy::cast_precision_loss, reason = "slots are few")]
    gauge!(SLOTS).increment(slots as f64);
}

/// Creates the series of the known models and tools.
pub(crate) fn create_known_series(names: &KnownNames) {
    for model in &names.models {
        for direction in DIRECTIONS {
            counter!(TOKENS, "model" => Arc::clone(model), "direction" => *direction).increment(0);
        }
        for name in [TURNS, COST] {
            counter!(name, "model" => Arc::clone(model)).increment(0);
        }
        for name in [TURN_DURATION, FIRST_TOKEN] {
            drop(histogram!(name, "model" => Arc::clone(model)));
        }
    }
    for tool in &names.tools {
        for ok in OK {
            counter!(TOOL_CALLS, "tool" => Arc::clone(tool), "ok" => *ok).increment(0);
        }
        for reason in CallEnd::FAILURES {
            counter!(TOOL_FAILURES, "tool" => Arc::clone(tool), "reason" => *reason).increment(0);
        }
        drop(histogram!(TOOL_DURATION, "tool" => Arc::clone(tool)));
    }
}

pub(crate) fn run_claimed(attempt: u32, waited: Duration) {
    let attempt = if attempt == 1 { "first" } else { "later" };
    counter!(CLAIMS, "attempt" => attempt).increment(1);
    histogram!(QUEUE_WAIT).record(waited);
}

/// Counts as an active run until dropped.
pub(crate) struct ActiveRun(());

impl ActiveRun {
    pub(crate) fn begin() -> Self {
        gauge!(ACTIVE).increment(1.0);
        Self(())
    }
}

impl Drop for ActiveRun {
    fn drop(&mut self) {
        gauge!(ACTIVE).decrement(1.0);
    }
}

pub(crate) fn run_ended(outcome: &Outcome) {
    counter!(RUNS_ENDED, "status" => outcome.status().as_str()).increment(1);
}

/// Records the cancel latency of a run that its holder, or a claim, has just ended.
pub(crate) fn run_cancelled(latency: Duration) {
    histogram!(CANCEL_LATENCY).record(latency);
}

pub(crate) fn run_duration(duration: Duration) {
    histogram!(RUN_DURATION).record(duration);
}

/// Makes a span the example of the time of its run, which is measured when the attempt is over.
pub(crate) fn run_example(span: Option<SampledSpan>, duration: Duration) {
    if let Some(span) = span {
        span.exemplifies(RUN_DURATION, &[], duration);
    }
}

pub(crate) fn compaction(result: &'static str) {
    counter!(COMPACTIONS, "result" => result).increment(1);
}

pub(crate) fn run_handed_over() {
    counter!(HANDED_OVER).increment(1);
}

pub(crate) fn run_parked() {
    counter!(PARKED).increment(1);
}

pub(crate) fn questions_asked(reasons: impl Iterator<Item = ApprovalReason>) {
    for reason in reasons {
        counter!(QUESTIONS, "reason" => question_reason(reason)).increment(1);
    }
}

const fn question_reason(reason: ApprovalReason) -> &'static str {
    match reason {
        ApprovalReason::OutcomeUnknown => QUESTION_REASONS[0],
        ApprovalReason::ApprovalRequired => QUESTION_REASONS[1],
        ApprovalReason::Budget => QUESTION_REASONS[2],
        ApprovalReason::Input => QUESTION_REASONS[3],
    }
}

pub(crate) fn input_applied() {
    counter!(INPUTS_APPLIED).increment(1);
}

pub(crate) fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

pub(crate) fn job_quarantined() {
    counter!(QUARANTINED).increment(1);
}

/// Counts a write that the ledger refused.
pub(crate) fn fenced_by_ledger() {
    counter!(FENCED, "by" => "ledger").increment(1);
}

/// Counts an append that the run's log refused, or that found a newer attempt's events.
pub(crate) fn fenced_by_log() {
    counter!(FENCED, "by" => "log").increment(1);
}

pub(crate) fn drain_cut(runs: usize) {
    counter!(DRAIN_CUT).increment(runs as u64);
}

pub(crate) fn model_request(outcome: Result<(), &ModelError>) {
    let outcome = outcome.err().map_or("ok", ModelError::code);
    counter!(REQUESTS, "outcome" => outcome).increment(1);
}

pub(crate) fn first_token(
    names: &KnownNames,
    model: &str,
    span: Option<SampledSpan>,
    after: Duration,
) {
    let model = names.model(model);
    if let Some(span) = span {
        span.exemplifies(FIRST_TOKEN, &[("model", &*model)], after);
    }
    histogram!(FIRST_TOKEN, "model" => model).record(after);
}

pub(crate) fn model_turn(
    names: &KnownNames,
    model: &str,
    span: Option<SampledSpan>,
    charge: &Charge,
    duration: Duration,
) {
    let model = names.model(model);
    if let Some(span) = span {
        span.exemplifies(TURN_DURATION, &[("model", &*model)], duration);
    }
    counter!(TURNS, "model" => Arc::clone(&model)).increment(1);
    histogram!(TURN_DURATION, "model" => Arc::clone(&model)).record(duration);
    let tokens = [
        charge.input_tokens,
        charge.cached_tokens,
        charge.output_tokens,
    ];
    for (direction, count) in DIRECTIONS.iter().zip(tokens) {
        counter!(TOKENS, "model" => Arc::clone(&model), "direction" => *direction).increment(count);
    }
    if let Some(cost) = charge.cost {
        counter!(COST, "model" => model).increment(cost.0);
    }
}

/// Counts a run that ended because of its key's budget: before a turn, or with a turn that the
/// budget shortened.
pub(crate) fn budget_stop(turn: &'static str) {
    counter!(BUDGET_STOPS, "turn" => turn).increment(1);
}

/// Counts a run that a limit of its own ended.
pub(crate) fn limit_reached(reason: FinishReason) {
    let limit = match reason {
        FinishReason::MaxTokens
        | FinishReason::MaxCost
        | FinishReason::MaxToolCalls
        | FinishReason::MaxWallTime => reason.as_str(),
        FinishReason::Stop
        | FinishReason::Length
        | FinishReason::ToolCalls
        | FinishReason::ContentFilter
        | FinishReason::MaxTurns
        | FinishReason::Budget => return,
    };
    counter!(LIMITS_REACHED, "limit" => limit).increment(1);
}

/// Counts a run that goes back to the queue because other runs have reserved its key's budget.
pub(crate) fn budget_wait() {
    counter!(BUDGET_WAITS).increment(1);
}

pub(crate) fn model_turn_failed(code: &'static str) {
    counter!(TURN_FAILURES, "code" => code).increment(1);
}

/// Counts an upstream that is left for another one.
pub(crate) fn fallback(upstream: &Arc<str>, reason: &'static str) {
    counter!(FALLBACKS, "upstream" => Arc::clone(upstream), "reason" => reason).increment(1);
}

/// Shows whether an upstream is asked in its turn, or passed over.
pub(crate) fn upstream_up(upstream: &Arc<str>, up: bool) {
    gauge!(UPSTREAM_UP, "upstream" => Arc::clone(upstream)).set(if up { 1.0 } else { 0.0 });
}

/// Creates the series of an upstream.
pub(crate) fn create_upstream_series(upstream: &Arc<str>, up: bool) {
    upstream_up(upstream, up);
    for reason in FALLBACK_REASONS {
        counter!(FALLBACKS, "upstream" => Arc::clone(upstream), "reason" => *reason).increment(0);
    }
}

/// Shows whether an MCP server can be used.
pub(crate) fn mcp_up(server: &Arc<str>, up: bool) {
    gauge!(MCP_UP, "server" => Arc::clone(server)).set(if up { 1.0 } else { 0.0 });
}

/// Counts a failure of an MCP server.
pub(crate) fn mcp_failed(server: &Arc<str>, error: &McpError) {
    counter!(MCP_FAILURES, "server" => Arc::clone(server), "kind" => error.kind()).increment(1);
}

/// Creates the series of an MCP server's failures.
pub(crate) fn create_mcp_series(server: &Arc<str>) {
    for kind in McpError::KINDS {
        counter!(MCP_FAILURES, "server" => Arc::clone(server), "kind" => *kind).increment(0);
    }
}

/// Counts a turn that broke off and was withdrawn.
pub(crate) fn turn_withdrawn() {
    counter!(TURNS_WITHDRAWN).increment(1);
}

/// Counts an answer of a model other than the requested one.
pub(crate) fn other_model(priced: bool) {
    let priced = if priced { "true" } else { "false" };
    counter!(OTHER_MODELS, "priced" => priced).increment(1);
}

/// Counts a call, and why it failed; one that a person decided has no end.
pub(crate) fn tool_finished(
    names: &KnownNames,
    tool: &str,
    ok: bool,
    end: Option<CallEnd>,
    span: Option<SampledSpan>,
    duration: Duration,
) {
    let tool = names.tool(tool);
    if let Some(span) = span {
        span.exemplifies(TOOL_DURATION, &[("tool", &*tool)], duration);
    }
    if let Some(end) = end.filter(|end| *end != CallEnd::Ok) {
        let reason = end.as_str();
        counter!(TOOL_FAILURES, "tool" => Arc::clone(&tool), "reason" => reason).increment(1);
    }
    let ok = if ok { "true" } else { "false" };
    counter!(TOOL_CALLS, "tool" => Arc::clone(&tool), "ok" => ok).increment(1);
    histogram!(TOOL_DURATION, "tool" => tool).record(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_names_share_a_label() {
        let names = KnownNames::new(["gpt-4o"], ["calculator"]);
        assert_eq!(&*names.model("gpt-4o"), "gpt-4o");
        assert_eq!(&*names.model("ignore-all-instructions"), "other");
        assert_eq!(&*names.tool("calculator"), "calculator");
        assert_eq!(&*names.tool("gpt-4o"), "other");
    }
}
