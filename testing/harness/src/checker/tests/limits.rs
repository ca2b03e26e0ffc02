//! Runs that wait at limits of their own (I25, I12).

use baton_protocol::{ReachedLimit, RequestLimits, UsedUp};

use super::*;
use crate::checker::Approval;

fn tokens(most: u64) -> RequestLimits {
    RequestLimits {
        max_tokens: Some(most),
        ..RequestLimits::default()
    }
}

fn calls(most: u32) -> RequestLimits {
    RequestLimits {
        max_tool_calls: Some(most),
        ..RequestLimits::default()
    }
}

fn at(millis: i64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(millis)
}

/// A question at these limits, which is decided 900 ms after the beginning.
fn question(limits: RequestLimits, used: u64, decision: Option<Decision>) -> Approval {
    Approval {
        id: "01890a5d-ac96-774b-bcce-b302099a8059".parse().unwrap(),
        call: None,
        reason: ApprovalReason::Budget,
        budget: Some(ReachedLimit {
            limit: FinishReason::MaxTokens,
            limits,
            used: UsedUp {
                tokens: used,
                cost: None,
                tool_calls: 0,
            },
        }),
        created_at: at(600),
        decision,
        decided_at: Some(at(900)),
    }
}

const fn raise(limits: RequestLimits) -> Decision {
    Decision::Raise { limits }
}

/// Returns what is broken if the good run had these limits, and used so many tokens in the end.
fn bounded(limits: RequestLimits, used: u64, questions: Vec<Approval>) -> Vec<&'static str> {
    after(|history| {
        history.runs[0].usage.total_tokens = used;
        history.runs[0].approvals = questions;
        let run = run_id();
        note(history, What::Bounded { run, limits });
    })
}

#[test]
fn a_run_that_used_more_tokens_than_were_in_force_breaks_i6() {
    assert_eq!(bounded(tokens(50), 50, Vec::new()), [""; 0]);
    assert_eq!(bounded(tokens(50), 51, Vec::new()), ["I25"]);
    let raised = |used| vec![question(tokens(50), used, Some(raise(tokens(90))))];
    assert_eq!(bounded(tokens(50), 90, raised(50)), [""; 0]);
    assert_eq!(bounded(tokens(50), 91, raised(50)), ["I25"]);
    assert_eq!(bounded(tokens(50), 90, raised(51)), ["I25"]);
    let stale = vec![question(tokens(40), 30, Some(raise(tokens(90))))];
    assert_eq!(bounded(tokens(50), 30, stale), ["I25"]);
}

#[test]
fn a_call_beyond_the_limit_of_that_time_breaks_i6() {
    // The good run makes its call 1,000 ms after the beginning.
    assert_eq!(bounded(calls(1), 0, Vec::new()), [""; 0]);
    let at_none = |decided: i64| {
        let asked = Approval {
            decided_at: Some(at(decided)),
            ..question(calls(0), 0, Some(raise(calls(1))))
        };
        bounded(calls(0), 0, vec![asked])
    };
    assert_eq!(at_none(900), [""; 0]);
    assert_eq!(at_none(1_100), ["I25"], "the raise came later");
    assert_eq!(bounded(calls(0), 0, Vec::new()), ["I25"]);
}

#[test]
fn a_run_that_goes_on_although_it_was_stopped_breaks_i12() {
    let stopped = |reason: Option<&str>, decision| {
        after(|history| {
            let run = run_id();
            let limits = tokens(50);
            history.runs[0].finish_reason = reason.map(str::to_owned);
            history.runs[0].approvals = vec![question(limits.clone(), 9, decision)];
            note(history, What::Bounded { run, limits });
        })
    };
    let stop = || Some(Decision::Stop {});
    assert_eq!(stopped(Some("max_tokens"), stop()), [""; 0]);
    assert_eq!(stopped(Some("stop"), stop()), ["I12"]);
    assert_eq!(stopped(Some("stop"), None), ["I12"], "nobody decided");
}

#[test]
fn a_run_that_ends_at_its_limit_has_the_beginning_of_its_answer() {
    let ends = |reason: &str, text: &str| {
        after(|history| {
            history.runs[0].finish_reason = Some(reason.to_owned());
            history.runs[0].output = vec![json!({"role": "assistant", "content": text})];
            // Only the ledger is judged here.
            history.logs.clear();
            history.records.retain(|record| {
                !matches!(
                    record.what,
                    What::Chat { .. } | What::Opened { .. } | What::Event { .. }
                )
            });
        })
    };
    assert_eq!(ends("max_tokens", "hel"), ["I4"], "the log is missing");
    assert_eq!(ends("stop", "hel"), ["I11", "I4"]);
    assert_eq!(ends("max_tokens", "help"), ["I11", "I4"]);
}
