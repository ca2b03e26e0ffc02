//! What clients saw: each event once and in order, the whole text, no silence taken for an end
//! (I1, I11, I13).

use std::collections::{BTreeMap, HashMap};

use baton_protocol::{Event, EventData, EventId, RunId, RunStatus};

use super::Judgement;
use super::history::{History, LedgerRun, What};
use super::logs::shown_text;

/// One client's view of one run, over all its connections.
struct Follower {
    run: RunId,
    /// Whether it began with the first event.
    from_start: bool,
    cursor: EventId,
    events: Vec<Event>,
    last_at: Option<u64>,
    pause: u64,
    told_no_more: bool,
}

pub(super) fn judge(history: &History, judgement: &mut Judgement) {
    let runs: HashMap<_, _> = history.runs.iter().map(|run| (run.id, run)).collect();
    let mut followers: BTreeMap<u64, Follower> = BTreeMap::new();
    for record in &history.records {
        match &record.what {
            What::Opened {
                follower,
                run,
                after,
            } => {
                let known = followers.entry(*follower).or_insert_with(|| Follower {
                    run: *run,
                    from_start: *after == EventId::ORIGIN,
                    cursor: *after,
                    events: Vec::new(),
                    last_at: None,
                    pause: 0,
                    told_no_more: false,
                });
                // A client that says that it has seen what it has not is no witness.
                known.cursor = *after;
            }
            What::Event { follower, line } => {
                if let Some(follower) = followers.get_mut(follower) {
                    judgement.events += 1;
                    follower.see(record.at, line, judgement);
                }
            }
            What::NoMore { follower } => {
                if let Some(follower) = followers.get_mut(follower) {
                    follower.told_no_more = true;
                }
            }
            What::Lost {
                follower,
                status,
                code,
            } => {
                let run = followers.get(follower).map(|follower| follower.run);
                let invariant = if *status == 404 { "I1" } else { "I13" };
                judgement.accuse(
                    invariant,
                    run,
                    format!("a follower was told {status} {code}"),
                );
            }
            What::Chat {
                run,
                expected,
                text,
                end,
            } => {
                *judgement.chats.entry(end.clone()).or_default() += 1;
                let right = match &**end {
                    "done" => text == expected,
                    _ => expected.starts_with(&**text),
                };
                if !right {
                    let what =
                        format!("a chat that ended with {end} showed {text:?}, not {expected:?}");
                    judgement.accuse("I11", *run, what);
                }
            }
            _ => {}
        }
    }
    for follower in followers.values() {
        follower.judge_end(runs.get(&follower.run).copied(), judgement);
        if follower.events.len() > 1 {
            judgement.pauses.push(follower.pause);
        }
    }
    judgement.pauses.sort_unstable();
}

impl Follower {
    fn see(&mut self, at: u64, line: &str, judgement: &mut Judgement) {
        let event = match Event::decode(line.as_bytes()) {
            Ok(event) => event,
            Err(error) => {
                judgement.accuse("I13", Some(self.run), format!("unreadable event: {error}"));
                return;
            }
        };
        if event.run_id != self.run {
            let what = format!("was shown an event of run {}", event.run_id);
            judgement.accuse("I18", Some(self.run), what);
        }
        if event.id <= self.cursor {
            let what = format!("{} was shown behind {}", event.id, self.cursor);
            judgement.accuse("I13", Some(self.run), what);
        }
        // A reset withdraws what lies beyond its id: nothing there can be missed.
        let covered = matches!(&event.data, EventData::AttemptReset(reset)
            if !reset.continues && reset.resume_after <= self.cursor);
        if event.prev != self.cursor && !covered {
            let what = format!(
                "{} follows {}, and was shown behind {}",
                event.id, event.prev, self.cursor
            );
            judgement.accuse("I13", Some(self.run), what);
        }
        if event.id.attempt() < self.cursor.attempt() {
            let what = format!(
                "{} was shown after attempt {}",
                event.id,
                self.cursor.attempt()
            );
            judgement.accuse("I10", Some(self.run), what);
        }
        if self
            .events
            .last()
            .is_some_and(|last| last.data.is_terminal())
        {
            judgement.accuse(
                "I4",
                Some(self.run),
                format!("{} follows the end", event.id),
            );
        }
        if let Some(last_at) = self.last_at.replace(at) {
            self.pause = self.pause.max(at.saturating_sub(last_at));
        }
        self.cursor = event.id;
        self.events.push(event);
    }

    fn judge_end(&self, run: Option<&LedgerRun>, judgement: &mut Judgement) {
        let Some(run) = run else {
            judgement.accuse("I1", Some(self.run), "followed, and not in the ledger");
            return;
        };
        if !run.status.is_terminal() {
            return;
        }
        let ended = self
            .events
            .last()
            .is_some_and(|last| last.data.is_terminal());
        if self.told_no_more && !ended && self.cursor != run.last_event_id {
            let what = format!(
                "a follower at {} was told that there is no more",
                self.cursor
            );
            judgement.accuse("I13", Some(run.id), what);
        }
        if !ended && !self.told_no_more {
            judgement.accuse("I1", Some(run.id), "a follower never saw its end");
        }
        if run.status == RunStatus::Completed && ended && self.from_start {
            let text = shown_text(&self.events);
            if text != run.text() {
                let what = format!("a follower saw {text:?}, stored is {:?}", run.text());
                judgement.accuse("I11", Some(run.id), what);
            }
        }
    }
}
