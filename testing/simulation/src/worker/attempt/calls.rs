//! The calls of a turn: tool calls, and questions.

use std::time::Duration;

use baton_protocol::event::{ApprovalRequested, ToolFinished, ToolStarted};
use baton_protocol::{ApprovalId, ApprovalReason, Effect, EventData, EventId, Outcome};
use baton_store::{NewApproval, ParkOutcome};
use baton_worker::agent::CallSide;
use baton_worker::agent::transcript::tool_message;
use baton_worker::agent::turn_machine::{RecordedCall, Standing};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::{Attempt, Halt, Worked};
use crate::ledger::CallEntry;
use crate::links::Service;
use crate::network::Unanswered;
use crate::world::Execution;

const TOOL_PARALLELISM: usize = 2;
/// The time until an unanswered question expires.
const APPROVAL_EXPIRY: Duration = Duration::from_secs(40);

impl<'a> Attempt<'a> {
    pub(super) async fn run_calls(&mut self, calls: Vec<RecordedCall>) -> Result<(), Halt> {
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

    /// Calls a tool. The request leaves at the first poll.
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
            // The start of a call that must not be repeated was recorded just now.
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

    pub(super) async fn park(&mut self, calls: &[RecordedCall]) -> Result<Worked, Halt> {
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
}

pub(super) fn effect_of(recorded: &RecordedCall) -> Effect {
    match recorded.call.side {
        CallSide::Server(effect) => effect,
        CallSide::Client => Effect::Pure,
    }
}
