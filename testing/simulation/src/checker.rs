//! The checker: examines the final state.

use std::collections::BTreeMap;

use baton_invariants::Invariant;
use baton_protocol::event::AttemptReset;
use baton_protocol::{Decision, Effect, Event, EventData, EventId, RunId, RunStatus};
use baton_store::{StepData, StepRecord};
use serde::Deserialize as _;

use crate::accusation::{Accusation, name};
use crate::executor::ProcessId;
use crate::ledger::{Row, State};
use crate::view::{View, events_of};
use crate::world::{Sim, World};

impl Sim {
    /// Marks the process as hampered at this moment, so that a run that it loses counts as lost.
    pub(crate) fn excuse(&self, process: ProcessId) {
        let now = self.now();
        self.with_process(process, |process| {
            process.hampered_until = process.hampered_until.max(now);
        });
    }

    /// Checks expired leases: each counts as a failure, so its holder must have been hampered.
    pub(crate) fn judge_suspects(&self) {
        let suspects = std::mem::take(&mut self.world.borrow_mut().ledger.suspects);
        for suspect in suspects {
            let (hampered, unheard) = self.with_process(suspect.holder, |process| {
                (process.hampered_until, process.unheard_until)
            });
            let excused = hampered >= suspect.at || (suspect.early && unheard >= suspect.at);
            if !excused {
                let what = format!(
                    "attempt {} counts as a failure, and its worker was neither lost nor cut off",
                    suspect.attempt
                );
                self.accuse(Invariant::I5, suspect.run, what);
            }
        }
    }

    /// Checks the final state.
    pub(crate) fn judge(&self) {
        let world = self.world.borrow();
        let mut found = Vec::new();
        for (run, row) in &world.ledger.rows {
            let log: Vec<Event> = world
                .log
                .messages
                .get(run)
                .into_iter()
                .flatten()
                .flat_map(events_of)
                .collect();
            let mut judge = Judge {
                run: *run,
                row,
                log,
                found: &mut found,
            };
            judge.row();
            judge.log();
            judge.calls(&world);
            judge.inputs();
            for view in world.views.iter().filter(|view| view.run == *run) {
                judge.view(view);
            }
        }
        found.extend(world.ledger.judge_thread());
        let spent = world.ledger.spent();
        if spent > world.ledger.budget
            && let Some(run) = world.ledger.rows.keys().next()
        {
            let budget = world.ledger.budget;
            found.push(Accusation {
                invariant: Invariant::I25,
                run: *run,
                what: format!("its key's runs used {spent} tokens of {budget}"),
            });
        }
        for log in world.log.messages.values() {
            // A third is for the events of the run, and the rest to end it.
            if log.len() >= world.log.most as usize / 3 {
                self.count(|counts| &mut counts.full_logs);
            }
        }
        drop(world);
        for Accusation {
            invariant,
            run,
            what,
        } in found
        {
            self.accuse(invariant, run, what);
        }
    }
}

struct Judge<'a> {
    run: RunId,
    row: &'a Row,
    log: Vec<Event>,
    found: &'a mut Vec<Accusation>,
}

impl Judge<'_> {
    fn accuse(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.found.push(Accusation {
            invariant,
            run: self.run,
            what: what.into(),
        });
    }

    fn row(&mut self) {
        let status = self.row.status();
        if !status.is_terminal() {
            self.accuse(Invariant::I1, format!("it is still {status}"));
        }
        if self.row.ends > 1 {
            let what = format!("it has ended {} times", self.row.ends);
            self.accuse(Invariant::I4, what);
        }
        let numbers: Vec<u32> = self.row.steps.iter().map(|step| step.step).collect();
        if numbers.iter().zip(1..).any(|(have, want)| *have != want) {
            self.accuse(Invariant::I8, format!("its steps are {numbers:?}"));
        }
        let unfinished = self.row.steps.iter().any(|step| step.message.is_none());
        if status == RunStatus::Completed && unfinished && !self.ends_with_calls() {
            self.accuse(Invariant::I8, "it has completed with a step unfinished");
        }
    }

    /// Returns whether the run ends with calls for the client to make.
    fn ends_with_calls(&self) -> bool {
        self.row
            .steps
            .last()
            .is_some_and(|step| matches!(step.data, StepData::Call { .. }))
    }

    fn log(&mut self) {
        let mut last = EventId::ORIGIN;
        let mut found = Vec::new();
        for event in &self.log {
            if event.id.attempt() < last.attempt() {
                let what = format!("{} stands behind {}", show(event.id), show(last));
                found.push((Invariant::I10, what));
            } else if event.id <= last {
                let what = format!("{} stands behind {}", show(event.id), show(last));
                found.push((Invariant::I9, what));
            }
            if event.prev != last {
                let what = format!(
                    "{} names {} and stands behind {}",
                    show(event.id),
                    show(event.prev),
                    show(last)
                );
                found.push((Invariant::I13, what));
            }
            let opens = event.id.attempt() > last.attempt().max(1);
            // Within an attempt, a reset withdraws a turn that broke off.
            if opens && !matches!(event.data, EventData::AttemptReset(_)) {
                let what = format!("{} is not where a reset belongs", show(event.id));
                found.push((Invariant::I9, what));
            }
            last = event.id;
        }
        let ends = self.log.iter().filter(|event| event.data.is_terminal());
        let ends = ends.count();
        if let State::Ended(ended) = &self.row.state {
            let end = self.log.last().filter(|end| end.data.is_terminal());
            match end {
                Some(end) if end.id != ended.last_event => {
                    let (is, must) = (show(end.id), show(ended.last_event));
                    found.push((Invariant::I4, format!("the log ends with {is}, not {must}")));
                }
                Some(end) if status_of(&end.data) != Some(ended.outcome.status()) => {
                    let what = format!("{} in the log", end.data.kind());
                    found.push((Invariant::I4, what));
                }
                Some(_) if ends == 1 => {}
                _ => {
                    let what = format!("{ends} terminal events, and {} stands last", show(last));
                    found.push((Invariant::I4, what));
                }
            }
        } else if ends > 0 {
            found.push((Invariant::I4, "a terminal event, and no end".into()));
        }
        if self.row.status() == RunStatus::Completed {
            let standing = standing(&self.log);
            if text_of(&standing) != text_of_steps(&self.row.steps) {
                let what = format!(
                    "the log shows {:?}, and {:?} is recorded",
                    text_of(&standing),
                    text_of_steps(&self.row.steps)
                );
                found.push((Invariant::I11, what));
            }
            let calls = self.row.steps.iter().filter(|step| is_call(step));
            for call in calls {
                let times = standing.iter().filter(|event| {
                    event.step == call.step && matches!(event.data, EventData::ToolFinished(_))
                });
                let times = times.count();
                if times != 1 && call.message.is_some() {
                    let what = format!("the end of call {} stands {times} times", call.step);
                    found.push((Invariant::I11, what));
                }
            }
        }
        for (invariant, what) in found {
            self.accuse(invariant, what);
        }
    }

    fn calls(&mut self, world: &World) {
        let mut made: BTreeMap<u32, usize> = BTreeMap::new();
        let run = self.run;
        let executions = world.executions.iter();
        for execution in executions.filter(|execution| execution.run == run) {
            let recorded = self.row.recorded_at.get(&execution.step);
            if recorded.is_some_and(|recorded| *recorded <= execution.decided_at) {
                let what = format!("{:?} made call {} again", execution.holder, execution.step);
                self.accuse(Invariant::I7, what);
            }
            if execution.effect == Effect::AtMostOnce {
                *made.entry(execution.step).or_default() += 1;
            }
        }
        for (step, times) in made {
            let decisions = self.row.approvals.iter();
            let retries = decisions.filter(|asked| {
                let decided = asked.decided.as_ref();
                asked.step == step
                    && decided.is_some_and(|decided| decided.decision == Decision::Retry {})
            });
            let allowed = 1 + retries.count();
            if times > allowed {
                let what = format!("call {step} was made {times} times, and {allowed} are allowed");
                self.accuse(Invariant::I12, what);
            }
        }
    }

    /// Checks the messages that the run was sent.
    fn inputs(&mut self) {
        if self.row.passed_over {
            self.accuse(
                Invariant::I24,
                "it has ended with an answer, and a message waits",
            );
        }
        let standing = standing(&self.log);
        let mut found = Vec::new();
        for sent in &self.row.inputs {
            let is_own = |step: &&StepRecord| matches!(step.data, StepData::Input { id, .. } if id == sent.id);
            let steps = self.row.steps.iter().filter(is_own).count();
            let due = usize::from(sent.step.is_some_and(|step| step > 0));
            if steps != due {
                found.push(format!("a message is {steps} steps, not {due}"));
            }
            let kinds: Vec<&str> = standing
                .iter()
                .filter(|event| match &event.data {
                    EventData::InputAccepted(shown) => shown.id == sent.id,
                    EventData::InputApplied(shown) => shown.id == sent.id,
                    _ => false,
                })
                .map(|event| event.data.kind())
                .collect();
            let is_right = match (due, &*kinds) {
                (0, [] | ["input.accepted"]) => sent.step.is_none() || kinds.is_empty(),
                (1, ["input.accepted", "input.applied"]) => true,
                // A run that is ended from outside may lack the events of its last commit.
                (1, [] | ["input.accepted"]) => self.row.status() != RunStatus::Completed,
                _ => false,
            };
            if !is_right {
                found.push(format!(
                    "a message that is {due} steps has the events {kinds:?}"
                ));
            }
        }
        let applied: Vec<u32> = standing
            .iter()
            .filter(|event| matches!(event.data, EventData::InputApplied(_)))
            .map(|event| event.step)
            .collect();
        if !applied.is_sorted_by(|a, b| a < b) {
            found.push(format!("messages are applied in the order {applied:?}"));
        }
        for what in found {
            self.accuse(Invariant::I24, what);
        }
    }

    fn view(&mut self, view: &View) {
        let seen = view.events.borrow();
        let mut last = view.start;
        for event in seen.iter() {
            if event.id.attempt() < last.attempt() {
                let what = format!("a client saw {} behind {}", show(event.id), show(last));
                self.accuse(Invariant::I10, what);
            } else if event.id <= last {
                let what = format!("a client saw {} behind {}", show(event.id), show(last));
                self.accuse(Invariant::I13, what);
            }
            last = event.id;
        }
        if let Some(refused) = *view.refused.borrow() {
            let what = format!("a client that had seen {} was told {refused}", show(last));
            self.accuse(Invariant::I13, what);
        } else if !view.finished.get() {
            let what = format!("a client that had seen {} was left waiting", show(last));
            self.accuse(Invariant::I13, what);
        } else {
            let all = standing(&self.log);
            let all: Vec<_> = all.iter().filter(|event| event.id > view.start).collect();
            let seen = standing(&seen);
            if !seen.iter().eq(all.iter().copied()) {
                let ids = |events: &[&Event]| -> Vec<String> {
                    events.iter().map(|event| show(event.id)).collect()
                };
                let seen: Vec<_> = seen.iter().collect();
                let what = format!(
                    "a client from {} is left with {:?}, not {:?}",
                    show(view.start),
                    ids(&seen),
                    ids(&all)
                );
                self.accuse(Invariant::I13, what);
            }
        }
    }
}

/// Returns the events that remain after all resets.
fn standing(events: &[Event]) -> Vec<Event> {
    let mut standing: Vec<Event> = Vec::new();
    for event in events {
        if let EventData::AttemptReset(AttemptReset { resume_after, .. }) = &event.data {
            standing.retain(|event| event.id <= *resume_after);
        } else {
            standing.push(event.clone());
        }
    }
    standing
}

fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match &event.data {
        EventData::TextDelta(delta) => Some(delta.text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn is_call(step: &StepRecord) -> bool {
    matches!(step.data, StepData::Call { .. })
}

fn text_of_steps(steps: &[StepRecord]) -> String {
    let turns = steps
        .iter()
        .filter(|step| !is_call(step) && !matches!(step.data, StepData::Input { .. }));
    turns
        .filter_map(|turn| {
            let message = turn.message.as_deref()?;
            let message = serde_json::Value::deserialize(message).ok()?;
            Some(message["content"].as_str()?.to_owned())
        })
        .collect()
}

fn status_of(data: &EventData) -> Option<RunStatus> {
    match data {
        EventData::RunCompleted(_) => Some(RunStatus::Completed),
        EventData::RunFailed(_) => Some(RunStatus::Failed),
        EventData::RunCancelled(_) => Some(RunStatus::Cancelled),
        _ => None,
    }
}

/// Returns an event's id for people: attempt and number.
fn show(id: EventId) -> String {
    format!("{}.{}", id.attempt(), id.n())
}

impl std::fmt::Display for Accusation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} in {}: {}",
            self.invariant,
            name(self.run),
            self.what
        )
    }
}
