//! One attempt at a run: `attempt` of `baton-worker`, in the same order, around the same turn
//! machine, transcript, resuming, lease and event writer.

use std::time::Duration;

use baton_admission::terminal_event::terminal_event;
use baton_protocol::event::{ApprovalRequested, RunStarted, Text, ToolFinished, ToolStarted};
use baton_protocol::{
    ApprovalId, ApprovalReason, Effect, EventData, EventId, Fence, Outcome, RunError, RunLimits,
};
use baton_store::{ClaimedRun, NewApproval, NewCall, ParkOutcome};
use baton_worker::agent::transcript::tool_message;
use baton_worker::agent::turn_machine::{Next, RecordedCall, Standing, TurnVerdict};
use baton_worker::agent::{CallSide, FinishedTurn, Transcript, TurnMachine};
use baton_worker::event_writer::Replaced;
use baton_worker::resume;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::accusation::Invariant;
use crate::guard::Guard;
use crate::ledger::{CallEntry, EndEntry, FinalEntry, Ledger, Lost, TurnEntry};
use crate::links::Service;
use crate::network::Unanswered;
use crate::worker::Worker;
use crate::worker::keep_lease::{Hold, Stop};
use crate::worker::publisher::Publisher;
use crate::world::{Execution, Sim};

const RETRY_AFTER: Duration = Duration::from_millis(200);
const TOOL_PARALLELISM: usize = 2;
/// After how long a question that nobody answers is given up.
const APPROVAL_EXPIRY: Duration = Duration::from_secs(40);

/// Where each run must stop.
pub(crate) const LIMITS: RunLimits = RunLimits {
    max_turns: 4,
    max_total_tokens: None,
};

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Ended,
    HandedOver,
    Parked,
    Lost,
    PerhapsEnded,
}

/// Why an attempt stopped working.
#[derive(Debug)]
enum Halt {
    Replaced,
    Fenced,
}

impl From<Replaced> for Halt {
    fn from(_: Replaced) -> Self {
        Self::Replaced
    }
}

impl From<Lost> for Halt {
    fn from(_: Lost) -> Self {
        Self::Fenced
    }
}

enum Worked {
    Ended,
    Parked,
    Draining,
}

struct Attempt<'a> {
    worker: &'a Worker,
    hold: &'a Hold<'a>,
    fence: Fence,
    machine: TurnMachine,
    transcript: Transcript,
    publisher: Publisher,
    committed: EventId,
    ending: bool,
}

/// Works on a claimed run until it has ended, or must be given back, or is lost.
pub(super) async fn run_attempt(worker: &Worker, claimed: ClaimedRun, hold: &Hold<'_>) -> Ending {
    let sim = &worker.sim;
    let fence = claimed.fence;
    let committed = claimed.last_event_id;
    let mut begun = None;
    let worked = tokio::select! {
        biased;
        stop = hold.until_stopped() => Err(stop),
        worked = async {
            let attempt = begun.insert(Attempt::begin(worker, claimed, hold).await?);
            attempt.work().await
        } => Ok(worked),
    };
    let until = match worked {
        Err(Stop::LeaseUnconfirmed) => hold.lease().end(),
        _ => hold.lease().give_up_at(),
    };
    let ending = begun.as_ref().is_some_and(|attempt| attempt.ending)
        || matches!(worked, Err(Stop::Cancelled(_)));
    let closing = async {
        match worked {
            Ok(Ok(Worked::Ended)) => Ok(Ending::Ended),
            Ok(Ok(Worked::Parked)) => Ok(Ending::Parked),
            Ok(Ok(Worked::Draining)) => match begun {
                Some(attempt) => attempt.hand_over().await,
                None => give_back(worker, fence, committed).await,
            },
            Ok(Err(halt)) => Err(halt),
            Err(Stop::Cancelled(reason)) => match begun {
                Some(mut attempt) => attempt.cancel(reason).await,
                None => give_back(worker, fence, committed).await,
            },
            Err(Stop::Cut | Stop::LeaseUnconfirmed) => {
                let committed = begun.map_or(committed, |attempt| attempt.committed);
                give_back(worker, fence, committed).await
            }
            Err(Stop::LeaseLost) => Ok(Ending::Lost),
        }
    };
    let ended = tokio::select! {
        biased;
        ended = closing => ended,
        () = sim.sleep_until(sim.millis_of(until)) => {
            sim.excuse(worker.process);
            Ok(Ending::Lost)
        }
    };
    match ended.unwrap_or(Ending::Lost) {
        Ending::Lost if ending => Ending::PerhapsEnded,
        ended => ended,
    }
}

impl<'a> Attempt<'a> {
    async fn begin(
        worker: &'a Worker,
        claimed: ClaimedRun,
        hold: &'a Hold<'a>,
    ) -> Result<Self, Halt> {
        let mut publisher = Publisher::begin(
            worker.sim.clone(),
            worker.process,
            claimed.fence,
            claimed.last_event_id,
            resume::shown_by_commit(&claimed.recorded, &claimed.asked, claimed.last_event_id),
        )
        .await?;
        if claimed.fence.attempt == 1 {
            let (model, agent) = ("m".into(), "a".into());
            publisher.push(0, EventData::RunStarted(RunStarted { model, agent }));
        } else {
            publisher.kick();
        }
        let (machine, transcript) = resume::rebuild(LIMITS, claimed.recorded);
        Ok(Self {
            worker,
            hold,
            fence: claimed.fence,
            committed: claimed.last_event_id,
            machine,
            transcript,
            publisher,
            ending: false,
        })
    }

    fn sim(&self) -> &'a Sim {
        &self.worker.sim
    }

    async fn work(&mut self) -> Result<Worked, Halt> {
        loop {
            if self.worker.soft.is_raised() {
                return Ok(Worked::Draining);
            }
            match self.machine.next() {
                Next::CallModel { step } => {
                    if self.take_turn(step).await? {
                        return Ok(Worked::Ended);
                    }
                }
                Next::RunCalls(calls) => self.run_calls(calls).await?,
                Next::Park(calls) => return self.park(&calls).await,
                Next::Finish(outcome) => {
                    self.finish(outcome, None).await?;
                    return Ok(Worked::Ended);
                }
            }
        }
    }

    async fn take_turn(&mut self, step: u32) -> Result<bool, Halt> {
        self.hold.may_begin().await;
        self.look_at_transcript();
        let Some((finished, message)) = self.model_turn(step).await? else {
            let outcome = Outcome::Failed(RunError {
                code: "upstream_failed".into(),
                message: "the upstream failed".into(),
            });
            self.finish(outcome, None).await?;
            return Ok(true);
        };
        let (usage, finish_reason) = (finished.usage, finished.finish_reason);
        match self.machine.turn_finished(finished) {
            TurnVerdict::Finish(outcome) => {
                self.settle_before_commit().await?;
                let last = FinalEntry {
                    step,
                    message,
                    usage,
                    finish_reason,
                    last_event: self.publisher.last_id(),
                };
                self.finish(outcome, Some(last)).await?;
                Ok(true)
            }
            TurnVerdict::Continue(calls) => {
                self.settle_before_commit().await?;
                let last_event = self.publisher.next_id();
                let calls: Vec<_> = calls
                    .into_iter()
                    .map(|recorded| NewCall {
                        step: recorded.step,
                        effect: effect_of(&recorded),
                        call_id: recorded.call.id,
                        name: recorded.call.name,
                        arguments: recorded.call.arguments,
                    })
                    .collect();
                let usage_total = self.machine.usage();
                let fence = self.fence;
                let said = message.clone();
                let sent = self.sim().instant();
                self.commit(move |ledger, now| {
                    let entry = TurnEntry {
                        step,
                        message: said.clone(),
                        usage,
                        usage_total,
                        finish_reason,
                        last_event,
                        calls: calls.clone(),
                    };
                    ledger.commit_turn(&fence, entry, now)
                })
                .await?;
                self.hold.confirmed(sent);
                self.committed = last_event;
                self.transcript.put(step, message);
                self.publisher.push(step, EventData::Usage(usage));
                Ok(false)
            }
        }
    }

    /// Asks the model and shows its answer while it comes; none if the upstream fails.
    async fn model_turn(
        &mut self,
        step: u32,
    ) -> Result<Option<(FinishedTurn, Box<RawValue>)>, Halt> {
        let sim = self.sim();
        let turn = sim.think();
        let mut said = String::new();
        for (pause, text) in turn.pieces {
            let spoken = sim.sleep(pause);
            tokio::pin!(spoken);
            loop {
                tokio::select! {
                    biased;
                    stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                    () = &mut spoken => break,
                }
            }
            said.push_str(&text);
            self.publisher
                .push(step, EventData::TextDelta(Text { text }));
            self.publisher.kick();
        }
        let message = serde_json::json!({"role": "assistant", "content": said}).to_string();
        let message = RawValue::from_string(message).unwrap_or_default();
        Ok(turn.end.map(|end| (end, message)))
    }

    async fn run_calls(&mut self, calls: Vec<RecordedCall>) -> Result<(), Halt> {
        let mut waiting = calls.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < TOOL_PARALLELISM {
                let Some(recorded) = waiting.next() else {
                    break;
                };
                let begins = recorded.standing == Standing::Open;
                if begins && effect_of(&recorded) == Effect::AtMostOnce {
                    let (fence, step) = (self.fence, recorded.step);
                    self.commit(move |ledger, _| ledger.start_call(&fence, step))
                        .await?;
                }
                let call = &recorded.call;
                self.publisher.push(
                    recorded.step,
                    EventData::ToolStarted(ToolStarted {
                        call_id: call.id.clone(),
                        name: call.name.clone(),
                        arguments: call.arguments.clone(),
                    }),
                );
                let execution = self.call_tool(&recorded);
                running.push(async move { (recorded, execution.await) });
            }
            self.publisher.kick();
            let finished = loop {
                tokio::select! {
                    biased;
                    stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                    finished = running.next() => break finished,
                }
            };
            let Some((recorded, (ok, content))) = finished else {
                return Ok(());
            };
            self.settle_before_commit().await?;
            let last_event = self.publisher.next_id();
            let message = tool_message(&recorded.call.id, &content);
            let (fence, step, said) = (self.fence, recorded.step, message.clone());
            let sent = self.sim().instant();
            self.commit(move |ledger, now| {
                let entry = CallEntry {
                    step,
                    ok,
                    message: said.clone(),
                    last_event,
                };
                ledger.commit_call(&fence, entry, now)
            })
            .await?;
            self.hold.confirmed(sent);
            self.committed = last_event;
            self.transcript.put(step, message);
            self.machine.call_finished(step);
            self.publisher.push(
                step,
                EventData::ToolFinished(ToolFinished {
                    call_id: recorded.call.id,
                    name: recorded.call.name,
                    ok,
                    result: content,
                    duration_ms: 1,
                }),
            );
        }
    }

    /// The request leaves when the answer is first waited for.
    fn call_tool(&self, recorded: &RecordedCall) -> impl Future<Output = (bool, String)> + use<'a> {
        let (sim, process) = (self.sim(), self.worker.process);
        let (run, attempt, step) = (self.fence.run, self.fence.attempt, recorded.step);
        let effect = effect_of(recorded);
        let hold = self.hold;
        let settled = match &recorded.standing {
            Standing::Settled { ok, content } => Some((*ok, content.clone())),
            Standing::Open | Standing::OutcomeUnknown => None,
        };
        async move {
            if let Some(settled) = settled {
                return settled;
            }
            // That a call begins which must not be made twice has just been recorded.
            if effect != Effect::AtMostOnce {
                hold.may_begin().await;
            }
            let decided_at = sim.now();
            let answer = sim.ask(process, Service::Outside, move |sim| {
                sim.world.borrow_mut().executions.push(Execution {
                    run,
                    step,
                    effect,
                    attempt,
                    decided_at,
                });
            });
            let answer = answer.await;
            sim.sleep(Duration::from_millis(sim.between(5, 3_000)))
                .await;
            match answer {
                Ok(()) => (true, format!("result {:x}", sim.below(0xffff))),
                Err(Unanswered) => (false, "no answer".to_owned()),
            }
        }
    }

    async fn park(&mut self, calls: &[RecordedCall]) -> Result<Worked, Halt> {
        self.settle_before_commit().await?;
        let sim = self.sim();
        let questions: Vec<_> = calls
            .iter()
            .map(|recorded| NewApproval {
                id: ApprovalId::from_uuid(Uuid::from_u128(sim.bits())),
                step: recorded.step,
                reason: ApprovalReason::OutcomeUnknown,
            })
            .collect();
        let more = u32::try_from(calls.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let first = self.publisher.next_id();
        let last_event = EventId::new(first.attempt(), first.n() + more);
        self.ending = true;
        let (fence, asked) = (self.fence, questions.clone());
        let parked = self.commit(move |ledger, now| {
            ledger.park(&fence, &asked, (last_event, APPROVAL_EXPIRY), now)
        });
        match parked.await? {
            ParkOutcome::CancelRequested(reason) => {
                self.finish(Outcome::Cancelled(reason), None).await?;
                return Ok(Worked::Ended);
            }
            ParkOutcome::Parked => {}
        }
        sim.count(|counts| &mut counts.parked);
        for (recorded, question) in calls.iter().zip(&questions) {
            let call = &recorded.call;
            let asked = ApprovalRequested {
                approval_id: question.id,
                call_id: call.id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
                reason: question.reason.as_str().to_owned(),
            };
            self.publisher
                .push(recorded.step, EventData::ApprovalRequested(asked));
        }
        self.publisher.settle().await?;
        Ok(Worked::Parked)
    }

    async fn finish(&mut self, outcome: Outcome, turn: Option<FinalEntry>) -> Result<(), Halt> {
        self.settle_before_commit().await?;
        let step = turn
            .as_ref()
            .map_or(self.machine.next_step(), |turn| turn.step);
        let usage_total = self.machine.usage();
        let last_event = self.publisher.next_id();
        self.ending = true;
        let (fence, ends) = (self.fence, outcome.clone());
        let turn = turn.map(|turn| {
            let FinalEntry {
                step,
                message,
                usage,
                finish_reason,
                last_event,
            } = turn;
            move || FinalEntry {
                step,
                message: message.clone(),
                usage,
                finish_reason,
                last_event,
            }
        });
        self.commit(move |ledger, now| {
            let entry = EndEntry {
                outcome: ends.clone(),
                last_event,
                usage_total,
                turn: turn.as_ref().map(|turn| turn()),
            };
            ledger.finish(&fence, entry, now)
        })
        .await?;
        self.publisher
            .push(step, terminal_event(&outcome, usage_total, None));
        self.publisher.settle().await?;
        Ok(())
    }

    async fn cancel(&mut self, reason: String) -> Result<Ending, Halt> {
        self.finish(Outcome::Cancelled(reason), None).await?;
        self.sim().count(|counts| &mut counts.cancelled_at_work);
        Ok(Ending::Ended)
    }

    async fn hand_over(mut self) -> Result<Ending, Halt> {
        self.settle_before_commit().await?;
        let last_event = self.publisher.last_id().max(self.committed);
        give_back(self.worker, self.fence, last_event).await
    }

    async fn settle_before_commit(&mut self) -> Result<(), Halt> {
        if self.sim().setup.without == Some(Guard::ShownBeforeCommitted) {
            self.publisher.kick();
            return Ok(());
        }
        Ok(self.publisher.settle().await?)
    }

    /// A guarded write, tried until the ledger has said yes or no.
    async fn commit<T: 'static>(
        &self,
        write: impl Fn(&mut Ledger, u64) -> Result<T, Lost> + Clone + 'static,
    ) -> Result<T, Lost> {
        commit(self.worker, write).await
    }

    /// What the model is shown is what is recorded.
    fn look_at_transcript(&self) {
        let empty = RawValue::from_string("[]".into()).unwrap_or_default();
        let shown = self.transcript.render(None, &empty);
        let mut recorded = Transcript::default();
        {
            let world = self.sim().world.borrow();
            let Some(row) = world.ledger.rows.get(&self.fence.run) else {
                return;
            };
            if row.attempt() != self.fence.attempt {
                return;
            }
            for step in &row.steps {
                if let Some(message) = &step.message {
                    recorded.put(step.step, message.clone());
                }
            }
        }
        if recorded.render(None, &empty).get() != shown.get() {
            let what = format!("the model is shown {shown}, which is not what is recorded");
            self.sim().accuse(Invariant::I8, self.fence.run, what);
        }
    }
}

async fn commit<T: 'static>(
    worker: &Worker,
    write: impl Fn(&mut Ledger, u64) -> Result<T, Lost> + Clone + 'static,
) -> Result<T, Lost> {
    let Worker { sim, process, .. } = worker;
    loop {
        let write = write.clone();
        let answer = sim.ask(*process, Service::Ledger, move |sim| {
            let now = sim.now();
            write(&mut sim.world.borrow_mut().ledger, now)
        });
        match answer.await {
            Ok(answer) => {
                if answer.is_err() {
                    sim.count(|counts| &mut counts.refused_commits);
                }
                return answer;
            }
            Err(Unanswered) => sim.sleep(RETRY_AFTER).await,
        }
    }
}

async fn give_back(worker: &Worker, fence: Fence, last_event: EventId) -> Result<Ending, Halt> {
    commit(worker, move |ledger, now| {
        ledger.hand_over(&fence, last_event, now)
    })
    .await?;
    Ok(Ending::HandedOver)
}

fn effect_of(recorded: &RecordedCall) -> Effect {
    match recorded.call.side {
        CallSide::Server(effect) => effect,
        CallSide::Client => Effect::Pure,
    }
}
