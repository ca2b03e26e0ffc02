//! Judges the ledger and the tools: every accepted run ends, one key is one run, steps are dense,
//! recorded steps are not executed again, and an announced end is final (I1, I2, I4, I7, I8, I9,
//! I11).

use std::collections::HashMap;

use baton_invariants::Invariant;
use baton_protocol::{ApprovalId, ApprovalScope, Decision, RequestLimits, RunId, RunStatus};
use serde_json::{Value, json};

use super::history::{Record, What};
use super::judgement::Judgement;
use super::ledger_run::{Approval, LedgerRun, StepKind};
use super::{asks, limits};
use crate::chaos::outside::GUARDED;

/// The facts from the records, to be compared with the ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: HashMap<String, RunId>,
    /// The answer that the client of each accepted run expects.
    accepted: HashMap<RunId, String>,
    executions: HashMap<String, Vec<Execution>>,
    /// The decisions, as they were confirmed.
    decided: HashMap<ApprovalId, Decision>,
    /// The limits of runs that wait at them.
    bounded: HashMap<RunId, RequestLimits>,
    /// Each run's final state, as clients got it.
    told: HashMap<RunId, RunStatus>,
}

#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub(super) at: u64,
    idempotent: bool,
    arguments: String,
}

impl Ledger {
    pub(super) fn see(&mut self, record: &Record, judgement: &mut Judgement) {
        match &record.what {
            What::Fault { kind, .. } => *judgement.faults.entry(kind.clone()).or_default() += 1,
            What::Attack { kind } => *judgement.attacks.entry(kind.clone()).or_default() += 1,
            What::Did { kind } => *judgement.doings.entry(kind.clone()).or_default() += 1,
            What::Breach { invariant, found } => {
                judgement.accuse(*invariant, None, found.clone());
            }
            What::Refused { status, code, .. } => {
                let name = format!("{status} {code}");
                *judgement.refused.entry(name).or_default() += 1;
            }
            What::Accepted { run, key, expected } => {
                self.accepted.insert(*run, expected.clone());
                if let Some(key) = key
                    && let Some(other) = self.keys.insert(key.clone(), *run)
                    && other != *run
                {
                    let what = format!("its key {key} was also given run {other}");
                    judgement.accuse(Invariant::I2, Some(*run), what);
                }
            }
            What::Told { run, status } if status.is_terminal() => {
                if let Some(before) = self.told.insert(*run, *status)
                    && before != *status
                {
                    let what = format!("a client was told {before}, and later {status}");
                    judgement.accuse(Invariant::I4, Some(*run), what);
                }
            }
            What::Decided {
                run,
                approval,
                decision,
            } => {
                if let Some(before) = self.decided.insert(*approval, decision.clone())
                    && before != *decision
                {
                    let (before, decision) = (json!(before), json!(decision));
                    let what = format!("{approval} was decided {before} and {decision}");
                    judgement.accuse(Invariant::I12, Some(*run), what);
                }
            }
            What::Bounded { run, limits } => {
                self.bounded.insert(*run, limits.clone());
            }
            What::Tool {
                key,
                idempotent,
                arguments,
                ..
            } => {
                judgement.tool_calls += 1;
                let execution = Execution {
                    at: record.at,
                    idempotent: *idempotent,
                    arguments: arguments.clone(),
                };
                let executions = self.executions.entry(key.clone());
                executions.or_default().push(execution);
            }
            _ => {}
        }
    }

    pub(super) fn finish(&self, runs: &HashMap<RunId, LedgerRun>, judgement: &mut Judgement) {
        judgement.accepted = self.accepted.len();
        asks::judge(runs, &self.executions, judgement);
        for run in self.accepted.keys() {
            if !runs.contains_key(run) {
                judgement.accuse(Invariant::I1, Some(*run), "accepted, and not in the ledger");
            }
        }
        for run in runs.values() {
            judge_run(
                run,
                self.accepted.get(&run.id).map(String::as_str),
                judgement,
            );
            judge_tools(run, &self.executions, judgement);
            if let Some(limits) = self.bounded.get(&run.id) {
                let made = run.steps.iter().filter_map(|step| {
                    let made = self.executions.get(&format!("{}-{}", run.id, step.place))?;
                    made.iter().map(|made| made.at).min()
                });
                limits::judge(run, limits.clone(), made.collect(), judgement);
            }
            for approval in &run.approvals {
                self.judge_approval(run, approval, judgement);
            }
            if let Some(told) = self.told.get(&run.id)
                && *told != run.status
            {
                let what = format!("a client was told {told}, the ledger says {}", run.status);
                judgement.accuse(Invariant::I4, Some(run.id), what);
            }
        }
    }
}

impl Ledger {
    fn judge_approval(&self, run: &LedgerRun, approval: &Approval, judgement: &mut Judgement) {
        let name = approval.decision.as_ref().map_or("none", Decision::as_str);
        *judgement.decisions.entry(name.to_owned()).or_default() += 1;
        let told = self.decided.get(&approval.id);
        if told.is_some() && told != approval.decision.as_ref() {
            let (told, decision) = (json!(told), json!(approval.decision));
            let what = format!(
                "{} was confirmed {told}, the ledger says {decision}",
                approval.id
            );
            judgement.accuse(Invariant::I12, Some(run.id), what);
        }
    }
}

fn judge_run(run: &LedgerRun, expected: Option<&str>, judgement: &mut Judgement) {
    let outcome = match (run.status, &run.error) {
        (RunStatus::Failed, Some(error)) => {
            format!("failed {}", error["code"].as_str().unwrap_or("?"))
        }
        (status, _) => status.to_string(),
    };
    *judgement.outcomes.entry(outcome).or_default() += 1;
    if !run.status.is_terminal() {
        judgement.accuse(Invariant::I1, Some(run.id), format!("still {}", run.status));
    }
    if run.attempt > 1 {
        judgement.handed_on += 1;
        judgement.takeovers += run.attempt as usize - 1;
    }
    let numbers: Vec<_> = run.steps.iter().map(|step| step.place).collect();
    if numbers.iter().zip(1..).any(|(have, want)| *have != want) {
        judgement.accuse(
            Invariant::I8,
            Some(run.id),
            format!("its steps are {numbers:?}"),
        );
    }
    let mut newest = 0;
    for step in &run.steps {
        let turn = matches!(step.kind, StepKind::Turn);
        if step.attempt > run.attempt || (turn && step.attempt < newest) {
            let what = format!("step {} is of attempt {}", step.place, step.attempt);
            judgement.accuse(Invariant::I9, Some(run.id), what);
        }
        if turn {
            newest = step.attempt;
        }
        let must_be_finished = run.status == RunStatus::Completed && !run.may_leave_calls();
        if must_be_finished && step.finished_at.is_none() {
            let what = format!("completed with step {} unfinished", step.place);
            judgement.accuse(Invariant::I8, Some(run.id), what);
        }
    }
    if run.status == RunStatus::Completed
        && let Some(expected) = expected
        && !is_answer(run, expected)
    {
        let what = format!("stored {:?}, not {expected:?}", run.text());
        judgement.accuse(Invariant::I11, Some(run.id), what);
    }
}

/// Returns whether the run has the expected text, or a part of it if it ended at a limit of its own.
fn is_answer(run: &LedgerRun, expected: &str) -> bool {
    let text = run.text();
    if run.stopped_at_limit() {
        expected.starts_with(&text)
    } else {
        text == expected
    }
}

fn judge_tools(
    run: &LedgerRun,
    executions: &HashMap<String, Vec<Execution>>,
    judgement: &mut Judgement,
) {
    for step in &run.steps {
        let StepKind::Call { name, ok } = &step.kind else {
            continue;
        };
        let key = format!("{}-{}", run.id, step.place);
        let made = executions.get(&*key).map_or(&[][..], Vec::as_slice);
        let approvals = run.approvals.iter();
        let approvals = approvals.filter(|approval| approval.is_of_step(step.place));
        let approvals: Vec<_> = approvals.collect();
        let decided_as = |name: &str| {
            let approvals = approvals.iter();
            approvals
                .filter(|it| it.decision.as_ref().map(Decision::as_str) == Some(name))
                .collect::<Vec<_>>()
        };
        let (retries, by_hand) = (decided_as("retry"), decided_as("result"));
        if name == GUARDED {
            judge_guarded(run, step.place, made, judgement);
        }
        if *ok == Some(true) && made.is_empty() && by_hand.is_empty() {
            let what = format!(
                "{name} of step {} has a result and was never asked",
                step.place
            );
            judgement.accuse(Invariant::I7, Some(run.id), what);
        }
        let mut decided: Vec<_> = retries
            .iter()
            .filter_map(|approval| approval.decided_ms())
            .collect();
        decided.sort_unstable();
        // The first execution needs no decision; each further one takes a decision of its own.
        let once = made.iter().any(|made| !made.idempotent);
        let further = made.iter().skip(1).enumerate();
        for (place, made) in further.filter(|_| once) {
            let Some(decided) = decided.get(place) else {
                let what = format!("{name} of step {} was made again unasked", step.place);
                judgement.accuse(Invariant::I7, Some(run.id), what);
                continue;
            };
            if made.at < *decided {
                let what = format!(
                    "{name} of step {} was made before it was decided",
                    step.place
                );
                judgement.accuse(Invariant::I12, Some(run.id), what);
            }
        }
        let recorded = step
            .finished_at
            .and_then(|at| u64::try_from(at.timestamp_millis()).ok());
        if let Some(recorded) = recorded
            && let Some(again) = made.iter().find(|made| made.at > recorded)
        {
            let late = again.at - recorded;
            let what = format!(
                "{name} of step {} was made again {late} ms after its result was recorded",
                step.place
            );
            judgement.accuse(Invariant::I7, Some(run.id), what);
        }
    }
}

/// Judges the executions of a call that a person must approve: each comes after an approval of the call, or of
/// later calls of its tool, and has the approved arguments.
fn judge_guarded(run: &LedgerRun, step: u32, made: &[Execution], judgement: &mut Judgement) {
    let yes = run.approvals.iter().filter_map(|approval| {
        let Some(Decision::Approve { arguments, scope }) = &approval.decision else {
            return None;
        };
        let own = approval.is_of_step(step);
        (own || *scope != ApprovalScope::Once).then(|| {
            let edited = arguments.as_ref().filter(|_| own);
            (approval.decided_ms(), own, edited)
        })
    });
    let yes: Vec<_> = yes.collect();
    let Some(first) = made.first() else { return };
    if yes.is_empty() {
        let what = format!("{GUARDED} of step {step} was made and nobody approved it");
        judgement.accuse(Invariant::I7, Some(run.id), what);
    } else if !yes
        .iter()
        .any(|(at, ..)| at.is_some_and(|at| at <= first.at))
    {
        let what = format!("{GUARDED} of step {step} was made before it was approved");
        judgement.accuse(Invariant::I12, Some(run.id), what);
    }
    let edited = yes
        .iter()
        .find_map(|(_, own, edited)| own.then_some(*edited)?);
    let approved = edited.map_or_else(|| json!({}), |edited| json!(edited));
    for made in made {
        if serde_json::from_str::<Value>(&made.arguments).ok().as_ref() != Some(&approved) {
            let what = format!(
                "{GUARDED} of step {step} was made with {}, and approved with {approved}",
                made.arguments
            );
            judgement.accuse(Invariant::I12, Some(run.id), what);
        }
    }
}
