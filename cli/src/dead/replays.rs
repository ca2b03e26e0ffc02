//! Earlier replays, read from the audit log, because messages of a stream cannot be changed.

use std::collections::HashMap;

use anyhow::Context as _;
use baton_nats::DeadLetter;
use baton_store::{AuditEntry, AuditFilter, AuditRecord, AuditResult, Store};
use chrono::{DateTime, Utc};

use crate::ledger::audit_entry;

/// The action of an operator who is about to replay. It remains without a result if the result
/// could not be recorded.
const BEGUN: &str = "dead.replaying";
/// The action with the result: accepted or refused.
const ENDED: &str = "dead.replayed";
/// The most entries to read, the newest; each replay has two.
const AT_MOST: u32 = 20_000;

/// The last replay of each message.
pub(super) struct Replays(HashMap<String, AuditRecord>);

impl Replays {
    /// Reads all replays from the audit log.
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

    /// Returns the last replay of this message: the last entry since it was set aside. Older
    /// entries may be of another message, because a stream that was lost counts from one again.
    fn of(&self, letter: &DeadLetter) -> Option<&AuditRecord> {
        let entry = self.0.get(&target(letter))?;
        (entry.at >= letter.stored_at).then_some(entry)
    }

    /// Returns whether a replay has delivered it.
    pub(super) fn is_taken(&self, letter: &DeadLetter) -> bool {
        self.of(letter).is_some_and(|entry| {
            entry.action == ENDED && entry.result == AuditResult::Done.as_str()
        })
    }

    /// Describes the last replay: time, actor and result; `None` if there was none.
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

/// Returns the key that sorts entries. The log is sorted by the millisecond, and a replay may take
/// less.
fn order(entry: &AuditRecord) -> (DateTime<Utc>, bool) {
    (entry.at, entry.action == ENDED)
}

fn target(letter: &DeadLetter) -> String {
    format!("dead:{}", letter.seq)
}

/// Records that a replay is about to begin. The broker's action and its entry cannot be one commit,
/// so the replay does not begin without this entry.
pub(super) async fn begin(store: &Store, letter: &DeadLetter) -> anyhow::Result<()> {
    let entry = AuditEntry {
        detail: Some(letter.subject.clone()),
        ..audit_entry(letter.tenant(), BEGUN, target(letter))
    };
    Ok(store.system().record_audit(&entry).await?)
}

/// Records the result of a replay.
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
