//! Judges approval requests of responses, and the requests that answered them (I12): one answer wins, it ends
//! the run that waits, and the call is made by the next run alone, after an approval.

use std::collections::HashMap;

use baton_invariants::Invariant;
use baton_protocol::{Decision, RunId, RunStatus};

use super::judgement::Judgement;
use super::ledger_run::{Approval, LedgerRun, StepKind};
use super::runs::Execution;
use crate::chaos::outside::{ASKED, ASKER};

/// A run that asks, and the runs that brought an answer, in the order of their acceptance.
struct Asked<'a> {
    run: &'a LedgerRun,
    answered: &'a [&'a LedgerRun],
}

/// Judges all runs of this kind. The runs of one conversation have the same prompt.
pub(super) fn judge(
    runs: &HashMap<RunId, LedgerRun>,
    executions: &HashMap<String, Vec<Execution>>,
    judgement: &mut Judgement,
) {
    let mut conversations: HashMap<u64, Vec<&LedgerRun>> = HashMap::new();
    for run in runs.values().filter(|run| run.model == ASKER) {
        if let Some(prompt) = run.prompt {
            conversations.entry(prompt).or_default().push(run);
        }
    }
    for conversation in conversations.values_mut() {
        conversation.sort_by_key(|run| (run.created_at, run.id));
        let Some((run, answered)) = conversation.split_first() else {
            continue;
        };
        let asked = Asked { run, answered };
        for found in asked.findings(executions) {
            judgement.accuse(Invariant::I12, Some(run.id), found);
        }
    }
}

impl Asked<'_> {
    fn findings(&self, executions: &HashMap<String, Vec<Execution>>) -> Vec<String> {
        let mut found = Vec::new();
        let own = made_by(self.run, executions);
        let questions: Vec<&Approval> = self.run.approvals.iter().collect();
        let of_calls = questions.iter().filter(|asked| asked.call.is_some());
        let approved = of_calls
            .filter(|asked| matches!(asked.decision, Some(Decision::Approve { .. })))
            .filter_map(|asked| asked.decided_ms())
            .min();
        if self.answered.len() > 1 {
            let count = self.answered.len();
            found.push(format!("was answered by {count} runs"));
        }
        for next in self.answered {
            if !self.run.was_answered() {
                let (status, reason) = (self.run.status, &self.run.finish_reason);
                found.push(format!("was answered, and is {status} ({reason:?})"));
            }
            if questions.iter().any(|asked| asked.decision.is_none()) {
                found.push("was answered, and has an open question".to_owned());
            }
            if !own.is_empty() {
                found.push("was answered, and made its call itself".to_owned());
            }
            let has_result = next.output.iter().any(|said| said["role"] == "tool");
            let prompt = next.prompt.unwrap_or_default();
            let has_spoken = next.text().contains(&format!("{prompt}·"));
            if next.status == RunStatus::Completed
                && (!has_spoken || approved.is_some() && !has_result)
            {
                let next = next.id;
                found.push(format!(
                    "was answered by {next}, which did not see the result"
                ));
            }
        }
        let theirs = self
            .answered
            .iter()
            .flat_map(|next| made_by(next, executions));
        for made in own.iter().copied().chain(theirs) {
            match approved {
                None => found.push("has a call that was made and not approved".to_owned()),
                Some(at) if made.at < at => {
                    found.push("has a call that was made before its approval".to_owned());
                }
                Some(_) => {}
            }
        }
        found
    }
}

/// Returns the executions of a run's calls of the tool.
fn made_by<'e>(
    run: &LedgerRun,
    executions: &'e HashMap<String, Vec<Execution>>,
) -> Vec<&'e Execution> {
    let calls = run
        .steps
        .iter()
        .filter(|step| matches!(&step.kind, StepKind::Call { name, .. } if name == ASKED));
    let made = calls.filter_map(|step| executions.get(&format!("{}-{}", run.id, step.place)));
    made.flatten().collect()
}
