//! The worker's metrics: every name, unit, help text and label stands here.

use std::time::Duration;

use baton_protocol::{Outcome, Usage};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const RUNS_ENDED: &str = "baton_runs_ended_total";
const CLAIMS: &str = "baton_runs_claimed_total";
const QUEUE_WAIT: &str = "baton_run_queue_wait_seconds";
const RUN_DURATION: &str = "baton_run_duration_seconds";
const ACTIVE: &str = "baton_worker_active_runs";
const SLOTS: &str = "baton_worker_slots";
const HANDED_OVER: &str = "baton_runs_handed_over_total";
const PARKED: &str = "baton_runs_parked_total";
const LEASES_LOST: &str = "baton_leases_lost_total";
const QUARANTINED: &str = "baton_jobs_quarantined_total";
const TURNS: &str = "baton_model_turns_total";
const TURN_FAILURES: &str = "baton_model_turn_failures_total";
const TURN_DURATION: &str = "baton_model_turn_duration_seconds";
const FIRST_TOKEN: &str = "baton_model_first_token_seconds";
const TOKENS: &str = "baton_model_tokens_total";
const BUDGET_STOPS: &str = "baton_worker_budget_stops_total";
const BUDGET_WAITS: &str = "baton_worker_budget_waits_total";
const TOOL_CALLS: &str = "baton_tool_calls_total";
const CANCEL_LATENCY: &str = "baton_cancel_latency_seconds";
const TOOL_DURATION: &str = "baton_tool_call_duration_seconds";

/// Describes every metric, and makes those whose labels are known appear with 0, so that a rate
/// over the first event is not lost.
pub(crate) fn describe(slots: usize) {
    describe_counter!(RUNS_ENDED, "Runs ended by this worker, by terminal status");
    describe_counter!(CLAIMS, "Runs claimed, by whether it was the first attempt");
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "From being queued to being claimed"
    );
    describe_histogram!(
        RUN_DURATION,
        Unit::Seconds,
        "From being accepted to being ended"
    );
    describe_gauge!(ACTIVE, "Runs that this worker holds");
    describe_gauge!(SLOTS, "Runs that this worker may hold");
    describe_counter!(PARKED, "Runs that were parked until a person decides");
    describe_counter!(HANDED_OVER, "Runs given back for another worker");
    describe_counter!(
        LEASES_LOST,
        "Attempts stopped because the run was, or may have been, another's"
    );
    describe_counter!(
        QUARANTINED,
        "Jobs set aside in DEAD: unreadable, or of runs that were given up"
    );
    describe_counter!(TURNS, "Model turns that ended well, by model");
    describe_counter!(TURN_FAILURES, "Model turns that failed, by error code");
    describe_histogram!(TURN_DURATION, Unit::Seconds, "Length of a model turn");
    describe_histogram!(
        FIRST_TOKEN,
        Unit::Seconds,
        "From asking the model to its first output"
    );
    describe_counter!(
        TOKENS,
        "Tokens as the upstream counted them, by model and direction"
    );
    describe_counter!(TOOL_CALLS, "Tool calls executed, by tool and success");
    describe_histogram!(
        CANCEL_LATENCY,
        Unit::Seconds,
        "From a run's cancel being asked for to the end of all work on it"
    );
    describe_histogram!(
        TOOL_DURATION,
        Unit::Seconds,
        "Length of a tool call, by tool"
    );

    describe_counter!(
        BUDGET_STOPS,
        "Runs that ended because too little was left of their key's budget: for a turn, or for all of one"
    );
    describe_counter!(
        BUDGET_WAITS,
        "Times that a run went back to the queue because other runs had its key's budget set aside"
    );
    counter!(BUDGET_WAITS).absolute(0);
    for turn in ["refused", "shortened"] {
        counter!(BUDGET_STOPS, "turn" => turn).absolute(0);
    }

    for status in ["completed", "failed", "cancelled"] {
        counter!(RUNS_ENDED, "status" => status).absolute(0);
    }
    for attempt in ["first", "later"] {
        counter!(CLAIMS, "attempt" => attempt).absolute(0);
    }
    for name in [HANDED_OVER, PARKED, LEASES_LOST, QUARANTINED] {
        counter!(name).absolute(0);
    }
    gauge!(ACTIVE).set(0.0);
    #[expect(clippy::cast_precision_loss, reason = "slots are few")]
    gauge!(SLOTS).set(slots as f64);
}

pub(crate) fn run_claimed(attempt: u32, waited: Duration) {
    let attempt = if attempt == 1 { "first" } else { "later" };
    counter!(CLAIMS, "attempt" => attempt).increment(1);
    histogram!(QUEUE_WAIT).record(waited);
}

/// Counts among the active runs for as long as it lives.
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

/// Of a run that its holder, or a claim, has just ended because it was to be cancelled.
pub(crate) fn run_cancelled(latency: Duration) {
    histogram!(CANCEL_LATENCY).record(latency);
}

pub(crate) fn run_duration(duration: Duration) {
    histogram!(RUN_DURATION).record(duration);
}

pub(crate) fn run_handed_over() {
    counter!(HANDED_OVER).increment(1);
}

pub(crate) fn run_parked() {
    counter!(PARKED).increment(1);
}

pub(crate) fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

pub(crate) fn job_quarantined() {
    counter!(QUARANTINED).increment(1);
}

pub(crate) fn first_token(after: Duration) {
    histogram!(FIRST_TOKEN).record(after);
}

pub(crate) fn model_turn(model: &str, usage: Usage, duration: Duration) {
    counter!(TURNS, "model" => model.to_owned()).increment(1);
    histogram!(TURN_DURATION).record(duration);
    counter!(TOKENS, "model" => model.to_owned(), "direction" => "input")
        .increment(usage.prompt_tokens);
    counter!(TOKENS, "model" => model.to_owned(), "direction" => "output")
        .increment(usage.completion_tokens);
}

/// A run ended because of its key's budget: before a turn, or with one that was cut short by it.
pub(crate) fn budget_stop(turn: &'static str) {
    counter!(BUDGET_STOPS, "turn" => turn).increment(1);
}

/// A run goes back to the queue because other runs have its key's budget set aside.
pub(crate) fn budget_wait() {
    counter!(BUDGET_WAITS).increment(1);
}

pub(crate) fn model_turn_failed(code: &'static str) {
    counter!(TURN_FAILURES, "code" => code).increment(1);
}

pub(crate) fn tool_finished(tool: &str, ok: bool, duration: Duration) {
    let ok = if ok { "true" } else { "false" };
    counter!(TOOL_CALLS, "tool" => tool.to_owned(), "ok" => ok).increment(1);
    histogram!(TOOL_DURATION, "tool" => tool.to_owned()).record(duration);
}
