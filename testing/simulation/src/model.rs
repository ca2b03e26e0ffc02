//! The core as a model that is checked exhaustively: two workers, one run with one call that must
//! not be repeated, a scheduler, a person. It tries every order of their steps, with lost workers,
//! zombies, redeliveries, a cancel at any moment, parking and decisions.
//!
//! There is no clock: a lease may expire at any moment (as often as [`Model::losses`] allows), and
//! its former holder continues unaware of it. So a zombie needs no special treatment.

use stateright::{Model as Checked, Property};

use crate::Guard;

/// The parameters of a check.
#[derive(Debug, Clone)]
pub struct Model {
    /// The most leases that may expire.
    pub losses: u8,
    /// The mechanism to leave out.
    pub without: Option<Guard>,
}

/// The run's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Queued,
    Running,
    Parked,
    Ended,
}

/// The only call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Call {
    Pending,
    /// Begun by this attempt.
    Started(u8),
    Recorded,
}

/// A person's decision about the call, with the attempt that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decision {
    Retry(u8),
    Fail(u8),
}

/// An event, by its attempt, and whether it ends the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Event {
    attempt: u8,
    ends: bool,
}

/// The next step of a worker for the attempt that it believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    /// Read the log's last message.
    Adopt,
    /// Show that it has begun.
    Show,
    /// Begin the call, settle it, or ask.
    Decide,
    Execute,
    Record,
    End,
    /// Append the end, and then acknowledge.
    TellEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Work {
    attempt: u8,
    next: Next,
    /// The length of the log, as far as the worker knows.
    position: u8,
    /// The call's state at the claim.
    call: Call,
    decision: Option<Decision>,
}

/// The whole state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    row: Row,
    attempt: u8,
    cancel: bool,
    call: Call,
    decision: Option<Decision>,
    log: Vec<Event>,
    /// Whether the stream has a job for the run.
    job: bool,
    workers: [Option<Work>; 2],
    losses: u8,
    ends: u8,
    executions: u8,
    retries: u8,
    decisions: u8,
    /// Whether a commit of an older attempt was accepted.
    stale: bool,
    /// Whether the call was begun although its result was recorded.
    repeated: bool,
}

/// One step of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The job is delivered, for the first time or again.
    Deliver(usize),
    /// The worker does its next step.
    Step(usize),
    /// The worker dies.
    Crash(usize),
    /// The lease expires, and the scheduler queues the run.
    Expire,
    /// The scheduler publishes the job of a queued run again.
    Publish,
    /// A client requests a cancel.
    Cancel,
    /// A person decides to retry.
    Retry,
    /// A person decides to fail.
    Fail,
    /// A relay finds the run ended without its event.
    Mend,
}

impl Model {
    fn guarded(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Returns whether the ledger accepts a write of this attempt.
    fn holds(&self, state: &mut State, attempt: u8) -> bool {
        if state.row != Row::Running {
            return false;
        }
        if state.attempt != attempt {
            if self.guarded(Guard::AttemptFence) {
                return false;
            }
            state.stale = true;
        }
        true
    }

    /// Appends an event; returns whether the worker may continue.
    fn append(&self, state: &mut State, work: &mut Work, ends: bool) -> bool {
        let length = u8::try_from(state.log.len()).unwrap_or(u8::MAX);
        if work.position != length && self.guarded(Guard::CompareAndSet) {
            let tip = state.log.last().map_or(0, |event| event.attempt);
            let newer = tip > work.attempt || state.log.last().is_some_and(|event| event.ends);
            if newer && self.guarded(Guard::TipBeforeAdopting) {
                return false;
            }
        }
        let attempt = work.attempt;
        state.log.push(Event { attempt, ends });
        work.position = length + 1;
        true
    }

    fn step(&self, state: &mut State, mut work: Work) -> Option<Work> {
        let attempt = work.attempt;
        match work.next {
            Next::Adopt => {
                if state.log.last().is_some_and(|tip| tip.attempt >= attempt) {
                    return None;
                }
                work.position = u8::try_from(state.log.len()).unwrap_or(u8::MAX);
                work.next = Next::Show;
            }
            Next::Show => {
                if !self.append(state, &mut work, false) {
                    return None;
                }
                work.next = Next::Decide;
            }
            Next::Decide => {
                let asked = match work.decision {
                    Some(Decision::Retry(by) | Decision::Fail(by)) => Some(by),
                    None => None,
                };
                match (work.call, work.decision) {
                    (Call::Recorded, _) => work.next = Next::End,
                    (Call::Started(by), _)
                        if asked.is_none_or(|asked| {
                            asked < by && self.guarded(Guard::DecisionUsedUp)
                        }) =>
                    {
                        if !self.holds(state, attempt) {
                            return None;
                        }
                        if state.cancel {
                            work.next = Next::End;
                        } else {
                            state.row = Row::Parked;
                            state.decision = None;
                            state.job = false;
                            return None;
                        }
                    }
                    (Call::Started(_), Some(Decision::Fail(_))) => work.next = Next::Record,
                    (Call::Pending | Call::Started(_), _) => {
                        if !self.holds(state, attempt) {
                            return None;
                        }
                        if self.guarded(Guard::StartNote) {
                            state.call = Call::Started(attempt);
                        }
                        work.next = Next::Execute;
                    }
                }
            }
            Next::Execute => {
                // A request in flight cannot be withdrawn, and may be a zombie's by now.
                state.executions += 1;
                work.next = Next::Record;
            }
            Next::Record => {
                if !self.holds(state, attempt) {
                    return None;
                }
                state.repeated |= state.call == Call::Recorded;
                state.call = Call::Recorded;
                work.next = Next::End;
            }
            Next::End => {
                if !self.holds(state, attempt) {
                    return None;
                }
                state.row = Row::Ended;
                state.ends += 1;
                work.next = Next::TellEnd;
            }
            Next::TellEnd => {
                self.append(state, &mut work, true);
                state.job = false;
                return None;
            }
        }
        Some(work)
    }

    /// Appends the missing end as the attempt that ended the run, as any process that finds it
    /// does.
    fn tell_end(&self, state: &mut State) {
        let told = state.log.last().is_some_and(|event| event.ends);
        if !told && self.guarded(Guard::TerminalEvent) {
            let attempt = state.attempt;
            state.log.push(Event {
                attempt,
                ends: true,
            });
        }
    }

    /// Ends a run without a holder, which takes a new attempt.
    fn end_from_outside(state: &mut State) {
        state.row = Row::Ended;
        state.attempt += 1;
        state.ends += 1;
    }

    fn deliver(&self, state: &mut State, worker: usize) {
        match state.row {
            Row::Ended => {
                self.tell_end(state);
                state.job = false;
            }
            Row::Queued if state.cancel => Self::end_from_outside(state),
            Row::Queued => {
                state.attempt += 1;
                state.row = Row::Running;
                state.workers[worker] = Some(Work {
                    attempt: state.attempt,
                    next: Next::Adopt,
                    position: 0,
                    call: state.call,
                    decision: state.decision,
                });
            }
            Row::Parked => state.job = false,
            Row::Running => {}
        }
    }
}

impl Checked for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            row: Row::Queued,
            attempt: 0,
            cancel: false,
            call: Call::Pending,
            decision: None,
            log: Vec::new(),
            job: true,
            workers: [None, None],
            losses: 0,
            ends: 0,
            executions: 0,
            retries: 0,
            decisions: 0,
            stale: false,
            repeated: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..state.workers.len() {
            if state.workers[worker].is_some() {
                actions.push(Action::Step(worker));
                if state.losses < self.losses {
                    actions.push(Action::Crash(worker));
                }
            } else if state.job {
                actions.push(Action::Deliver(worker));
            }
        }
        let held = state.workers.iter().flatten();
        let lost = held.clone().all(|work| work.attempt != state.attempt);
        if state.row == Row::Running && (lost || state.losses < self.losses) {
            actions.push(Action::Expire);
        }
        if state.row == Row::Queued && !state.job {
            actions.push(Action::Publish);
        }
        if !state.cancel && state.row != Row::Ended {
            actions.push(Action::Cancel);
        }
        if state.row == Row::Parked {
            actions.push(Action::Fail);
            if state.decisions < 2 {
                actions.push(Action::Retry);
            }
        }
        if state.row == Row::Ended && state.workers == [None, None] {
            actions.push(Action::Mend);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Deliver(worker) => self.deliver(&mut state, worker),
            Action::Step(worker) => {
                let work = state.workers[worker].take()?;
                state.workers[worker] = self.step(&mut state, work);
            }
            Action::Crash(worker) => {
                state.workers[worker] = None;
                state.losses += 1;
            }
            Action::Expire => {
                let held = state.workers.iter().flatten();
                let mut holders = held.filter(|work| work.attempt == state.attempt);
                // Otherwise its holder is dead, and its loss was counted.
                state.losses += u8::from(holders.next().is_some());
                state.row = Row::Queued;
            }
            Action::Publish => state.job = true,
            Action::Cancel => {
                state.cancel = true;
                if state.row != Row::Running {
                    Self::end_from_outside(&mut state);
                }
            }
            Action::Retry => {
                state.decision = Some(Decision::Retry(state.attempt));
                state.retries += 1;
                state.decisions += 1;
                state.row = Row::Queued;
            }
            Action::Fail => {
                state.decision = Some(Decision::Fail(state.attempt));
                state.decisions += 1;
                state.row = Row::Queued;
            }
            Action::Mend => self.tell_end(&mut state),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a run ends once", |_, state: &State| state.ends <= 1),
            Property::always("the end is told once, and last", |_, state: &State| {
                let ends = state.log.iter().filter(|event| event.ends).count();
                ends == 0 || (ends == 1 && state.log.last().is_some_and(|event| event.ends))
            }),
            Property::always("no event of an older attempt", |_, state: &State| {
                state.log.is_sorted_by_key(|event| event.attempt)
            }),
            Property::always("only the newest attempt commits", |_, state: &State| {
                !state.stale
            }),
            Property::always("a result is recorded once", |_, state: &State| {
                !state.repeated
            }),
            Property::always(
                "a call is made once, and once more for each retry",
                |_, state: &State| state.executions <= 1 + state.retries,
            ),
            Property::eventually("the run ends, and its log says so", |_, state: &State| {
                state.row == Row::Ended && state.log.last().is_some_and(|event| event.ends)
            }),
            Property::sometimes("a run is parked", |_, state: &State| {
                state.row == Row::Parked
            }),
            Property::sometimes(
                "a call is made twice, as a person wished",
                |_, state: &State| state.executions == 2 && state.call == Call::Recorded,
            ),
            Property::sometimes(
                "two workers believe that they hold it",
                |_, state: &State| state.workers.iter().all(Option::is_some),
            ),
            Property::sometimes("an idle run is cancelled", |_, state: &State| {
                state.row == Row::Ended
                    && state.cancel
                    && state.attempt == 1
                    && state.log.is_empty()
            }),
        ]
    }
}
