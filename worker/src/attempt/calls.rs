//! Executes the calls of server-side tools, several at a time, or asks a person about them. A request may
//! name its calls itself: they are the first steps of a run that asks no model.

use baton_protocol::event::{
    ApprovalRequested, ToolFinished, ToolStarted, shown_arguments, shown_result,
};
use baton_protocol::{
    ApprovalId, ApprovalReason, Effect, EventData, EventId, Outcome, RequestedInput,
};
use baton_store::{
    AwaitOutcome, CallCommit, GivenCallsCommit, NewApproval, NewCall, ParkCommit, ParkOutcome,
    PauseCommit,
};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tracing::Instrument as _;

use super::budget::wake_waiting;
use super::content::Content;
use super::toolbox::Executed;
use super::trace::AttemptTrace;
use super::{Attempt, Halt, Worked};
use crate::agent::transcript::tool_message;
use crate::agent::turn_machine::{RecordedCall, Resumption, Standing};
use crate::agent::{Call, CallSide};
use crate::metrics;
use crate::tools::CallEnd;
use crate::world::World;

impl<W: World> Attempt<'_, W> {
    /// Records the given calls before any of them begins, so that a later attempt knows their effects.
    pub(super) async fn begin_given_calls(&mut self) -> Result<(), Halt> {
        self.publisher.settle().await?;
        let given = (1..).zip(&self.spec.calls);
        let calls = given.map(|(number, call)| {
            let (name, arguments) = (call.name.clone(), call.arguments.clone());
            self.toolbox
                .classify(format!("call_{number}"), name, arguments)
        });
        let approved = self.spec.approved_calls().map(|(name, call)| {
            let (id, arguments) = (call.id.clone(), call.arguments.clone());
            let call = self.toolbox.classify(id, name.to_owned(), arguments);
            Call {
                needs_approval: false,
                ..call
            }
        });
        let calls: Vec<_> = calls.chain(approved).collect();
        let recorded = self.conversation.machine.given_calls_begun(calls);
        let calls: Vec<_> = recorded.into_iter().map(new_call).collect();
        let last_event_id = self.publisher.last_id();
        let commit = GivenCallsCommit {
            calls: &calls,
            last_event_id,
        };
        let sent = self.runner.clock.monotonic();
        let span = self.trace.commit(1);
        self.ledger.begin_given_calls(&commit).await?;
        drop(span);
        self.hold.confirmed(sent);
        self.publisher.recorded(last_event_id);
        Ok(())
    }

    /// Executes calls, several at a time; records and shows each result as it arrives.
    pub(super) async fn run_calls(&mut self, calls: Vec<RecordedCall>) -> Result<(), Halt> {
        let mut waiting = calls.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.runner.config.tool_parallelism
                && !self.publisher.is_at_limit()
            {
                let Some(recorded) = waiting.next() else {
                    break;
                };
                let begins = recorded.standing == Standing::Open;
                // A question about a task begins nothing.
                let resumes = recorded.call.resumes.as_ref();
                let is_task = resumes.is_some_and(|it| it.pause.task().is_some());
                let once = !is_task && effect_of(&recorded) == Effect::AtMostOnce;
                if begins && once {
                    let sent = self.runner.clock.monotonic();
                    self.ledger.start_call(recorded.step).await?;
                    self.hold.confirmed(sent);
                }
                let call = &recorded.call;
                let shown = match &call.resumes {
                    Some(resumed) => resumed.started,
                    None => self.publisher.push(
                        recorded.step,
                        EventData::ToolStarted(ToolStarted {
                            call_id: call.id.clone(),
                            name: call.name.clone(),
                            arguments: shown_arguments(&call.arguments).to_owned(),
                            edited: call.edited,
                        }),
                    ),
                };
                let (runner, fence, toolbox) = (self.runner, self.ledger.fence, &self.toolbox);
                let (hold, registry) = (self.hold, &self.settings.tools);
                let span = tracing::info_span!("call", step = recorded.step);
                let mut trace = self.trace.tool(&call.name, &call.id, recorded.step);
                let headers = self.trace.tool_headers(&trace);
                let content = Content::new(&self.settings.secrets);
                AttemptTrace::called(content, &mut trace, &call.arguments);
                let work = async move {
                    // The wait comes before the check of the lease, which holds for two seconds.
                    let slot = toolbox.slot(registry, &recorded).await;
                    // The recorded state may be old: this worker may have been frozen since, and a
                    // person may have decided about the call.
                    if begins {
                        hold.may_begin().await;
                    }
                    let (recorded, executed) =
                        toolbox.execute(runner, fence, recorded, headers).await;
                    drop(slot);
                    if let Executed::Ended(result) = &executed {
                        AttemptTrace::returned(content, &mut trace, &result.content);
                        if !result.ok {
                            trace.fail("tool_failed");
                        }
                    }
                    (recorded, executed, shown, trace.sampled())
                };
                running.push(work.instrument(span));
            }
            self.publisher.kick();
            let finished = loop {
                tokio::select! {
                    biased;
                    stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                    () = self.inputs.changed() => {
                        let step = self.conversation.next_step();
                        let inputs = &mut self.inputs;
                        inputs.show_accepted(step, &self.ledger, &mut self.publisher).await?;
                    }
                    finished = running.next() => break finished,
                }
            };
            let Some((recorded, executed, started_event_id, sampled)) = finished else {
                return Ok(());
            };
            let result = match executed {
                Executed::Ended(result) => result,
                Executed::Paused(pause) => {
                    // The next attempt does not show the beginning of the call again.
                    self.publisher.settle().await?;
                    let (step, last_event_id) = (recorded.step, self.publisher.last_id());
                    let commit = PauseCommit {
                        step,
                        pause: &pause,
                        last_event_id,
                        started_event_id,
                    };
                    let sent = self.runner.clock.monotonic();
                    let span = self.trace.commit(step);
                    self.ledger.pause_call(&commit).await?;
                    drop(span);
                    self.hold.confirmed(sent);
                    self.publisher.recorded(last_event_id);
                    // A task that could not be given its answers keeps its questions.
                    let before = recorded.call.resumes.as_ref();
                    let same = before.filter(|it| it.pause.asked() == pause.asked());
                    let resumes = Resumption {
                        given: same.and_then(|it| it.given.clone()),
                        pause,
                        started: started_event_id,
                    };
                    self.conversation.machine.call_paused(step, resumes);
                    continue;
                }
            };
            self.tally.tool_call();
            let name = &recorded.call.name;
            let (ok, end, duration) = (result.ok, result.end, result.duration);
            metrics::tool_finished(&self.settings.names, name, ok, end, sampled, duration);
            self.publisher.settle().await?;
            let last_event_id = self.publisher.next_id();
            let message = tool_message(&recorded.call.id, &result.content);
            let duration_ms = u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX);
            let commit = CallCommit {
                step: recorded.step,
                ok: result.ok,
                failure: result.end.and_then(CallEnd::failure),
                message: message.get(),
                duration_ms,
                last_event_id,
                started_event_id,
                inputs_step: self.conversation.step_after_call(recorded.step),
            };
            let sent = self.runner.clock.monotonic();
            let span = self.trace.commit(recorded.step);
            let inputs = self.ledger.call(&commit).await?;
            drop(span);
            self.hold.confirmed(sent);
            self.publisher.recorded(last_event_id);
            self.conversation.put_result(recorded.step, message);
            self.publisher.push(
                recorded.step,
                EventData::ToolFinished(ToolFinished {
                    call_id: recorded.call.id,
                    name: recorded.call.name,
                    ok: result.ok,
                    result: shown_result(&result.content).to_owned(),
                    duration_ms,
                }),
            );
            self.inputs.take::<W>(
                inputs,
                last_event_id,
                &mut self.conversation,
                &mut self.publisher,
            );
        }
    }

    /// Parks the run until a person has decided about these calls: first the log confirms
    /// everything shown, then the questions are committed with the release of the lease, then they
    /// are shown.
    pub(super) async fn park(&mut self, calls: &[RecordedCall]) -> Result<Worked, Halt> {
        self.publisher.settle().await?;
        let now = self.runner.clock.now();
        let approvals: Vec<_> = calls
            .iter()
            .zip(approval_ids(now, calls.len()))
            .map(|(recorded, id)| {
                let (reason, parameters) = match recorded.standing {
                    Standing::NeedsApproval => (
                        ApprovalReason::ApprovalRequired,
                        self.toolbox.parameters(&recorded.call.name),
                    ),
                    Standing::NeedsInput => (ApprovalReason::Input, None),
                    // The machine parks for no other call.
                    Standing::OutcomeUnknown
                    | Standing::Open
                    | Standing::AtServer
                    | Standing::Settled { .. } => (ApprovalReason::OutcomeUnknown, None),
                };
                NewApproval {
                    id,
                    step: recorded.step,
                    reason,
                    parameters,
                    reached: None,
                    input: asked_input(recorded),
                }
            })
            .collect();
        let Some(expires_at) = self.ask(&approvals).await? else {
            return Ok(Worked::Ended);
        };
        for (recorded, approval) in calls.iter().zip(&approvals) {
            let call = &recorded.call;
            let asked = ApprovalRequested {
                approval_id: approval.id,
                call_id: call.id.clone(),
                name: call.name.clone(),
                arguments: shown_arguments(&call.arguments).to_owned(),
                reason: approval.reason.as_str().to_owned(),
                expires_at: Some(expires_at),
                input: approval.input.clone(),
            };
            self.publisher
                .push(recorded.step, EventData::ApprovalRequested(asked));
        }
        self.shown_questions().await
    }

    /// Releases the run until it is time to ask a server about a task.
    pub(super) async fn await_tasks(&mut self) -> Result<Worked, Halt> {
        self.publisher.settle().await?;
        let last_event_id = self.publisher.last_id();
        match self.ledger.await_tasks(last_event_id).await? {
            AwaitOutcome::CancelRequested(reason) => {
                self.finish(Outcome::Cancelled(reason), None, None).await?;
                return Ok(Worked::Ended);
            }
            AwaitOutcome::Waits => {}
        }
        metrics::run_parked();
        self.trace.released("parked");
        self.shown_questions().await
    }

    /// Commits questions with the release of the lease. Returns the time at which they expire; `None` if the run
    /// was cancelled instead, and has ended.
    pub(super) async fn ask(
        &mut self,
        approvals: &[NewApproval],
    ) -> Result<Option<DateTime<Utc>>, Halt> {
        let more = u32::try_from(approvals.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let first = self.publisher.next_id();
        let commit = ParkCommit {
            approvals,
            expire_after: self.runner.config.approval_expiry,
            last_event_id: EventId::new(first.attempt(), first.n() + more),
        };
        let expires_at = match self.ledger.park(&commit).await? {
            ParkOutcome::CancelRequested(reason) => {
                self.finish(Outcome::Cancelled(reason), None, None).await?;
                return Ok(None);
            }
            ParkOutcome::Parked { expires_at } => expires_at,
        };
        metrics::run_parked();
        metrics::questions_asked(approvals.iter().map(|approval| approval.reason));
        self.trace.released("parked");
        Ok(Some(expires_at))
    }

    /// Stores the events of committed questions. The attempt is over then.
    pub(super) async fn shown_questions(&mut self) -> Result<Worked, Halt> {
        self.publisher.settle().await?;
        if self.budget.is_limited() {
            wake_waiting(self.runner, &self.ledger.fence).await;
        }
        Ok(Worked::Parked)
    }
}

/// Returns the questions with which a server has left its call, if a person must answer them now.
fn asked_input(recorded: &RecordedCall) -> Option<RequestedInput> {
    let resumed = recorded.call.resumes.as_ref()?;
    let asked = resumed.pause.asked().cloned();
    asked.filter(|_| recorded.standing == Standing::NeedsInput)
}

/// Draws the ids of the questions of one park. The list of open questions is in the order of their
/// ids, the newest first, so the first call gets the highest one.
fn approval_ids(now: DateTime<Utc>, calls: usize) -> Vec<ApprovalId> {
    let mut ids: Vec<_> = (0..calls).map(|_| ApprovalId::new(now)).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// Returns the row of a call that is to be recorded.
pub(super) fn new_call(recorded: RecordedCall) -> NewCall {
    NewCall {
        step: recorded.step,
        effect: effect_of(&recorded),
        call_id: recorded.call.id,
        name: recorded.call.name,
        arguments: recorded.call.arguments,
    }
}

/// Returns the effect of executing a call twice.
fn effect_of(recorded: &RecordedCall) -> Effect {
    match recorded.call.side {
        CallSide::Server(effect) => effect,
        // The machine ends a run at a client's call, so none is ever executed here.
        CallSide::Client => Effect::Pure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_of_a_park_has_the_highest_id() {
        let ids = approval_ids(DateTime::UNIX_EPOCH, 20);
        assert!(ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    }
}
