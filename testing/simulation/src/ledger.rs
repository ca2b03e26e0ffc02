//! The ledger: a row per run, with the guards of the statements in `baton-store`. The transitions
//! are the protocol's own.
//!
//! Each row also has data for the checker that no guard reads: the holders of the run, and the
//! accepted writes.

mod approvals;
mod budget;
mod claim;
mod inputs;
mod lease;
mod steps;
mod threads;

use std::collections::BTreeMap;
use std::time::Duration;

use baton_invariants::Invariant;
use baton_protocol::run::{Ended, Held, Idle};
use baton_protocol::{
    ClaimToken, EventId, Fence, FinishReason, Lane, Outcome, RunId, RunStatus, TenantId, ThreadId,
    Usage, WorkerId,
};
use baton_store::{
    ApprovalRecord, CallState, EndedRun, NewCall, QueuedJob, RecordedEvents, StepData, StepRecord,
};
use serde_json::value::RawValue;
use uuid::Uuid;

pub(crate) use self::budget::Share;
pub(crate) use self::inputs::SentInput;
pub(crate) use self::threads::{Accepted, Door, Place};
use crate::accusation::Accusation;
use crate::executor::ProcessId;
use crate::guard::{Guard, Setup};
use crate::time::{Millis, date};

/// Returns the only tenant.
pub(crate) fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(1))
}

/// Returns the only thread.
fn thread() -> ThreadId {
    ThreadId::from_uuid(Uuid::from_u128(2))
}

/// Returns whether a run is submitted with the key, which has a budget and may be revoked.
fn is_metered(run: RunId) -> bool {
    !run.as_uuid().as_u128().is_multiple_of(2)
}

/// The attempt does not hold the run, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// The state of a run.
#[derive(Debug)]
pub(crate) enum State {
    Queued(Idle),
    Running { held: Held, expires: Millis },
    Parked(Idle),
    Ended(Ended),
}

/// A granted claim, and its result.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) attempt: u32,
    token: ClaimToken,
    pub(crate) holder: ProcessId,
    pub(crate) at: Millis,
    /// Whether a step was recorded, or the run was given back or ended.
    accounted: bool,
}

pub(crate) struct Row {
    pub(crate) state: State,
    token: Option<ClaimToken>,
    worker: Option<WorkerId>,
    job_seq: Option<u64>,
    queued_at: Millis,
    published_at: Option<Millis>,
    pub(crate) cancel: Option<String>,
    pub(crate) usage: Usage,
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) approvals: Vec<ApprovalRecord>,
    /// The messages that its model is shown first.
    pub(crate) input: Vec<Box<RawValue>>,
    /// The messages that it was sent, in order.
    pub(crate) inputs: Vec<SentInput>,
    /// The step from which on the last commit that took messages recorded them.
    inputs_step: Option<u32>,
    /// Whether it ended with an answer although a message waited.
    pub(crate) passed_over: bool,
    pub(crate) place: Option<Place>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) ends: u32,
    /// Whether a process without a job of it ended it.
    end_unlogged: bool,
    /// Whether it was submitted with the key that has a budget.
    pub(crate) is_metered: bool,
    pub(crate) share: Share,
    /// A number that changes with each write to the row.
    version: u64,
    /// The time at which each step's result was recorded.
    pub(crate) recorded_at: BTreeMap<u32, Millis>,
}

/// A turn that does not end its run.
pub(crate) struct TurnEntry {
    pub(crate) step: u32,
    pub(crate) message: Box<RawValue>,
    pub(crate) usage: Usage,
    pub(crate) usage_total: Usage,
    pub(crate) finish_reason: FinishReason,
    pub(crate) last_event: EventId,
    pub(crate) calls: Vec<NewCall>,
    pub(crate) inputs_step: Option<u32>,
}

/// A summary in place of the conversation.
pub(crate) struct SummaryEntry {
    pub(crate) step: u32,
    pub(crate) summary: Box<RawValue>,
    pub(crate) usage: Usage,
    pub(crate) usage_total: Usage,
    pub(crate) last_event: EventId,
}

/// A call's result.
pub(crate) struct CallEntry {
    pub(crate) step: u32,
    pub(crate) ok: bool,
    pub(crate) duration_ms: u64,
    pub(crate) message: Box<RawValue>,
    pub(crate) last_event: EventId,
    pub(crate) started_event: EventId,
    pub(crate) inputs_step: Option<u32>,
}

/// The end of a run.
pub(crate) struct EndEntry {
    pub(crate) outcome: Outcome,
    pub(crate) last_event: EventId,
    pub(crate) usage_total: Usage,
    pub(crate) turn: Option<FinalEntry>,
    pub(crate) cut: Option<CutEntry>,
    pub(crate) unless_inputs_wait: bool,
}

/// The turn that was broken off by the end of its run.
pub(crate) struct CutEntry {
    pub(crate) step: u32,
    pub(crate) message: Box<RawValue>,
    pub(crate) usage: Usage,
    pub(crate) last_event: EventId,
}

/// The last turn of a run.
pub(crate) struct FinalEntry {
    pub(crate) step: u32,
    pub(crate) message: Box<RawValue>,
    pub(crate) usage: Usage,
    pub(crate) finish_reason: FinishReason,
    pub(crate) last_event: EventId,
}

/// The result of a cancel request.
#[derive(Debug)]
pub(crate) enum Cancel {
    Ended(EndedRun),
    Requested(Option<WorkerId>),
}

pub(crate) struct Ledger {
    setup: Setup,
    /// The tokens that the key may use up.
    pub(crate) budget: u64,
    /// The time at which the key was revoked.
    pub(crate) revoked_at: Option<Millis>,
    pub(crate) rows: BTreeMap<RunId, Row>,
    /// The messages of the thread, each with the run that left it.
    pub(crate) thread: Vec<(RunId, Box<RawValue>)>,
    pub(crate) accusations: Vec<Accusation>,
    /// Attempts that count as failures. The checker decides whether their processes were hampered.
    pub(crate) suspects: Vec<Suspect>,
}

/// An attempt that counts as a failure.
pub(crate) struct Suspect {
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) holder: ProcessId,
    /// The time at which the holder got the run.
    pub(crate) at: Millis,
    /// Whether the run was taken before the lease expired.
    pub(crate) early: bool,
}

impl Row {
    pub(crate) fn status(&self) -> RunStatus {
        match &self.state {
            State::Queued(_) => RunStatus::Queued,
            State::Running { .. } => RunStatus::Running,
            State::Parked(_) => RunStatus::AwaitingApproval,
            State::Ended(ended) => ended.outcome.status(),
        }
    }

    fn ended(&self, newly: bool) -> Option<EndedRun> {
        let State::Ended(ended) = &self.state else {
            return None;
        };
        Some(EndedRun {
            attempt: ended.attempt,
            outcome: ended.outcome.clone(),
            last_event_id: ended.last_event,
            usage: self.usage,
            cancel_latency: None,
            newly,
        })
    }

    fn insert(&mut self, record: StepRecord, now: Millis) {
        if self.steps.iter().any(|step| step.step == record.step) {
            return;
        }
        if record.message.is_some() {
            self.recorded_at.insert(record.step, now);
        }
        self.steps.push(record);
        self.steps.sort_by_key(|step| step.step);
    }
}

impl Ledger {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            budget: u64::MAX,
            revoked_at: None,
            rows: BTreeMap::new(),
            thread: Vec::new(),
            accusations: Vec::new(),
            suspects: Vec::new(),
        }
    }

    /// Adds a row.
    fn insert(&mut self, run: RunId, place: Option<Place>, now: Millis) {
        let row = Row {
            state: State::Queued(Idle::default()),
            token: None,
            worker: None,
            job_seq: None,
            queued_at: now,
            published_at: None,
            cancel: None,
            usage: Usage::default(),
            steps: Vec::new(),
            approvals: Vec::new(),
            input: vec![threads::request_message(run)],
            inputs: Vec::new(),
            inputs_step: None,
            passed_over: false,
            place,
            grants: Vec::new(),
            ends: 0,
            end_unlogged: false,
            is_metered: is_metered(run),
            share: Share::default(),
            version: 0,
            recorded_at: BTreeMap::new(),
        };
        self.rows.insert(run, row);
    }

    /// Returns the run, if the attempt holds it.
    fn held(&mut self, fence: &Fence) -> Result<(&mut Row, Held), Lost> {
        let row = self.rows.get_mut(&fence.run).ok_or(Lost)?;
        let State::Running { held, .. } = &row.state else {
            return Err(Lost);
        };
        let held = *held;
        let is_fenced = self.setup.without != Some(Guard::AttemptFence);
        if is_fenced && (held.attempt != fence.attempt || row.token != Some(fence.token)) {
            return Err(Lost);
        }
        Ok((row, held))
    }

    /// Returns the run, if the attempt may write. Records a breach if a newer claim was granted.
    fn write(&mut self, fence: &Fence, what: &str) -> Result<(&mut Row, Held), Lost> {
        let (row, _) = self.held(fence)?;
        let newest = row.grants.last();
        if newest.is_none_or(|grant| (grant.attempt, grant.token) != (fence.attempt, fence.token)) {
            let newest = newest.map_or(0, |grant| grant.attempt);
            let accusation = Accusation {
                invariant: Invariant::I9,
                run: fence.run,
                what: format!(
                    "a {what} of attempt {} was taken, and the newest is {newest}",
                    fence.attempt
                ),
            };
            self.accusations.push(accusation);
        }
        let (row, held) = self.held(fence)?;
        row.version += 1;
        if let Some(grant) = row.grants.last_mut() {
            grant.accounted = true;
        }
        Ok((row, held))
    }

    pub(crate) fn request_cancel(&mut self, run: RunId, reason: &str) -> Option<Cancel> {
        let row = self.rows.get_mut(&run)?;
        if let Some(ended) = row.ended(false) {
            return Some(Cancel::Ended(ended));
        }
        row.version += 1;
        let reason = row.cancel.get_or_insert_with(|| reason.to_owned()).clone();
        let idle = match &row.state {
            State::Running { .. } => return Some(Cancel::Requested(row.worker)),
            State::Queued(idle) | State::Parked(idle) => *idle,
            State::Ended(_) => return None,
        };
        row.state = State::Ended(idle.end(Outcome::Cancelled(reason)));
        row.share.charge_open();
        row.ends += 1;
        row.end_unlogged = true;
        let ended = row.ended(true);
        self.leave_in_thread(run);
        ended.map(Cancel::Ended)
    }

    /// Returns queued runs with a job that was due or published long ago.
    pub(crate) fn unpublished(&self, older_than: Duration, now: Millis) -> Vec<QueuedJob> {
        self.rows
            .iter()
            .filter(|(_, row)| matches!(row.state, State::Queued(_)))
            .filter(|(_, row)| row.place.is_none() || !self.is_thread_active())
            .map(|(run, row)| job_of(*run, row))
            .filter(|job| job.last_due_at() + older_than <= date(now))
            .collect()
    }

    pub(crate) fn mark_published(&mut self, run: RunId, now: Millis) {
        if let Some(row) = self.rows.get_mut(&run)
            && matches!(row.state, State::Queued(_))
        {
            row.published_at = Some(now);
        }
    }

    /// Returns the last events that recorded steps cover.
    pub(crate) fn last_recorded_events(&self, run: RunId) -> RecordedEvents {
        let mut events = RecordedEvents::default();
        for step in self.rows.get(&run).into_iter().flat_map(|row| &row.steps) {
            let last = step.last_event_id.unwrap_or_default();
            events.last = events.last.max(last);
            if !matches!(step.data, StepData::Input { .. }) {
                events.of_commit = events.of_commit.max(last);
            }
        }
        events
    }

    /// Returns the ends of all ended runs, or only those that may be missing in their logs.
    pub(crate) fn ends(&self, only_unlogged: bool) -> Vec<(RunId, EndedRun)> {
        let rows = self.rows.iter();
        rows.filter(|(_, row)| row.end_unlogged || !only_unlogged)
            .filter_map(|(run, row)| Some((*run, row.ended(false)?)))
            .collect()
    }

    pub(crate) fn mark_end_logged(&mut self, run: RunId) {
        if let Some(row) = self.rows.get_mut(&run) {
            row.end_unlogged = false;
        }
    }

    /// Returns the end of an ended run.
    pub(crate) fn ended(&self, run: RunId) -> Option<EndedRun> {
        self.rows.get(&run)?.ended(false)
    }
}

fn open_call(row: &mut Row, step: u32) -> Option<&mut StepRecord> {
    row.steps.iter_mut().find(|record| {
        record.step == step
            && matches!(
                record.data,
                StepData::Call {
                    state: CallState::Pending { .. } | CallState::Started { .. },
                    ..
                }
            )
    })
}

fn job_of(run: RunId, row: &Row) -> QueuedJob {
    QueuedJob {
        tenant: tenant(),
        run,
        lane: Lane::Interactive,
        queued_at: date(row.queued_at),
        published_at: row.published_at.map(date),
    }
}

impl Row {
    /// Counts the outcome.
    pub(crate) fn count(&self, counts: &mut crate::counts::Counts) {
        for sent in &self.inputs {
            match sent.step {
                Some(_) => counts.applied_inputs += 1,
                None => counts.returned_inputs += 1,
            }
        }
        let is_rolled_back = |place: &Place| place.is_rolled_back && place.earlier.is_some();
        counts.rolled_back += u64::from(self.place.as_ref().is_some_and(is_rolled_back));
        let State::Ended(ended) = &self.state else {
            return;
        };
        match &ended.outcome {
            Outcome::Completed(_) => counts.completed += 1,
            Outcome::Failed(error) if error.code == "max_failures" => counts.poisoned += 1,
            Outcome::Failed(error) if error.code == "api_key_revoked" => counts.revoked += 1,
            Outcome::Failed(_) => counts.failed += 1,
            Outcome::Cancelled(_) => counts.cancelled += 1,
        }
    }
}
