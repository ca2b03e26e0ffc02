//! Judges the clients' view: each event once and in order, the whole text, and no silence taken for
//! an end (I1, I4, I11, I13).

use std::collections::{BTreeMap, HashMap};

use baton_invariants::Invariant;
use baton_protocol::{Event, EventData, EventId, RunId, RunStatus};

use super::history::{FORGED, Record, What};
use super::judgement::Judgement;
use super::ledger_run::LedgerRun;
use super::logs::{Standing, status_of};
use super::losses::Losses;

/// All followers and chats.
#[derive(Debug, Default)]
pub(super) struct Clients {
    followers: BTreeMap<u64, Follower>,
    /// Runs with a chat that ended because their events were gone.
    lost_chats: Vec<RunId>,
}

/// One client's view of one run, over all its connections.
#[derive(Debug)]
struct Follower {
    run: RunId,
    /// Whether it began with the first event.
    from_start: bool,
    cursor: EventId,
    /// The number of events that it has seen.
    seen: usize,
    text: Standing,
    /// The run's final state, as it was shown.
    ended: Option<RunStatus>,
    last_at: Option<u64>,
    pause: u64,
    told_no_more: bool,
    /// The status and code of the answer that its run or its events are gone.
    lost: Option<(u16, String)>,
}

impl Clients {
    pub(super) fn see(&mut self, record: &Record, judgement: &mut Judgement) {
        match &record.what {
            What::Opened {
                follower,
                run,
                after,
            } => {
                let known = self.followers.entry(*follower);
                let known = known.or_insert_with(|| Follower::new(*run, *after));
                // A follower that resumes after an event it has not seen proves nothing about the
                // events between.
                known.cursor = *after;
            }
            What::Event { follower, line } => {
                if let Some(follower) = self.followers.get_mut(follower) {
                    judge_words(Some(follower.run), line, judgement);
                    judgement.events += 1;
                    follower.see(record.at, line, judgement);
                }
            }
            What::NoMore { follower } => {
                if let Some(follower) = self.followers.get_mut(follower) {
                    follower.told_no_more = true;
                }
            }
            What::Lost {
                follower,
                status,
                code,
            } => {
                if let Some(follower) = self.followers.get_mut(follower) {
                    follower.lost = Some((*status, code.clone()));
                }
            }
            What::Chat {
                run,
                expected,
                text,
                end,
            } => {
                judge_words(*run, text, judgement);
                *judgement.chats.entry(end.clone()).or_default() += 1;
                let right = match &**end {
                    "done" => text == expected,
                    _ => expected.starts_with(&**text),
                };
                if !right {
                    let what =
                        format!("a chat that ended with {end} showed {text:?}, not {expected:?}");
                    judgement.accuse(Invariant::I11, *run, what);
                }
                self.lost_chats.extend(run.filter(|_| end == "events_lost"));
            }
            _ => {}
        }
    }

    pub(super) fn finish(
        &self,
        runs: &HashMap<RunId, LedgerRun>,
        losses: &Losses,
        judgement: &mut Judgement,
    ) {
        for follower in self.followers.values() {
            match runs.get(&follower.run) {
                Some(run) => follower.judge_end(run, losses, judgement),
                None => {
                    judgement.accuse(
                        Invariant::I1,
                        Some(follower.run),
                        "followed, and not in the ledger",
                    );
                }
            }
            if follower.seen > 1 {
                judgement.pauses.push(follower.pause);
            }
        }
        for chat in &self.lost_chats {
            if runs.get(chat).is_some_and(|run| !losses.may_hit(run)) {
                let what = "a chat was told that its events are lost";
                judgement.accuse(Invariant::I13, Some(*chat), what);
            }
        }
        judgement.pauses.sort_unstable();
        judgement.recoveries.sort_unstable();
    }
}

/// Checks that no client was shown the text of a hostile program.
fn judge_words(run: Option<RunId>, shown: &str, judgement: &mut Judgement) {
    if shown.contains(FORGED) {
        judgement.accuse(Invariant::I18, run, format!("a client was shown {shown:?}"));
    }
}

impl Follower {
    fn new(run: RunId, after: EventId) -> Self {
        Self {
            run,
            from_start: after == EventId::ORIGIN,
            cursor: after,
            seen: 0,
            text: Standing::default(),
            ended: None,
            last_at: None,
            pause: 0,
            told_no_more: false,
            lost: None,
        }
    }

    fn see(&mut self, at: u64, line: &str, judgement: &mut Judgement) {
        let event = match Event::decode(line.as_bytes()) {
            Ok(event) => event,
            Err(error) => {
                judgement.accuse(
                    Invariant::I13,
                    Some(self.run),
                    format!("unreadable event: {error}"),
                );
                return;
            }
        };
        if event.run_id != self.run {
            let what = format!("was shown an event of run {}", event.run_id);
            judgement.accuse(Invariant::I18, Some(self.run), what);
        }
        if event.id <= self.cursor {
            let what = format!("{} was shown behind {}", event.id, self.cursor);
            judgement.accuse(Invariant::I13, Some(self.run), what);
        }
        let resets = matches!(&event.data, EventData::AttemptReset(_));
        // A reset withdraws everything after its id, so that nothing there can be missed.
        let covered = matches!(&event.data, EventData::AttemptReset(reset)
            if !reset.continues && reset.resume_after <= self.cursor);
        if event.prev != self.cursor && !covered {
            let what = format!(
                "{} follows {}, and was shown behind {}",
                event.id, event.prev, self.cursor
            );
            judgement.accuse(Invariant::I13, Some(self.run), what);
        }
        if event.id.attempt() < self.cursor.attempt() {
            let what = format!(
                "{} was shown after attempt {}",
                event.id,
                self.cursor.attempt()
            );
            judgement.accuse(Invariant::I10, Some(self.run), what);
        }
        if self.ended.is_some() {
            let what = format!("{} follows the end", event.id);
            judgement.accuse(Invariant::I4, Some(self.run), what);
        }
        if let Some(last_at) = self.last_at.replace(at) {
            let silence = at.saturating_sub(last_at);
            self.pause = self.pause.max(silence);
            if resets {
                judgement.recoveries.push(silence);
            }
        }
        self.ended = status_of(&event.data);
        self.cursor = event.id;
        self.seen += 1;
        self.text.see(&event);
    }

    fn judge_end(&self, run: &LedgerRun, losses: &Losses, judgement: &mut Judgement) {
        if let Some((status, code)) = &self.lost {
            // The answer that events are gone is right exactly if they are gone.
            let gone = *status == 410 && losses.may_hit(run);
            if gone {
                judgement.expired += 1;
            } else {
                let invariant = if *status == 404 {
                    Invariant::I1
                } else {
                    Invariant::I13
                };
                let what = format!("a follower was told {status} {code}");
                judgement.accuse(invariant, Some(self.run), what);
            }
        }
        if !run.status.is_terminal() {
            return;
        }
        let excused = self.told_no_more || self.lost.is_some();
        match self.ended {
            None if self.told_no_more && self.cursor != run.last_event_id => {
                let what = format!(
                    "a follower at {} was told that there is no more",
                    self.cursor
                );
                judgement.accuse(Invariant::I13, Some(run.id), what);
            }
            None if !excused => {
                judgement.accuse(Invariant::I1, Some(run.id), "a follower never saw its end");
            }
            Some(shown) if shown != run.status => {
                let what = format!("a follower saw it {shown}, the ledger says {}", run.status);
                judgement.accuse(Invariant::I4, Some(run.id), what);
            }
            _ => {}
        }
        if self.ended == Some(RunStatus::Completed) && self.from_start {
            let text = self.text.text();
            if text != run.text() {
                let what = format!("a follower saw {text:?}, stored is {:?}", run.text());
                judgement.accuse(Invariant::I11, Some(run.id), what);
            }
        }
    }
}
