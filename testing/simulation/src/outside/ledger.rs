//! The worker's statements.

use std::time::Duration;

use baton_protocol::{ClaimToken, EventId, Fence, Nanos, Outcome, RunId, TenantId, TurnRoute};
use baton_store::{
    AuditEntry, AwaitOutcome, CallCommit, Claim, ClaimOutcome, CompactionCommit, FenceError,
    FinishCommit, Finished, GivenCallsCommit, OpenTask, ParkCommit, ParkOutcome, PauseCommit,
    QueuedJob, Renewal, StepRecord, StoreError, TurnCommit, TurnGrant, TurnWish,
};
use baton_worker::world::Ledger;
use chrono::{DateTime, Utc};
use rand::RngExt as _;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Outside;
use crate::accusation::name;
use crate::guard::Guard;
use crate::ledger::{CallEntry, CutEntry, EndEntry, FinalEntry, Lost, SummaryEntry, TurnEntry};
use crate::links::Service;
use crate::network::{PATIENCE, Unanswered};
use crate::time::Millis;
use crate::worker::LEASE;
use crate::{counts::Counts, ledger};

impl Outside {
    /// Makes a guarded write.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut ledger::Ledger, Millis) -> Result<T, Lost> + Send + 'static,
    ) -> Result<T, FenceError> {
        let answer = self.ask(Service::Ledger, move |sim| {
            let now = sim.now();
            write(&mut sim.world.borrow_mut().ledger, now)
        });
        self.written(answer.await)
    }

    /// Returns the result of a guarded write.
    fn written<T>(&self, answer: Result<Result<T, Lost>, Unanswered>) -> Result<T, FenceError> {
        match answer {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(Lost)) => {
                self.count(|counts| &mut counts.refused_commits);
                Err(FenceError::Lost)
            }
            Err(unanswered) => {
                // It may have to give the run up.
                self.excuse();
                Err(FenceError::Store(unanswered.into()))
            }
        }
    }

    fn excuse(&self) {
        let process = self.process;
        self.inbox.put(move |sim| sim.excuse(process));
    }

    fn count(&self, what: fn(&mut Counts) -> &mut u64) {
        self.inbox.put(move |sim| sim.count(what));
    }
}

impl Ledger for Outside {
    fn new_token(&self) -> ClaimToken {
        ClaimToken::from_random(self.claims().random.random())
    }

    async fn claim_run(&self, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let mut claim = claim.clone();
        claim.lease = LEASE;
        let is_repeated = self.claims().sent.contains(&claim.token);
        self.claims().sent.push(claim.token);
        if is_repeated && self.without == Some(Guard::RepeatableClaim) {
            claim.token = self.new_token();
        }
        let (process, run, sent) = (self.process, claim.run, Instant::now());
        let claimed = self.ask(Service::Ledger, move |sim| {
            let now = sim.now();
            if sent.elapsed() > PATIENCE {
                // The claimer may have given up waiting for this one.
                sim.excuse(process);
            }
            let outcome = sim.world.borrow_mut().ledger.claim(&claim, process, now);
            sim.judge_suspects();
            outcome
        });
        match claimed.await {
            Ok(ClaimOutcome::Claimed(mut claimed)) => {
                if let Some(key) = &mut claimed.key
                    && self.without == Some(Guard::KeyCheck)
                {
                    key.revoked = false;
                }
                let attempt = claimed.fence.attempt;
                self.inbox.put(move |sim| {
                    sim.tell(process, || {
                        format!("holds {} as attempt {attempt}", name(run))
                    });
                });
                Ok(ClaimOutcome::Claimed(claimed))
            }
            Ok(ClaimOutcome::Ended(_)) if self.without == Some(Guard::TerminalEvent) => {
                Ok(ClaimOutcome::Gone)
            }
            Ok(outcome) => {
                if matches!(outcome, ClaimOutcome::Waiting) {
                    self.count(|counts| &mut counts.thread_waits);
                }
                Ok(outcome)
            }
            Err(unanswered) => {
                if is_repeated {
                    // Whether it was granted is unknown.
                    self.excuse();
                }
                Err(unanswered.into())
            }
        }
    }

    async fn renew_leases(
        &self,
        fences: &[Fence],
        lease: Option<Duration>,
    ) -> Result<Vec<Option<Renewal>>, StoreError> {
        let fences = fences.to_vec();
        let lease = lease.map(|_| LEASE);
        let gives_up = self.without != Some(Guard::GiveUp);
        let renewed = self.ask(Service::Ledger, move |sim| {
            let now = sim.now();
            let ledger = &mut sim.world.borrow_mut().ledger;
            let answers = fences
                .iter()
                .map(|fence| match ledger.renew(fence, lease, now) {
                    Ok(renewal) => Some(renewal),
                    Err(Lost) if gives_up => None,
                    Err(Lost) => Some(Renewal {
                        cancel_requested: None,
                        waiting: Vec::new(),
                    }),
                });
            answers.collect()
        });
        Ok(renewed.await?)
    }

    async fn hand_over(&self, fence: &Fence, last_event: EventId) -> Result<(), FenceError> {
        let fence = *fence;
        let gives_back = self.without != Some(Guard::GivingBack);
        let given_back = self.ask(Service::Ledger, move |sim| {
            let now = sim.now();
            let mut world = sim.world.borrow_mut();
            // Without the guard, a run is left to the end of its lease if its events are refused.
            if gives_back || world.refuses_until <= now {
                world.ledger.hand_over(&fence, last_event, now)
            } else {
                Ok(())
            }
        });
        self.written(given_back.await)?;
        self.count(|counts| &mut counts.hand_overs);
        Ok(())
    }

    async fn begin_turn(
        &self,
        fence: &Fence,
        step: u32,
        wish: &TurnWish,
    ) -> Result<TurnGrant, FenceError> {
        if self.without == Some(Guard::Budget) {
            let answer_tokens = wish.answer_tokens;
            return Ok(TurnGrant::Granted { answer_tokens });
        }
        let (fence, wish) = (*fence, *wish);
        let grant = self
            .write(move |ledger, _| ledger.begin_turn(&fence, step, &wish))
            .await?;
        if matches!(grant, TurnGrant::Refused(_)) {
            self.count(|counts| &mut counts.spent_budgets);
        }
        Ok(grant)
    }

    async fn lower_turn(
        &self,
        fence: &Fence,
        step: u32,
        tokens: u64,
        _: u64,
    ) -> Result<(), FenceError> {
        let fence = *fence;
        self.write(move |ledger, _| ledger.lower_turn(&fence, step, tokens))
            .await
    }

    async fn await_budget(
        &self,
        fence: &Fence,
        wish: &TurnWish,
        last_event: EventId,
    ) -> Result<bool, FenceError> {
        let (fence, wish) = (*fence, *wish);
        let waits = self
            .write(move |ledger, now| ledger.await_budget(&fence, &wish, last_event, now))
            .await?;
        self.count(|counts| &mut counts.budget_waits);
        Ok(waits)
    }

    async fn waiting_for(
        &self,
        _: TenantId,
        run: RunId,
        _: u32,
    ) -> Result<Vec<QueuedJob>, StoreError> {
        let waiting = self.ask(Service::Ledger, move |sim| {
            sim.world.borrow().ledger.waiting_for(run)
        });
        Ok(waiting.await?)
    }

    /// The models have no prices here.
    async fn run_cost(&self, _: TenantId, _: RunId, _: DateTime<Utc>) -> Result<Nanos, StoreError> {
        Ok(Nanos(0))
    }

    /// People here approve nothing, because no tool requires it.
    async fn granted_tools(&self, _: TenantId, _: RunId) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn note_accepted(
        &self,
        fence: &Fence,
        position: u32,
        event: EventId,
    ) -> Result<(), StoreError> {
        let fence = *fence;
        let noted = self.ask(Service::Ledger, move |sim| {
            let ledger = &mut sim.world.borrow_mut().ledger;
            ledger.note_accepted(&fence, position, event);
        });
        Ok(noted.await?)
    }

    async fn next_after(&self, _: TenantId, ended: RunId) -> Result<Option<QueuedJob>, StoreError> {
        let next = self.ask(Service::Ledger, move |sim| {
            sim.world.borrow().ledger.next_after(ended)
        });
        Ok(next.await?)
    }

    async fn commit_turn(
        &self,
        fence: &Fence,
        turn: &TurnCommit<'_>,
    ) -> Result<Vec<StepRecord>, FenceError> {
        let fence = *fence;
        let entry = TurnEntry {
            step: turn.step,
            message: json(turn.message),
            usage: turn.usage,
            usage_total: turn.usage_total,
            finish_reason: turn.finish_reason,
            last_event: turn.last_event_id,
            calls: turn.calls.to_vec(),
            inputs_step: turn.inputs_step,
        };
        self.write(move |ledger, now| ledger.commit_turn(&fence, entry, now))
            .await
    }

    async fn commit_compaction(
        &self,
        fence: &Fence,
        compaction: &CompactionCommit<'_>,
    ) -> Result<(), FenceError> {
        let fence = *fence;
        let entry = SummaryEntry {
            step: compaction.step,
            summary: json(compaction.summary),
            usage: compaction.usage,
            usage_total: compaction.usage_total,
            last_event: compaction.last_event_id,
        };
        self.write(move |ledger, now| ledger.commit_compaction(&fence, entry, now))
            .await
    }

    async fn begin_given_calls(
        &self,
        fence: &Fence,
        given: &GivenCallsCommit<'_>,
    ) -> Result<(), FenceError> {
        let fence = *fence;
        let (calls, last_event) = (given.calls.to_vec(), given.last_event_id);
        self.write(move |ledger, now| ledger.begin_given_calls(&fence, calls, last_event, now))
            .await
    }

    /// Keeps nothing, because nothing here reads it.
    async fn record_route(&self, fence: &Fence, _: u32, _: &TurnRoute) -> Result<(), FenceError> {
        let fence = *fence;
        self.write(move |ledger, _| ledger.holds(&fence)).await
    }

    async fn start_call(&self, fence: &Fence, step: u32) -> Result<(), FenceError> {
        let fence = *fence;
        self.write(move |ledger, _| ledger.start_call(&fence, step))
            .await
    }

    async fn pause_call(&self, fence: &Fence, paused: &PauseCommit<'_>) -> Result<(), FenceError> {
        let fence = *fence;
        let left = (paused.step, paused.pause.clone());
        let events = (paused.started_event_id, paused.last_event_id);
        self.write(move |ledger, _| ledger.pause_call(&fence, left, events))
            .await
    }

    async fn commit_call(
        &self,
        fence: &Fence,
        call: &CallCommit<'_>,
    ) -> Result<Vec<StepRecord>, FenceError> {
        let fence = *fence;
        let entry = CallEntry {
            step: call.step,
            ok: call.ok,
            duration_ms: call.duration_ms,
            message: json(call.message),
            last_event: call.last_event_id,
            started_event: call.started_event_id,
            inputs_step: call.inputs_step,
        };
        self.write(move |ledger, now| ledger.commit_call(&fence, entry, now))
            .await
    }

    async fn await_tasks(
        &self,
        fence: &Fence,
        last_event: EventId,
    ) -> Result<AwaitOutcome, FenceError> {
        let fence = *fence;
        let questions = Vec::new();
        let parked = self.write(move |ledger, now| {
            ledger.park(&fence, &questions, (last_event, Duration::ZERO), now)
        });
        Ok(match parked.await? {
            ParkOutcome::Parked { .. } => AwaitOutcome::Waits,
            ParkOutcome::CancelRequested(reason) => AwaitOutcome::CancelRequested(reason),
        })
    }

    /// Returns none, because no tool of the simulation begins a task.
    async fn open_tasks(&self, _: TenantId, _: RunId) -> Result<Vec<OpenTask>, StoreError> {
        Ok(Vec::new())
    }

    async fn close_task(&self, _: TenantId, _: RunId, _: u32) -> Result<(), StoreError> {
        Ok(())
    }

    async fn finish_run(
        &self,
        fence: &Fence,
        end: &FinishCommit<'_>,
    ) -> Result<Finished, FenceError> {
        let fence = *fence;
        let entry = EndEntry {
            outcome: end.outcome.clone(),
            last_event: end.last_event_id,
            usage_total: end.usage_total,
            turn: end.turn.as_ref().map(|turn| FinalEntry {
                step: turn.step,
                message: json(turn.message),
                usage: turn.usage,
                finish_reason: turn.finish_reason,
                last_event: turn.last_event_id,
            }),
            cut: end.cut.as_ref().map(|cut| CutEntry {
                step: cut.step,
                message: json(cut.message),
                usage: cut.usage,
                last_event: cut.last_event_id,
            }),
            unless_inputs_wait: end.unless_inputs_wait,
        };
        let finished = self.write(move |ledger, now| {
            let has_ended = ledger.finish(&fence, entry, now)?;
            Ok((has_ended, ledger.next_after(fence.run)))
        });
        let (has_ended, promoted) = finished.await?;
        if !has_ended {
            self.count(|counts| &mut counts.ends_given_way);
            return Err(FenceError::InputsWait);
        }
        if matches!(end.outcome, Outcome::Cancelled(_)) {
            self.count(|counts| &mut counts.cancelled_at_work);
        }
        Ok(Finished {
            promoted,
            cancel_latency: None,
        })
    }

    async fn park_run(
        &self,
        fence: &Fence,
        questions: &ParkCommit<'_>,
    ) -> Result<ParkOutcome, FenceError> {
        let (fence, asked) = (*fence, questions.approvals.to_vec());
        let when = (questions.last_event_id, questions.expire_after);
        let outcome = self
            .write(move |ledger, now| ledger.park(&fence, &asked, when, now))
            .await?;
        if matches!(outcome, ParkOutcome::Parked { .. }) {
            self.count(|counts| &mut counts.parked);
        }
        Ok(outcome)
    }

    async fn record_audit(&self, _: &AuditEntry) -> Result<(), StoreError> {
        let recorded = self.ask(Service::Ledger, |sim| {
            sim.count(|counts| &mut counts.audited);
        });
        Ok(recorded.await?)
    }
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_default()
}
