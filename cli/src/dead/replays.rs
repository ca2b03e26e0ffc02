//! What was replayed before, from the audit log: messages of a stream cannot be changed.

use std::collections::HashMap;

use anyhow::Context as _;
use baton_nats::DeadLetter;
use baton_store::{AuditEntry, AuditFilter, AuditRecord, AuditResult, Store};
use chrono::{DateTime, Utc};

use crate::ledger::audit_entry;

/// Somebody is about to: it stands alone if they could not write down what came of it.
const BEGUN: &str = "dead.replaying";
/// It was taken, or refused.
const ENDED: &str = "dead.replayed";
/// The entries that are looked at, the newest; each replay has two.
const AT_MOST: u32 = 20_000;

/// The last replay of each message.
pub(super) struct Replays(HashMap<String, AuditRecord>);

impl Replays {
    /// All that the audit log has.
    pub(super) async fn read(store: &Store) -> anyhow::Result<Self> {
        let filter = AuditFilter {
            action: Some("dead.".to_owned()),
            limit: AT_MOST,
            ..AuditFilter::default()
        };
        let entries = store.system().audit_log(&filter).await;
        let entries = entries.context("the audit log cannot be read")?;
        let mut last = HashMap::<String, AuditRecord>::new();
        for entry in entries {
            let Some(target) = entry.target.clone() else {
                continue;
            };
            let earlier = last.get(&target);
            if earlier.is_none_or(|earlier| order(earlier) < order(&entry)) {
                last.insert(target, entry);
            }
        }
        Ok(Self(last))
    }

    /// The last replay of this message: what was written down since it was set aside. A stream that
    /// was lost counts from one again.
    fn of(&self, letter: &DeadLetter) -> Option<&AuditRecord> {
        let entry = self.0.get(&target(letter))?;
        (entry.at >= letter.stored_at).then_some(entry)
    }

    /// Whether it is on its way again.
    pub(super) fn is_taken(&self, letter: &DeadLetter) -> bool {
        self.of(letter).is_some_and(|entry| {
            entry.action == ENDED && entry.result == AuditResult::Done.as_str()
        })
    }

    /// When, by whom, and what came of it; `None` if nobody has replayed it.
    pub(super) fn told(&self, letter: &DeadLetter) -> Option<String> {
        let entry = self.of(letter)?;
        let by = entry.actor.as_deref().unwrap_or("an operator");
        let at = entry.at.to_rfc3339();
        let detail = entry.detail.as_deref().unwrap_or_default();
        let subject = format!("{}: ", letter.subject);
        let what = detail.strip_prefix(&subject).unwrap_or(detail);
        Some(if entry.action == ENDED {
            format!("replayed {at} by {by}: {what}")
        } else {
            format!("replay begun {at} by {by}, and what came of it is not known")
        })
    }
}

/// The log is sorted by the millisecond, and a replay may take less.
fn order(entry: &AuditRecord) -> (DateTime<Utc>, bool) {
    (entry.at, entry.action == ENDED)
}

fn target(letter: &DeadLetter) -> String {
    format!("dead:{}", letter.seq)
}

/// Writes down that somebody is about to replay it: what happens at the broker cannot be one commit
/// with its entry, so it does not begin without one.
pub(super) async fn begin(store: &Store, letter: &DeadLetter) -> anyhow::Result<()> {
    let entry = AuditEntry {
        detail: Some(letter.subject.clone()),
        ..audit_entry(letter.tenant(), BEGUN, target(letter))
    };
    Ok(store.system().record_audit(&entry).await?)
}

/// Writes down what came of it.
pub(super) async fn end(
    store: &Store,
    letter: &DeadLetter,
    taken: bool,
    what: &str,
) -> anyhow::Result<()> {
    let entry = AuditEntry {
        result: if taken {
            AuditResult::Done
        } else {
            AuditResult::Refused
        },
        detail: Some(format!("{}: {what}", letter.subject)),
        ..audit_entry(letter.tenant(), ENDED, target(letter))
    };
    Ok(store.system().record_audit(&entry).await?)
}
