//! Judges the messages that runs left in their threads (I26), and the ends of those that runs were sent
//! (I24).

use std::collections::HashSet;

use baton_invariants::Invariant;
use baton_protocol::RunStatus;

use super::order::{Order, RolledBack};
use super::{SentMessage, TalkMessage, TalkRun, TalkThread};
use crate::checker::judgement::Judgement;

/// Accuses each message that the thread has twice.
pub(super) fn judge_repeated(thread: &TalkThread, judgement: &mut Judgement) {
    let mut seen = HashSet::new();
    for message in &thread.messages {
        if !message.text.is_empty() && !seen.insert(&*message.text) {
            let found = format!("thread {} has `{}` twice", thread.id, message.text);
            judgement.accuse(Invariant::I26, message.run, found);
        }
    }
}

/// Compares a run that has ended with what it left in its thread.
pub(super) fn judge_run(
    run: &TalkRun,
    thread: &TalkThread,
    order: &Order<'_>,
    judgement: &mut Judgement,
) {
    if let Some(found) = fault(run, thread, order.rolled_back(run)) {
        let found = format!("{found}, on thread {}", thread.id);
        judgement.accuse(Invariant::I26, Some(run.id), found);
    }
}

fn fault(run: &TalkRun, thread: &TalkThread, rolled_back: RolledBack) -> Option<&'static str> {
    let texts: Vec<&str> = thread.messages.iter().map(|it| &*it.text).collect();
    let own = |message: &TalkMessage| message.run == Some(run.id);
    let first = thread.messages.iter().position(own);
    let count = thread.messages.iter().filter(|it| own(it)).count();
    if !run.status.is_terminal() {
        return Some("has not ended");
    }
    let Some(first) = first else {
        let lost = run.began.is_some() && rolled_back == RolledBack::No;
        return lost.then_some("has left none of its messages");
    };
    if run.began.is_none() || rolled_back == RolledBack::Yes {
        return Some("has left messages, and never began or was rolled back");
    }
    if run.input.len() < first || run.input[..first] != texts[..first] {
        return Some("did not begin with all messages before its own");
    }
    let expected: Vec<&str> = run.input[first..]
        .iter()
        .chain(&run.output)
        .map(String::as_str)
        .collect();
    // The last answer of a run that was stopped may have broken off, or have a call without a result. It is
    // shown with the run, and is no message of the thread.
    let least = match run.answers.last() {
        Some(last) if run.status != RunStatus::Completed => run.input.len() - first + last,
        _ => expected.len(),
    };
    let left = texts.get(first..first + count);
    let is_right = left.is_some_and(|left| left.len() >= least && expected.starts_with(left));
    (!is_right).then_some("has left other messages than its own, or not in their order")
}

/// Holds each message that was sent to a run to one of two ends: it is part of the run once, or it was
/// handed back and is no part of it.
pub(super) fn judge_sent(run: &TalkRun, judgement: &mut Judgement) {
    let mut seen = HashSet::new();
    let mut last_step = 0;
    for sent in &run.sent {
        let found = if !seen.insert(&*sent.text) {
            Some("was sent it twice")
        } else if sent.step.is_some_and(|step| step < last_step) {
            Some("took it after a later one")
        } else {
            fault_of_sent(run, sent)
        };
        last_step = sent.step.unwrap_or(last_step);
        if let Some(found) = found {
            let found = format!("the message `{}`: the run {found}", sent.text);
            judgement.accuse(Invariant::I24, Some(run.id), found);
        }
    }
}

fn fault_of_sent(run: &TalkRun, sent: &SentMessage) -> Option<&'static str> {
    let all = run.input.iter().chain(&run.output);
    let count = all.filter(|text| **text == sent.text).count();
    match (&*sent.status, count) {
        ("applied", 0) => Some("does not have it, though it is applied"),
        ("returned", 0) if run.has_answered() => {
            Some("has ended with an answer and handed it back")
        }
        ("applied", 1) | ("returned", 0) => None,
        ("returned", _) => Some("has it, though it was handed back"),
        ("waiting", _) => run
            .status
            .is_terminal()
            .then_some("has ended and lets it wait"),
        _ => Some("has it more than once"),
    }
}
