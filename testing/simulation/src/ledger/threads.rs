//! The thread of a seed: the rule for a run that comes while others have not ended, the order of the
//! runs, and the messages that they leave.

use baton_invariants::Invariant;
use baton_protocol::{MessageId, RunId, WorkerId};
use baton_store::{OnBusy, QueuedJob, StepData, StepRecord};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Cancel, Ledger, Row, State, job_of};
use crate::accusation::{Accusation, name};
use crate::guard::Guard;
use crate::time::Millis;

/// The way by which a run comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    /// On no thread.
    Alone,
    /// On the thread.
    OnThread(OnBusy),
    /// As a message for the time after this run.
    FollowUp(RunId),
}

/// The answer to a request for a run.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// There is such a run; these were cancelled for it.
    Run(Vec<(RunId, Cancel)>),
    /// The message of the request joined this run.
    Steered(RunId, Option<WorkerId>),
    /// There is no such run.
    Refused,
}

/// The place of a run on the thread.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The number of the thread's messages that its input begins with; `None` before its first claim.
    pub(crate) earlier: Option<usize>,
    /// The runs that it replaces.
    replaces: Vec<RunId>,
    /// The run that it must come after.
    follows: Option<RunId>,
    /// Whether its messages must not enter the thread.
    pub(crate) is_rolled_back: bool,
}

/// Returns the message of the request for a run.
pub(super) fn request_message(run: RunId) -> Box<RawValue> {
    let message = json!({"role": "user", "content": run});
    to_raw_value(&message).unwrap_or_default()
}

impl Row {
    fn has_begun(&self) -> bool {
        !self.grants.is_empty()
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// Puts the messages of the thread before the run's own.
    pub(super) fn begin_on_thread(&mut self, thread: &[(RunId, Box<RawValue>)]) {
        if let Some(place) = &mut self.place {
            place.earlier = Some(thread.len());
            let earlier = thread.iter().map(|(_, message)| message.clone());
            self.input.splice(0..0, earlier);
        }
    }

    /// Returns the messages that the run adds to its thread: those that it was sent, and those that it
    /// produced, without a turn with a call that has no result.
    fn left(&self) -> Vec<Box<RawValue>> {
        let Some(earlier) = self.place.as_ref().and_then(|place| place.earlier) else {
            return Vec::new();
        };
        let is_open = |step: &&StepRecord| step.is_open_call();
        let open_call = self.steps.iter().find(is_open).map(|step| step.step);
        let turns = self.steps.iter().filter(|step| {
            matches!(step.data, StepData::Turn { .. })
                && open_call.is_some_and(|open| step.step < open)
        });
        let open_turn = turns.map(|step| step.step).next_back();
        let produced = self
            .steps
            .iter()
            .filter(|step| open_turn.is_none_or(|open| step.step < open));
        let produced = produced.filter_map(|step| step.message.as_ref());
        self.input
            .iter()
            .skip(earlier)
            .chain(produced)
            .cloned()
            .collect()
    }
}

impl Ledger {
    /// Accepts a run, or answers as before if the request is repeated.
    pub(crate) fn accept(&mut self, run: RunId, door: Door, now: Millis) -> Accepted {
        if self.rows.contains_key(&run) {
            return Accepted::Run(Vec::new());
        }
        let on_busy = match door {
            Door::Alone => {
                self.insert(run, None, now);
                return Accepted::Run(Vec::new());
            }
            Door::OnThread(on_busy) => on_busy,
            Door::FollowUp(base) => {
                let goes_on = |row: &Row| !row.has_ended() && row.cancel.is_none();
                if !self.rows.get(&base).is_some_and(goes_on) {
                    return Accepted::Refused;
                }
                let place = Place {
                    follows: Some(base),
                    ..Place::default()
                };
                self.insert(run, Some(place), now);
                return Accepted::Run(Vec::new());
            }
        };
        let message = MessageId::from_uuid(run.as_uuid());
        let others = self.unended();
        match on_busy {
            OnBusy::Reject if !others.is_empty() => {
                if self.setup.without != Some(Guard::BusyRefusal) {
                    return Accepted::Refused;
                }
                self.accuse_thread(run, "it is accepted, and others have not ended".into());
            }
            OnBusy::Steer => {
                let knows = |row: &Row| row.inputs.iter().any(|sent| sent.id == message);
                let known = self.rows.iter().find(|(_, row)| knows(row));
                let known = known.map(|(working, _)| *working);
                if let Some(working) = known.or_else(|| self.working(&others)) {
                    return if self.send_input(working, message) {
                        Accepted::Steered(working, self.holder(working))
                    } else {
                        Accepted::Refused
                    };
                }
            }
            OnBusy::Reject | OnBusy::Queue | OnBusy::Interrupt | OnBusy::Rollback => {}
        }
        let replaces = match on_busy {
            OnBusy::Interrupt | OnBusy::Rollback => others.clone(),
            OnBusy::Reject | OnBusy::Queue | OnBusy::Steer => Vec::new(),
        };
        let place = Place {
            replaces: replaces.clone(),
            ..Place::default()
        };
        self.insert(run, Some(place), now);
        let mut cancelled = Vec::new();
        for other in replaces {
            let place = self.rows.get_mut(&other).and_then(|row| row.place.as_mut());
            if let Some(place) = place {
                place.is_rolled_back |= on_busy == OnBusy::Rollback;
            }
            if self.setup.without != Some(Guard::OthersCancelled)
                && let Some(cancel) = self.request_cancel(other, "replaced")
            {
                cancelled.push((other, cancel));
            }
        }
        Accepted::Run(cancelled)
    }

    /// Returns the runs of the thread that have not ended, in order.
    fn unended(&self) -> Vec<RunId> {
        let rows = self.rows.iter();
        let unended = rows.filter(|(_, row)| row.place.is_some() && !row.has_ended());
        unended.map(|(run, _)| *run).collect()
    }

    /// Returns the one of these runs that takes a message for the thread.
    fn working(&self, unended: &[RunId]) -> Option<RunId> {
        let goes_on = |run: &&RunId| self.rows[*run].cancel.is_none();
        let working = unended.iter().filter(goes_on);
        working
            .min_by_key(|run| (!self.rows[*run].has_begun(), **run))
            .copied()
    }

    /// Returns whether a run must not begin yet.
    pub(super) fn waits_for_thread(&self, run: RunId) -> bool {
        let Some(row) = self.rows.get(&run) else {
            return false;
        };
        let is_new = row.place.is_some() && !row.has_begun() && !row.has_ended();
        is_new && self.setup.without != Some(Guard::ThreadTurn) && {
            let by_id = self.setup.without != Some(Guard::ThreadOrder);
            let goes_first = |other: &&RunId| {
                **other != run && (self.rows[*other].has_begun() || by_id && **other < run)
            };
            self.unended().iter().any(|other| goes_first(&other))
        }
    }

    /// Checks the first claim of a run against the order of the thread.
    pub(super) fn judge_beginning(&mut self, run: RunId) {
        let is_new = |row: &Row| row.place.is_some() && !row.has_begun() && !row.has_ended();
        let Some(row) = self.rows.get(&run).filter(|row| is_new(row)) else {
            return;
        };
        let mut found = Vec::new();
        for other in self.unended() {
            let has_begun = self.rows[&other].has_begun();
            if other != run && has_begun {
                found.push(format!("it begins, and {} is at work", name(other)));
            } else if other < run {
                found.push(format!("it begins before {}", name(other)));
            }
        }
        let follows = row.place.as_ref().and_then(|place| place.follows);
        let base = follows.filter(|base| !self.rows[base].has_ended());
        if let Some(base) = base {
            found.push(format!("it begins before the end of {}", name(base)));
        }
        for (other, row) in &self.rows {
            let place = row.place.as_ref();
            if place.is_some_and(|place| place.replaces.contains(&run)) {
                found.push(format!("it begins, and {} had replaced it", name(*other)));
            }
        }
        for what in found {
            self.accuse_thread(run, what);
        }
    }

    /// Adds the messages of a run that has ended to the thread.
    pub(super) fn leave_in_thread(&mut self, run: RunId) {
        let Some(row) = self.rows.get(&run) else {
            return;
        };
        let is_rolled_back = row.place.as_ref().is_some_and(|place| place.is_rolled_back);
        if is_rolled_back && self.setup.without != Some(Guard::RolledBackEnd) {
            return;
        }
        let left = row.left();
        self.thread
            .extend(left.into_iter().map(|message| (run, message)));
    }

    /// Returns the run of the thread that goes next after one that has ended.
    pub(crate) fn next_after(&self, ended: RunId) -> Option<QueuedJob> {
        self.rows.get(&ended)?.place.as_ref()?;
        if self.is_thread_active() {
            return None;
        }
        let queued = |run: &&RunId| matches!(self.rows[*run].state, State::Queued(_));
        let next = self.unended().iter().find(queued).copied()?;
        Some(job_of(next, &self.rows[&next]))
    }

    /// Returns whether a run of the thread is running or waits for a person.
    pub(super) fn is_thread_active(&self) -> bool {
        let is_active = |run: &RunId| !matches!(self.rows[run].state, State::Queued(_));
        self.unended().iter().any(is_active)
    }

    /// Checks the messages of the thread at the end.
    pub(crate) fn judge_thread(&self) -> Vec<Accusation> {
        let mut found = Vec::new();
        for (run, row) in &self.rows {
            let Some(place) = &row.place else { continue };
            let own = self.thread.iter().filter(|(by, _)| by == run).count();
            let expected = if place.is_rolled_back {
                0
            } else {
                row.left().len()
            };
            if own != expected {
                let what = format!("the thread has {own} of its messages, not {expected}");
                found.push((*run, what));
            }
            let begin = self.thread.iter().zip(&row.input);
            let mut begin = begin.take(place.earlier.unwrap_or(0));
            if begin.any(|((_, earlier), shown)| earlier.get() != shown.get()) {
                found.push((
                    *run,
                    "it began with other messages than the thread's".into(),
                ));
            }
        }
        let accusation = |(run, what)| Accusation {
            invariant: Invariant::I26,
            run,
            what,
        };
        found.into_iter().map(accusation).collect()
    }

    fn accuse_thread(&mut self, run: RunId, what: String) {
        self.accusations.push(Accusation {
            invariant: Invariant::I26,
            run,
            what,
        });
    }
}
