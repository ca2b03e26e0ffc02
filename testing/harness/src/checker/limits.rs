//! Judges runs that wait at limits of their own: none uses more than is in force, and each question is
//! decided once (I25, I12).

use baton_invariants::Invariant;
use baton_protocol::{ApprovalReason, Decision, RequestLimits, RunStatus};

use super::judgement::Judgement;
use super::ledger_run::{Approval, LedgerRun};

/// The time from which on a number of calls was allowed, in milliseconds since 1970.
struct Allowed {
    since: u64,
    calls: u32,
}

/// Judges a run that was accepted with these limits. `made` has the times of the first executions of its calls.
pub(super) fn judge(
    run: &LedgerRun,
    mut limits: RequestLimits,
    mut made: Vec<u64>,
    judgement: &mut Judgement,
) {
    let questions = run.approvals.iter();
    let questions = questions.filter(|asked| asked.reason == ApprovalReason::Budget);
    let mut questions: Vec<&Approval> = questions.collect();
    questions.sort_by_key(|asked| asked.created_at);
    let mut accuse = |invariant, found: String| judgement.accuse(invariant, Some(run.id), found);
    let unlimited = u32::MAX;
    let mut allowed = vec![Allowed {
        since: 0,
        calls: limits.max_tool_calls.unwrap_or(unlimited),
    }];
    for asked in questions {
        let Some(reached) = &asked.budget else {
            accuse(Invariant::I25, format!("{} names no limit", asked.id));
            continue;
        };
        if reached.limits != limits {
            let found = format!(
                "waited at {:?}, and {limits:?} are in force",
                reached.limits
            );
            accuse(Invariant::I25, found);
        }
        if limits
            .max_tokens
            .is_some_and(|most| reached.used.tokens > most)
        {
            let used = reached.used.tokens;
            accuse(
                Invariant::I25,
                format!("had used {used} tokens, above {limits:?}"),
            );
        }
        match &asked.decision {
            Some(Decision::Raise { limits: raised }) => {
                limits.max_tokens = raised.max_tokens.or(limits.max_tokens);
                limits.max_tool_calls = raised.max_tool_calls.or(limits.max_tool_calls);
                allowed.push(Allowed {
                    since: asked.decided_ms().unwrap_or(u64::MAX),
                    calls: limits.max_tool_calls.unwrap_or(unlimited),
                });
            }
            Some(Decision::Stop {}) => {
                let limit = reached.limit.as_str();
                let went_on = run.finish_reason.as_deref() != Some(limit);
                if run.status == RunStatus::Completed && went_on {
                    accuse(
                        Invariant::I12,
                        format!("was stopped at {limit}, and went on"),
                    );
                }
            }
            None if run.status == RunStatus::Completed => {
                accuse(
                    Invariant::I12,
                    format!("has completed, and {} is open", asked.id),
                );
            }
            _ => {}
        }
    }
    let used = run.usage.total_tokens;
    if limits.max_tokens.is_some_and(|most| used > most) {
        accuse(
            Invariant::I25,
            format!("has used {used} tokens, above {limits:?}"),
        );
    }
    made.sort_unstable();
    for (at, number) in made.into_iter().zip(1..) {
        let in_force = allowed.iter().rev().find(|allowed| allowed.since <= at);
        if in_force.is_some_and(|allowed| number > allowed.calls) {
            let found = format!(
                "made call {number} before more than {} were allowed",
                number - 1
            );
            accuse(Invariant::I25, found);
        }
    }
}
