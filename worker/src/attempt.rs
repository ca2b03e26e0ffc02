//! One attempt at a run: from the claim to the commit that ends it or gives it back.
//!
//! The order of writes matters. The event log confirms a step's events before the step is
//! committed; events about a commit are shown after it. The id of the event that follows a commit
//! is recorded with the commit, so that the next attempt knows whether that event was still shown.

use std::sync::Arc;

use baton_nats::JobHeaders;
use baton_protocol::event::RunStarted;
use baton_protocol::{EventData, EventId, FinishReason, Job, Nanos, Outcome, RunError, RunSpec};
use baton_run_log::terminal_event::terminal_event;
use baton_store::{ClaimedRun, FinalTurn, FinishCommit, QueuedJob, TurnWish};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::agent::FinishedTurn;
use crate::agent::turn_machine::Next;
use crate::attempt::answering_model::AnsweringModel;
use crate::attempt::budget::{Budget, wake_waiting};
use crate::attempt::commit::{CommitError, GuardedLedger};
use crate::attempt::conversation::Conversation;
use crate::attempt::inputs::Inputs;
use crate::attempt::tally::Tally;
use crate::attempt::toolbox::Toolbox;
use crate::attempt::trace::AttemptTrace;
use crate::attempt::unrecorded_turn::{TurnRecord, UnrecordedTurn, Wanted};
use crate::keep_lease::{Hold, Stop};
use crate::metrics;
use crate::runner::JobRunner;
use crate::settings::Settings;
use crate::world::{Broker as _, Servers, World};
use baton_run_log::{EventPublisher, PublishEventsError, shown_by_commit};

mod answering_model;
mod budget;
mod calls;
mod client_calls;
mod commit;
mod compaction;
mod content;
mod conversation;
mod credential;
mod inputs;
mod limits;
mod tally;
mod toolbox;
mod trace;
mod turn;
mod unrecorded_turn;

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The run has ended, and its last event is stored.
    Ended,
    /// The run is queued again, for another worker.
    HandedOver,
    /// The run is queued again because it could not be served here now. Its job comes again after a
    /// pause, so that it does not circulate without end.
    GivenBack,
    /// The run waits for a person, and its questions are stored.
    Parked,
    /// The run is queued again, and waits there until other runs of its key have settled: their end
    /// publishes a job.
    AwaitsBudget,
    /// Another attempt holds the run, or may.
    Lost,
    /// The attempt was stopped while it ended or parked the run: only the ledger knows the result.
    PerhapsEnded,
}

/// The reason why an attempt cannot continue.
#[derive(Debug, thiserror::Error)]
enum Halt {
    /// The log belongs to a newer attempt, or cannot store the run's events.
    #[error(transparent)]
    Events(#[from] PublishEventsError),
    /// The ledger refused the attempt, or a record.
    #[error(transparent)]
    Ledger(#[from] CommitError),
}

/// The result of an attempt's work.
enum Worked {
    /// The run has ended.
    Ended,
    /// The run waits for a person.
    Parked,
    /// The run waits until other runs of its key have settled.
    AwaitsBudget(TurnWish),
    /// The worker is draining, and the run is between two steps.
    Draining,
}

/// An active attempt at a run: its parts, and the order of its steps.
pub(crate) struct Attempt<'a, W: World = Servers> {
    runner: &'a JobRunner<W>,
    /// The settings that the attempt began with.
    settings: Arc<Settings>,
    spec: Arc<RunSpec>,
    hold: &'a Hold<'a, W>,
    ledger: GuardedLedger<'a, W>,
    conversation: Conversation,
    toolbox: Toolbox,
    publisher: EventPublisher<W::Broker>,
    inputs: Inputs,
    model: AnsweringModel,
    budget: Budget,
    /// The end of the run's time, if it is limited.
    deadline: Option<Instant>,
    turn: UnrecordedTurn,
    /// For the run's log line.
    tally: Tally,
    trace: AttemptTrace,
}

impl<'a, W: World> Attempt<'a, W> {
    /// Works on a claimed run until it has ended, is given back, or is lost.
    pub(crate) async fn run(
        runner: &'a JobRunner<W>,
        claimed: ClaimedRun,
        spec: RunSpec,
        hold: &'a Hold<'a, W>,
        headers: &JobHeaders,
    ) -> Ending {
        let ledger = GuardedLedger::new(runner, claimed.fence);
        let committed = claimed.last_event_id;
        let mut begun: Option<Self> = None;
        let worked = tokio::select! {
            biased;
            stop = hold.until_stopped(&runner.cut) => Err(stop),
            worked = async {
                let (attempt, refused) = Self::begin(runner, claimed, spec, hold, headers).await?;
                begun.insert(attempt).work(refused).await
            } => Ok(worked),
        };
        hold.let_go();
        // From here on the lease is not renewed. The ledger guards the write that gives the run
        // back, so that write may still be tried when the lease could not be confirmed.
        let until = match worked {
            Err(Stop::LeaseUnconfirmed) => hold.lease().end(),
            _ => hold.lease().give_up_at(),
        };
        let ending = begun
            .as_ref()
            .is_some_and(|attempt| attempt.ledger.is_ending)
            || matches!(worked, Err(Stop::Cancelled(_)));
        let recorded = begun
            .as_ref()
            .map_or(committed, |attempt| attempt.publisher.last_recorded());
        // Boxed: hardly a run ends in these ways, and while it works its future would have their place.
        let closing = async {
            match worked {
                Ok(Ok(Worked::Ended)) => Ok(Ending::Ended),
                Ok(Ok(Worked::Parked)) => Ok(Ending::Parked),
                Ok(Ok(Worked::AwaitsBudget(wish))) => match &mut begun {
                    Some(attempt) => Box::pin(attempt.await_budget(&wish)).await,
                    None => Box::pin(give_back(&ledger, committed)).await,
                },
                Ok(Ok(Worked::Draining)) => match &mut begun {
                    Some(attempt) => Box::pin(attempt.hand_over()).await,
                    None => Box::pin(give_back(&ledger, committed)).await,
                },
                Ok(Err(halt)) => Err(halt),
                Err(Stop::Cancelled(reason)) => match &mut begun {
                    Some(attempt) => Box::pin(attempt.cancel(reason)).await,
                    // Not begun yet: the next claim finds the flag and ends the run.
                    None => Box::pin(give_back(&ledger, committed)).await,
                },
                // The step is cut: the next attempt's reset withdraws its text. An outage is not a
                // failure of the run either.
                Err(Stop::Cut | Stop::LeaseUnconfirmed) => {
                    Box::pin(give_back(&ledger, recorded)).await
                }
                Err(Stop::LeaseLost) => Ok(Ending::Lost),
            }
        };
        // The log may refuse during the work or during the closing.
        let closing = async {
            match closing.await {
                Err(Halt::Events(PublishEventsError::Refused(error))) => {
                    tracing::error!(%error, "the event log refuses; the run is given back");
                    Box::pin(give_back(&ledger, recorded))
                        .await
                        .map(|_| Ending::GivenBack)
                }
                closed => closed,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = closing => ended,
            () = tokio::time::sleep_until(until.into()) => Ok(Ending::Lost),
        };
        let ended = ended.unwrap_or_else(|halt| {
            if matches!(halt, Halt::Events(PublishEventsError::Replaced(_))) {
                metrics::fenced_by_log();
            }
            let cause = std::error::Error::source(&halt).map(ToString::to_string);
            tracing::warn!(%halt, cause, "this attempt is over");
            Ending::Lost
        });
        match ended {
            Ending::Lost if ending => Ending::PerhapsEnded,
            ended => ended,
        }
    }

    /// Prepares the work on a run. Returns also the refusal of a run that its key no longer allows.
    async fn begin(
        runner: &'a JobRunner<W>,
        mut claimed: ClaimedRun,
        mut spec: RunSpec,
        hold: &'a Hold<'a, W>,
        headers: &JobHeaders,
    ) -> Result<(Self, Option<RunError>), Halt> {
        let settings = runner.settings.load_full();
        let ledger = GuardedLedger::new(runner, claimed.fence);
        let is_stopped = limits::apply_decisions(&mut spec, &mut claimed, &ledger).await?;
        let key = claimed.key.as_ref();
        let refused = credential::confine(&mut spec, key, &settings.extra_fields);
        let spec = Arc::new(spec);
        let model = AnsweringModel::new(Arc::clone(&spec), Arc::clone(&settings), key);
        let limits = spec.limits;
        let spent = if limits.most.max_cost_nanos.is_some() {
            ledger.run_cost(claimed.created_at).await?
        } else {
            Nanos(0)
        };
        let budget = Budget::of(key, &limits, spent);
        let tally = Tally::of(&claimed);
        let now = runner.clock.now();
        let deadline = limits.most.max_wall_time().map(|most| {
            let lived = (now - claimed.started_at).to_std().unwrap_or_default();
            Instant::from_std(runner.clock.monotonic()) + most.saturating_sub(lived)
        });
        let trace = AttemptTrace::begin(&claimed, &spec, headers, runner.worker, now);
        let mut publisher = EventPublisher::begin(
            runner.bus.clone(),
            Arc::clone(&runner.clock),
            claimed.fence,
            claimed.last_event_id,
            shown_by_commit(&claimed.recorded, &claimed.asked, claimed.last_event_id),
        )
        .await?
        .holding(runner.events_per_run);
        if claimed.fence.attempt == 1 {
            let (model, agent) = (spec.model.clone(), spec.agent.name.clone());
            publisher.push(0, EventData::RunStarted(RunStarted { model, agent }));
        } else {
            publisher.kick();
        }
        let mut toolbox = Toolbox::new(&spec, &settings).await;
        if toolbox.is_guarded() {
            toolbox.lift_guards(&ledger.granted_tools().await?);
        }
        let needs_approval = |name: &str, arguments: &str| toolbox.needs_approval(name, arguments);
        let mut conversation =
            Conversation::rebuild(Arc::clone(&spec), claimed.recorded, needs_approval);
        if is_stopped {
            conversation.machine.stop_at_limit();
        }
        let attempt = Self {
            runner,
            settings,
            spec,
            hold,
            ledger,
            conversation,
            toolbox,
            publisher,
            inputs: Inputs::new(hold.waiting_inputs(), claimed.last_event_id),
            model,
            budget,
            deadline,
            turn: UnrecordedTurn::default(),
            tally,
            trace,
        };
        Ok((attempt, refused))
    }

    /// Works until the run has ended or is given back, but not longer than the run may take.
    async fn work(&mut self, refused: Option<RunError>) -> Result<Worked, Halt> {
        let Some(deadline) = self.deadline else {
            return self.take_steps(refused).await;
        };
        match tokio::time::timeout_at(deadline, self.take_steps(refused)).await {
            Ok(worked) => worked,
            Err(_) => Box::pin(self.end_at_deadline()).await,
        }
    }

    /// Ends the run at its limit of time. The future of its work is dropped, and with it all active calls
    /// of tools. The part of an answer that has arrived is kept.
    async fn end_at_deadline(&mut self) -> Result<Worked, Halt> {
        let finish_reason = FinishReason::MaxWallTime;
        tracing::info!(
            limit = finish_reason.as_str(),
            "a limit of the run is reached"
        );
        let outcome = Outcome::Completed(finish_reason);
        let Some(cut) = self.interrupt_turn() else {
            self.budget.lower(None, &self.ledger).await?;
            self.finish(outcome, None, None).await?;
            return Ok(Worked::Ended);
        };
        if cut.wanted == Wanted::Summary {
            self.finish(outcome, None, Some(cut)).await?;
            return Ok(Worked::Ended);
        }
        self.publisher.settle().await?;
        let charged = self.model.charge(&cut);
        if !cut.counted {
            self.tally.turn(&charged.charge);
            self.conversation.machine.turn_finished(FinishedTurn {
                finish_reason,
                calls: Vec::new(),
                usage: cut.usage,
            });
        }
        let last = cut.as_last(&charged, finish_reason, self.publisher.last_id());
        self.finish(outcome, Some(last), None).await?;
        Ok(Worked::Ended)
    }

    async fn take_steps(&mut self, refused: Option<RunError>) -> Result<Worked, Halt> {
        if let Some(error) = refused {
            tracing::info!(
                code = error.code,
                "the run's key does not allow it any more"
            );
            self.finish(Outcome::Failed(error), None, None).await?;
            return Ok(Worked::Ended);
        }
        loop {
            if self.runner.shutdown.soft.is_cancelled() {
                return Ok(Worked::Draining);
            }
            if self.publisher.is_at_limit() {
                tracing::warn!("the run has as many events as one may have: it ends here");
                let outcome = Outcome::Completed(FinishReason::Length);
                self.finish(outcome, None, None).await?;
                return Ok(Worked::Ended);
            }
            self.show_accepted(self.conversation.next_step()).await?;
            match self.conversation.next() {
                Next::CallModel { step } if self.conversation.must_compact() => {
                    let span = tracing::info_span!("compaction", step);
                    let turn = self.take_turn(step, Wanted::Summary);
                    if let Some(worked) = turn.instrument(span).await? {
                        return Ok(worked);
                    }
                }
                Next::CallModel { step } | Next::HandBack { step } => {
                    let span = tracing::info_span!("turn", step);
                    let turn = self.take_turn(step, Wanted::Answer);
                    if let Some(worked) = turn.instrument(span).await? {
                        return Ok(worked);
                    }
                }
                Next::BeginGivenCalls => self.begin_given_calls().await?,
                Next::RunCalls(calls) => self.run_calls(calls).await?,
                Next::Park(calls) => return self.park(&calls).await,
                Next::AwaitTasks => return self.await_tasks().await,
                Next::ParkAtLimit(limit) => return self.park_at_limit(limit).await,
                // The ledger records a run's end together with its last turn, so a run that can be
                // claimed has no recorded end. But a server with other limits may conclude one from
                // the record.
                Next::Finish(outcome) => {
                    self.finish(outcome, None, None).await?;
                    return Ok(Worked::Ended);
                }
            }
        }
    }

    /// Shows that the messages which wait for the run were accepted.
    async fn show_accepted(&mut self, step: u32) -> Result<(), Halt> {
        let inputs = &mut self.inputs;
        let shown = inputs.show_accepted(step, &self.ledger, &mut self.publisher);
        Ok(shown.await?)
    }

    /// Ends the run: first the log confirms everything shown, then the end is committed, then it is
    /// shown.
    async fn finish(
        &mut self,
        outcome: Outcome,
        turn: Option<FinalTurn<'_>>,
        cut: Option<TurnRecord>,
    ) -> Result<(), Halt> {
        self.end(outcome, turn, cut, false).await.map(drop)
    }

    /// As [`Attempt::finish`]; returns `false`, with nothing written, if the run goes on because a
    /// message waits for it.
    async fn end(
        &mut self,
        outcome: Outcome,
        turn: Option<FinalTurn<'_>>,
        cut: Option<TurnRecord>,
        unless_inputs_wait: bool,
    ) -> Result<bool, Halt> {
        self.publisher.settle().await?;
        let step = turn
            .as_ref()
            .map_or(self.conversation.next_step(), |turn| turn.step);
        let mut usage = self.conversation.usage();
        let charged = cut.as_ref().map(|cut| self.model.charge(cut));
        let cut = cut.as_ref().zip(charged.as_ref());
        if let Some((cut, charged)) = cut.filter(|(cut, _)| !cut.counted) {
            usage += cut.usage;
            self.tally.turn(&charged.charge);
        }
        let cut = cut.map(|(cut, charged)| cut.as_cut(charged, self.publisher.last_id()));
        let commit = FinishCommit {
            outcome: &outcome,
            last_event_id: self.publisher.next_id(),
            usage_total: usage,
            turn,
            cut,
            unless_inputs_wait,
        };
        let span = self.trace.commit(step);
        let Some(finished) = self.ledger.finish(&commit).await? else {
            return Ok(false);
        };
        drop(span);
        self.trace.ended(&outcome);
        metrics::run_ended(&outcome);
        if let Outcome::Completed(reason) = &outcome {
            metrics::limit_reached(*reason);
        }
        metrics::run_example(self.trace.sampled(), self.tally.lived(&*self.runner.clock));
        self.tally.log(&outcome, usage, &*self.runner.clock);
        let latency = finished.cancel_latency;
        if let Some(latency) = latency {
            metrics::run_cancelled(latency);
            tracing::info!(
                latency_ms = latency.as_millis(),
                "stopped because of a cancel"
            );
        }
        if let Some(next) = finished.promoted {
            publish_queued(self.runner, next).await;
        }
        self.publisher
            .push(step, terminal_event(&outcome, usage, latency));
        // A committed run has ended. If the event cannot be stored now, the worker that gets the
        // job next finds the run ended and stores it.
        self.publisher.settle().await?;
        if self.budget.is_limited() {
            wake_waiting(self.runner, &self.ledger.fence).await;
        }
        Ok(true)
    }

    async fn cancel(&mut self, reason: String) -> Result<Ending, Halt> {
        // The work's future is dropped, and with it all active calls of tools.
        let cut = self.interrupt_turn();
        if cut.is_none() {
            self.budget.lower(None, &self.ledger).await?;
        }
        self.finish(Outcome::Cancelled(reason), None, cut).await?;
        Ok(Ending::Ended)
    }

    /// Gives the run back between two steps.
    async fn hand_over(&mut self) -> Result<Ending, Halt> {
        self.trace.released("handed_over");
        self.publisher.settle().await?;
        give_back(&self.ledger, self.publisher.resume_point()).await
    }

    /// Gives the run back to the queue, to wait for the budget. The next settled run publishes a
    /// job for it; if one has settled meanwhile, this run's own job comes again.
    async fn await_budget(&mut self, wish: &TurnWish) -> Result<Ending, Halt> {
        self.trace.released("awaits_budget");
        self.publisher.settle().await?;
        let last_event = self.publisher.resume_point();
        let waits = self.ledger.await_budget(wish, last_event).await?;
        Ok(if waits {
            Ending::AwaitsBudget
        } else {
            Ending::HandedOver
        })
    }
}

/// Publishes the job of a run that may continue now. If that fails, the scheduler publishes it.
pub(crate) async fn publish_queued<W: World>(runner: &JobRunner<W>, next: QueuedJob) {
    let job = Job::Run { run_id: next.run };
    let headers = JobHeaders::default();
    if let Err(error) = runner
        .bus
        .publish_job(next.tenant, next.lane, &job, &headers)
        .await
    {
        tracing::warn!(%error, run.id = %next.run, "the job of a run that may go now is not published yet");
    }
}

async fn give_back<W: World>(
    ledger: &GuardedLedger<'_, W>,
    last_event: EventId,
) -> Result<Ending, Halt> {
    ledger.hand_over(last_event).await?;
    Ok(Ending::HandedOver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Servers;

    fn size<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_run_holds_little_while_its_model_answers() {
        let run = size(|runner, claimed, spec, hold, headers: &'static _| {
            Attempt::<'static, Servers>::run(runner, claimed, spec, hold, headers)
        });
        assert!(run < 13 << 10, "{run}");
    }
}
