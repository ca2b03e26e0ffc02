//! Refusals: a client that was refused a run has none (I1).
//!
//! A client requests one run at a time under each prompt. A lost answer, or one that says that the
//! outcome is unknown, leaves open whether there is a run; a refusal does not.

use std::collections::{HashMap, HashSet};

use baton_invariants::Invariant;
use baton_protocol::RunId;

use super::history::{Record, What};
use super::judgement::Judgement;
use super::ledger_run::LedgerRun;

/// All requests, by prompt.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    conversations: HashMap<u64, Conversation>,
    accepted: HashSet<RunId>,
}

/// The tries under one prompt.
#[derive(Debug, Default)]
struct Conversation {
    /// A try without an answer so far.
    open: bool,
    /// A try had no answer, so that there may be a run from then on.
    in_doubt: bool,
    /// The time and code of the last refusal before any doubt.
    refused: Option<(u64, String)>,
}

impl Refusals {
    pub(super) fn see(&mut self, record: &Record) {
        match &record.what {
            What::Tried { prompt } => {
                let conversation = self.conversations.entry(*prompt).or_default();
                conversation.in_doubt |= conversation.open;
                conversation.open = true;
            }
            What::Refused {
                code,
                prompt: Some(prompt),
                ..
            } => {
                let conversation = self.conversations.entry(*prompt).or_default();
                conversation.open = false;
                if !conversation.in_doubt {
                    conversation.refused = Some((record.at, code.clone()));
                }
            }
            What::Accepted { run, .. } => {
                self.accepted.insert(*run);
            }
            _ => {}
        }
    }

    pub(super) fn finish(&self, runs: &HashMap<RunId, LedgerRun>, judgement: &mut Judgement) {
        for run in runs.values() {
            let conversation = run
                .prompt
                .and_then(|prompt| self.conversations.get(&prompt));
            let Some(conversation) = conversation else {
                continue;
            };
            let Some((at, code)) = &conversation.refused else {
                continue;
            };
            let committed = u64::try_from(run.created_at.timestamp_millis()).unwrap_or_default();
            let later = conversation.open || conversation.in_doubt;
            if committed <= *at {
                let what = format!(
                    "refused with {code}, {} ms after it was committed",
                    at - committed
                );
                judgement.accuse(Invariant::I1, Some(run.id), what);
            } else if !later && !self.accepted.contains(&run.id) {
                let what = format!(
                    "refused with {code}, and committed {} ms later",
                    committed - at
                );
                judgement.accuse(Invariant::I1, Some(run.id), what);
            }
        }
    }
}
