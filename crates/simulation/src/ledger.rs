//! The ledger: a row per run, with the guards of the statements in `baton-store`. The transitions
//! themselves are the protocol's.
//!
//! Beside the rows stands what the judge needs and the guards never look at: who was given a run,
//! and whose writes were taken.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_protocol::run::{Ended, Held, Idle};
use baton_protocol::{
    ApprovalId, ClaimToken, Decision, EventId, Fence, FinishReason, Lane, Outcome, RunId,
    RunStatus, TenantId, Usage, WorkerId,
};
use baton_store::{
    ApprovalRecord, CallState, Claim, ClaimOutcome, ClaimedRun, Decided, EndedRun, NewApproval,
    NewCall, ParkOutcome, ParkedRun, QueuedJob, Renewal, StepData, StepRecord,
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::executor::{Millis, ProcessId, date, millis};
use crate::world::{Accusation, Invariant};
use crate::{Guard, Setup};

/// The one tenant.
pub(crate) fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(1))
}

/// The attempt does not hold the run (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// Where a run is.
#[derive(Debug)]
pub(crate) enum State {
    Queued(Idle),
    Running { held: Held, expires: Millis },
    Parked(Idle),
    Ended(Ended),
}

/// Who was given a run, and how that went.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) attempt: u32,
    token: ClaimToken,
    pub(crate) holder: ProcessId,
    pub(crate) at: Millis,
    /// A step was recorded, or the run was given back or ended.
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
    pub(crate) grants: Vec<Grant>,
    pub(crate) ends: u32,
    /// Another with each write to the row.
    version: u64,
    /// When a step's result was recorded, by step.
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
}

/// A call's result.
pub(crate) struct CallEntry {
    pub(crate) step: u32,
    pub(crate) ok: bool,
    pub(crate) message: Box<RawValue>,
    pub(crate) last_event: EventId,
}

/// The end of a run.
pub(crate) struct EndEntry {
    pub(crate) outcome: Outcome,
    pub(crate) last_event: EventId,
    pub(crate) usage_total: Usage,
    pub(crate) turn: Option<FinalEntry>,
}

/// The turn that a run ends with.
pub(crate) struct FinalEntry {
    pub(crate) step: u32,
    pub(crate) message: Box<RawValue>,
    pub(crate) usage: Usage,
    pub(crate) finish_reason: FinishReason,
    pub(crate) last_event: EventId,
}

/// What came of asking for a run to be cancelled.
pub(crate) enum Cancel {
    Ended(EndedRun),
    Requested(Option<WorkerId>),
}

pub(crate) struct Ledger {
    setup: Setup,
    pub(crate) rows: BTreeMap<RunId, Row>,
    pub(crate) accusations: Vec<Accusation>,
    /// The grants of processes that were lost or cut off need no excuse; the judge knows them.
    pub(crate) suspects: Vec<Suspect>,
}

/// An attempt that counts as a failure.
pub(crate) struct Suspect {
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) holder: ProcessId,
    /// Since when the holder had the run.
    pub(crate) at: Millis,
    /// Whether the run was taken before the lease had run out.
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

    pub(crate) fn attempt(&self) -> u32 {
        match &self.state {
            State::Queued(idle) | State::Parked(idle) => idle.attempt,
            State::Running { held, .. } => held.attempt,
            State::Ended(ended) => ended.attempt,
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

fn finished_turn(
    attempt: u32,
    step: u32,
    message: Box<RawValue>,
    (usage, finish_reason): (Usage, FinishReason),
    last_event: EventId,
    now: Millis,
) -> StepRecord {
    StepRecord {
        step,
        attempt,
        data: StepData::Turn {
            finish_reason,
            usage,
        },
        message: Some(message),
        cut_message: None,
        started_event_id: None,
        last_event_id: Some(last_event),
        created_at: date(now),
        finished_at: Some(date(now)),
    }
}

impl Ledger {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup,
            rows: BTreeMap::new(),
            accusations: Vec::new(),
            suspects: Vec::new(),
        }
    }

    /// A row that is there already stays as it is: its key, or its id, says that it is the same.
    pub(crate) fn accept(&mut self, run: RunId, now: Millis) {
        self.rows.entry(run).or_insert_with(|| Row {
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
            grants: Vec::new(),
            ends: 0,
            version: 0,
            recorded_at: BTreeMap::new(),
        });
    }

    pub(crate) fn claim(&mut self, claim: &Claim, holder: ProcessId, now: Millis) -> ClaimOutcome {
        let Some(row) = self.rows.get_mut(&claim.run) else {
            return ClaimOutcome::Gone;
        };
        let (idle, was_held) = match &mut row.state {
            State::Ended(_) => {
                return row
                    .ended(false)
                    .map_or(ClaimOutcome::Gone, ClaimOutcome::Ended);
            }
            State::Running { held, expires } if row.token == Some(claim.token) => {
                *expires = now + millis(claim.lease);
                row.version += 1;
                let held = *held;
                return claimed(row, (claim, self.setup.without), held, now);
            }
            State::Running { held, expires } if *expires <= now => (held.lose_lease(), true),
            State::Running { expires, .. } => {
                return ClaimOutcome::Leased {
                    remaining: Duration::from_millis(*expires - now),
                    same_job: row.job_seq == Some(claim.job_seq),
                };
            }
            State::Parked(idle) => {
                return ClaimOutcome::Parked(ParkedRun {
                    attempt: idle.attempt,
                    last_event_id: idle.last_event,
                });
            }
            State::Queued(idle) => (*idle, false),
        };
        if was_held {
            suspect(&mut self.suspects, claim.run, row, false);
        }
        let granted = match &row.cancel {
            Some(reason) => Err(idle.end(Outcome::Cancelled(reason.clone()))),
            None => idle.claim(claim.max_failures),
        };
        match granted {
            Ok(held) => {
                row.state = State::Running {
                    held,
                    expires: now + millis(claim.lease),
                };
                row.version += 1;
                row.token = Some(claim.token);
                row.worker = Some(claim.worker);
                row.job_seq = Some(claim.job_seq);
                let newest = row.grants.last().map_or(0, |grant| grant.attempt);
                if held.attempt <= newest {
                    self.accusations.push(Accusation {
                        invariant: Invariant::I9,
                        run: claim.run,
                        what: format!("attempt {} was granted after {newest}", held.attempt),
                    });
                }
                row.grants.push(Grant {
                    attempt: held.attempt,
                    token: claim.token,
                    holder,
                    at: now,
                    accounted: false,
                });
                claimed(row, (claim, self.setup.without), held, now)
            }
            Err(ended) => {
                row.state = State::Ended(ended);
                row.ends += 1;
                row.ended(true)
                    .map_or(ClaimOutcome::Gone, ClaimOutcome::Ended)
            }
        }
    }

    /// The run, if the attempt holds it.
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

    /// The run, if the attempt may write: the judge looks who was given it last.
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

    /// Without a length the lease stays as it is, and the row tells that somebody was there.
    pub(crate) fn renew(
        &mut self,
        fence: &Fence,
        lease: Option<Duration>,
        now: Millis,
    ) -> Result<Renewal, Lost> {
        let (row, held) = self.held(fence)?;
        row.version += 1;
        if let Some(lease) = lease {
            row.state = State::Running {
                held,
                expires: now + millis(lease),
            };
        }
        Ok(Renewal {
            cancel_requested: row.cancel.clone(),
        })
    }

    pub(crate) fn commit_turn(
        &mut self,
        fence: &Fence,
        turn: TurnEntry,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "turn")?;
        progress(row, held, turn.last_event.max(held.last_event));
        if turn.usage_total.total_tokens > row.usage.total_tokens {
            row.usage = turn.usage_total;
        }
        let record = finished_turn(
            fence.attempt,
            turn.step,
            turn.message,
            (turn.usage, turn.finish_reason),
            turn.last_event,
            now,
        );
        row.insert(record, now);
        for call in turn.calls {
            let record = StepRecord {
                step: call.step,
                attempt: fence.attempt,
                data: StepData::Call {
                    call_id: call.call_id,
                    name: call.name,
                    arguments: call.arguments,
                    effect: call.effect,
                    state: CallState::Pending,
                },
                message: None,
                cut_message: None,
                started_event_id: None,
                last_event_id: None,
                created_at: date(now),
                finished_at: None,
            };
            row.insert(record, now);
        }
        Ok(())
    }

    pub(crate) fn start_call(&mut self, fence: &Fence, step: u32) -> Result<(), Lost> {
        let skips_note = self.setup.without == Some(Guard::StartNote);
        // It is neither progress nor an end: the attempt may yet be lost.
        let (row, _) = self.held(fence)?;
        let record = open_call(row, step).ok_or(Lost)?;
        if !skips_note && let StepData::Call { state, .. } = &mut record.data {
            *state = CallState::Started { decision: None };
            record.attempt = fence.attempt;
        }
        Ok(())
    }

    pub(crate) fn commit_call(
        &mut self,
        fence: &Fence,
        call: CallEntry,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "call")?;
        progress(row, held, call.last_event.max(held.last_event));
        if let Some(record) = open_call(row, call.step) {
            if let StepData::Call { state, .. } = &mut record.data {
                *state = CallState::Finished {
                    ok: call.ok,
                    duration_ms: 1,
                };
            }
            record.attempt = fence.attempt;
            record.message = Some(call.message);
            record.last_event_id = Some(call.last_event);
            record.finished_at = Some(date(now));
            row.recorded_at.insert(call.step, now);
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, fence: &Fence, end: EndEntry, now: Millis) -> Result<(), Lost> {
        if let Some(row) = self.rows.get(&fence.run)
            && let State::Ended(ended) = &row.state
        {
            // Repeated after its answer was lost, it says the same again.
            let same = ended.attempt == fence.attempt
                && row.token == Some(fence.token)
                && ended.outcome.status() == end.outcome.status()
                && ended.last_event == end.last_event;
            return if same { Ok(()) } else { Err(Lost) };
        }
        let (row, held) = self.write(fence, "finish")?;
        let outcome = match end.outcome {
            // The words of whoever asked for the cancel stand.
            Outcome::Cancelled(reason) => Outcome::Cancelled(row.cancel.clone().unwrap_or(reason)),
            outcome => outcome,
        };
        row.state = State::Ended(held.end(outcome, end.last_event));
        row.ends += 1;
        row.usage = end.usage_total;
        if let Some(turn) = end.turn {
            let record = finished_turn(
                fence.attempt,
                turn.step,
                turn.message,
                (turn.usage, turn.finish_reason),
                turn.last_event,
                now,
            );
            row.insert(record, now);
        }
        Ok(())
    }

    pub(crate) fn hand_over(
        &mut self,
        fence: &Fence,
        last_event: EventId,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "hand-over")?;
        let idle = held.hand_over();
        row.state = State::Queued(Idle {
            last_event: idle.last_event.max(last_event),
            ..idle
        });
        row.queued_at = now;
        Ok(())
    }

    pub(crate) fn park(
        &mut self,
        fence: &Fence,
        questions: &[NewApproval],
        (last_event, expire_after): (EventId, Duration),
        now: Millis,
    ) -> Result<ParkOutcome, Lost> {
        if let Some(row) = self.rows.get(&fence.run)
            && let State::Parked(idle) = &row.state
        {
            // Repeated after its answer was lost, it changes nothing.
            let same = idle.attempt == fence.attempt
                && row.token == Some(fence.token)
                && idle.last_event == last_event;
            return if same {
                Ok(ParkOutcome::Parked)
            } else {
                Err(Lost)
            };
        }
        if let Some(reason) = self.held(fence)?.0.cancel.clone() {
            return Ok(ParkOutcome::CancelRequested(reason));
        }
        let (row, held) = self.write(fence, "parking")?;
        for question in questions {
            let Some(StepData::Call {
                call_id,
                name,
                arguments,
                ..
            }) = open_call(row, question.step).map(|record| record.data.clone())
            else {
                continue;
            };
            row.approvals.push(ApprovalRecord {
                id: question.id,
                run: fence.run,
                step: question.step,
                attempt: fence.attempt,
                reason: question.reason,
                call_id,
                name,
                arguments,
                created_at: date(now),
                expires_at: date(now) + expire_after,
                decided: None,
            });
        }
        row.state = State::Parked(held.park(last_event));
        Ok(ParkOutcome::Parked)
    }

    /// A person decides. Says whether the decision stands; the run's job, if it waits for nothing
    /// more, is to be published.
    pub(crate) fn decide(
        &mut self,
        run: RunId,
        approval: ApprovalId,
        decision: &Decision,
        now: Millis,
    ) -> (bool, bool) {
        let Some(row) = self.rows.get_mut(&run) else {
            return (false, false);
        };
        let ended = row.status().is_terminal();
        let Some(asked) = row.approvals.iter_mut().find(|asked| asked.id == approval) else {
            return (false, false);
        };
        if ended || asked.decided.is_some() || asked.expires_at <= date(now) {
            return (false, false);
        }
        asked.decided = Some(Decided {
            decision: decision.clone(),
            at: date(now),
            by: None,
        });
        (true, queue_decided(row, now))
    }

    /// What nobody has decided in time is given up. The jobs of the runs that wait for nothing more
    /// are to be published.
    pub(crate) fn expire_approvals(&mut self, now: Millis) -> Vec<QueuedJob> {
        let mut queued = Vec::new();
        for (run, row) in &mut self.rows {
            let mut any = false;
            for asked in &mut row.approvals {
                if asked.decided.is_none() && asked.expires_at <= date(now) {
                    any = true;
                    asked.decided = Some(Decided {
                        decision: Decision::Fail {
                            reason: "nobody decided in time".into(),
                        },
                        at: date(now),
                        by: None,
                    });
                }
            }
            if any && queue_decided(row, now) {
                queued.push(job_of(*run, row));
            }
        }
        queued
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
        row.ends += 1;
        row.ended(true).map(Cancel::Ended)
    }

    /// Runs whose lease has run out are queued.
    pub(crate) fn requeue_expired(&mut self, now: Millis) -> Vec<QueuedJob> {
        let mut queued = Vec::new();
        for (run, row) in &mut self.rows {
            let State::Running { held, expires } = &row.state else {
                continue;
            };
            if *expires > now {
                continue;
            }
            let idle = held.lose_lease();
            suspect(&mut self.suspects, *run, row, false);
            row.state = State::Queued(idle);
            row.queued_at = now;
            queued.push(job_of(*run, row));
        }
        queued
    }

    /// The runs that a worker holds, and how often their rows were written to.
    pub(crate) fn held_by(&self, worker: WorkerId) -> Vec<(RunId, u64)> {
        self.rows
            .iter()
            .filter(|(_, row)| {
                matches!(row.state, State::Running { .. }) && row.worker == Some(worker)
            })
            .map(|(run, row)| (*run, row.version))
            .collect()
    }

    /// Takes from a worker those of its runs whose rows nobody has written to since.
    pub(crate) fn requeue_silent(
        &mut self,
        worker: WorkerId,
        rows: &[(RunId, u64)],
        now: Millis,
    ) -> Vec<QueuedJob> {
        let mut taken = Vec::new();
        let compares = self.setup.without != Some(Guard::Silence);
        for (run, version) in rows {
            let Some(row) = self.rows.get_mut(run) else {
                continue;
            };
            let State::Running { held, .. } = &row.state else {
                continue;
            };
            if row.worker != Some(worker) || (compares && row.version != *version) {
                continue;
            }
            let idle = held.lose_lease();
            suspect(&mut self.suspects, *run, row, true);
            row.state = State::Queued(idle);
            row.queued_at = now;
            row.version += 1;
            taken.push(job_of(*run, row));
        }
        taken
    }

    /// Queued runs whose job was due or published long ago.
    pub(crate) fn unpublished(&self, older_than: Duration, now: Millis) -> Vec<QueuedJob> {
        self.rows
            .iter()
            .filter(|(_, row)| matches!(row.state, State::Queued(_)))
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

    /// The last event that a recorded step stands behind.
    pub(crate) fn last_recorded_event(&self, run: RunId) -> EventId {
        let steps = self.rows.get(&run).into_iter().flat_map(|row| &row.steps);
        steps
            .filter_map(|step| step.last_event_id)
            .max()
            .unwrap_or_default()
    }

    /// The end of a run that has ended.
    pub(crate) fn ended(&self, run: RunId) -> Option<EndedRun> {
        self.rows.get(&run)?.ended(false)
    }
}

/// A parked run without an open question is queued.
fn queue_decided(row: &mut Row, now: Millis) -> bool {
    let open = row.approvals.iter().any(|asked| asked.decided.is_none());
    match row.state {
        State::Parked(idle) if !open => {
            row.state = State::Queued(idle);
            row.queued_at = now;
            true
        }
        _ => false,
    }
}

fn progress(row: &mut Row, held: Held, last_event: EventId) {
    if let State::Running { expires, .. } = row.state {
        row.state = State::Running {
            held: held.commit_step(last_event),
            expires,
        };
    }
}

fn open_call(row: &mut Row, step: u32) -> Option<&mut StepRecord> {
    row.steps.iter_mut().find(|record| {
        record.step == step
            && matches!(
                record.data,
                StepData::Call {
                    state: CallState::Pending | CallState::Started { .. },
                    ..
                }
            )
    })
}

/// A lease ran out: the judge is to ask whether its holder had an excuse.
fn suspect(suspects: &mut Vec<Suspect>, run: RunId, row: &Row, early: bool) {
    if let Some(grant) = row.grants.last().filter(|grant| !grant.accounted) {
        suspects.push(Suspect {
            run,
            attempt: grant.attempt,
            holder: grant.holder,
            at: grant.at,
            early,
        });
    }
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

fn claimed(
    row: &Row,
    (claim, without): (&Claim, Option<Guard>),
    held: Held,
    now: Millis,
) -> ClaimOutcome {
    let mut recorded = row.steps.clone();
    for record in &mut recorded {
        let (step, begun_by) = (record.step, record.attempt);
        if let StepData::Call {
            state: CallState::Started { decision },
            ..
        } = &mut record.data
        {
            // A decision is about the call as it was begun when it was asked for.
            let decided = row.approvals.iter().filter(|approval| {
                approval.step == step
                    && (approval.attempt >= begun_by || without == Some(Guard::DecisionUsedUp))
            });
            *decision = decided
                .filter_map(|approval| approval.decided.as_ref())
                .map(|decided| decided.decision.clone())
                .next_back();
        }
    }
    let asked = if recorded.iter().any(StepRecord::is_started) {
        row.approvals.clone()
    } else {
        Vec::new()
    };
    ClaimOutcome::Claimed(Box::new(ClaimedRun {
        key: None,
        fence: Fence {
            tenant: claim.tenant,
            run: claim.run,
            attempt: held.attempt,
            token: claim.token,
        },
        spec_json: String::new(),
        lane: Lane::Interactive,
        thread_id: None,
        last_event_id: held.last_event,
        failures: held.failures,
        usage: row.usage,
        created_at: date(0),
        queued_at: date(row.queued_at),
        started_at: date(now),
        recorded,
        asked,
    }))
}

impl Row {
    /// Counts how it ended.
    pub(crate) fn count(&self, counts: &mut crate::Counts) {
        let State::Ended(ended) = &self.state else {
            return;
        };
        match &ended.outcome {
            Outcome::Completed(_) => counts.completed += 1,
            Outcome::Failed(error) if error.code == "max_failures" => counts.poisoned += 1,
            Outcome::Failed(_) => counts.failed += 1,
            Outcome::Cancelled(_) => counts.cancelled += 1,
        }
    }
}
