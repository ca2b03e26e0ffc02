//! A model turn: requested, shown as it arrives, and recorded. Afterwards the run continues, or
//! ends with it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use baton_admission::needs;
use baton_protocol::event::AttemptReset;
use baton_protocol::{EventData, FinishReason, LeftUpstream, Outcome, RunError, TurnRoute};
use baton_routing::Target;
use baton_run_log::{EventLogs, EventPublisher, PublishEventsError};
use baton_store::{TurnCommit, TurnWish};

use super::budget::PlannedTurn;
use super::calls::new_call;
use super::client_calls::ClientCalls;
use super::compaction::summary_request;
use super::content::Content;
use super::unrecorded_turn::{OpenTurn, TurnRecord, UnrecordedTurn, Wanted};
use super::{Attempt, Halt, Worked};
use crate::agent::turn_machine::{AtLimit, TurnVerdict};
use crate::agent::{Call, FinishedTurn};
use crate::metrics;
use crate::model::{ModelError, StartedTurn, TurnContext, TurnParts};
use crate::world::World;

/// The time that events wait for the model's first text, to be stored with it.
const FIRST_TEXT: Duration = Duration::from_millis(50);

/// A turn that has ended well.
pub(super) struct TurnEnd {
    pub(super) record: TurnRecord,
    /// The reason why it ended.
    pub(super) finish_reason: FinishReason,
    /// The calls that it requests.
    calls: Vec<Call>,
}

impl TurnEnd {
    /// Returns the end of a turn that reached the limit of its run's length, as if the upstream had
    /// reported its own limit. Calls in it may be truncated, and are not made.
    const fn at_length(record: TurnRecord) -> Self {
        Self {
            record,
            finish_reason: FinishReason::Length,
            calls: Vec::new(),
        }
    }
}

/// The failure of a turn.
pub(super) enum TurnFailure {
    /// The upstream failed, and so does the run.
    Model(ModelError),
    /// The model was not called: the run ends with this outcome.
    Ends(Outcome),
    /// The model was not called: the run has reached this limit.
    Limit(FinishReason),
    /// The model was not called: the run waits until other runs have released what they do not use.
    Waits(TurnWish),
    /// The attempt is over.
    Halt(Halt),
}

impl From<ModelError> for TurnFailure {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<PublishEventsError> for TurnFailure {
    fn from(error: PublishEventsError) -> Self {
        Self::Halt(error.into())
    }
}

impl<W: World> Attempt<'_, W> {
    /// Takes one turn of the model. Returns `None` if this attempt continues afterwards.
    pub(super) async fn take_turn(
        &mut self,
        step: u32,
        wanted: Wanted,
    ) -> Result<Option<Worked>, Halt> {
        self.hold.may_begin().await;
        self.trace.begin_turn(&self.spec.model, step);
        let turn = self.model_turn(step, wanted).await;
        let content = Content::new(&self.settings.secrets);
        self.trace.end_turn(content, turn.as_ref());
        let turn = match turn {
            Ok(turn) => turn,
            Err(TurnFailure::Model(error)) => {
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a model turn failed"
                );
                return match self.withdraw_turn(step, error).await? {
                    Some(error) => self.fail_turn(&error).await.map(Some),
                    None => Ok(None),
                };
            }
            // Ends the run, because a queued run cannot carry the usage of broken-off tries.
            Err(TurnFailure::Ends(_) | TurnFailure::Limit(_) | TurnFailure::Waits(_))
                if self.turn.broken.is_some() =>
            {
                let Some(broken) = self.turn.broken.as_ref() else {
                    return Ok(None);
                };
                metrics::model_turn_failed(broken.error.code());
                let outcome = failed(&broken.error);
                let cut = self.interrupt_turn();
                self.finish(outcome, None, cut).await?;
                return Ok(Some(Worked::Ended));
            }
            Err(TurnFailure::Ends(outcome)) => {
                self.finish(outcome, None, None).await?;
                return Ok(Some(Worked::Ended));
            }
            Err(TurnFailure::Limit(limit)) => {
                tracing::info!(limit = limit.as_str(), "a limit of the run is reached");
                return match self.conversation.machine.limit_reached(limit) {
                    AtLimit::HandBack => Ok(None),
                    AtLimit::Park => Box::pin(self.park_at_limit(limit)).await.map(Some),
                    AtLimit::Finish(outcome) => {
                        self.finish(outcome, None, None).await?;
                        Ok(Some(Worked::Ended))
                    }
                };
            }
            Err(TurnFailure::Waits(wish)) => return Ok(Some(Worked::AwaitsBudget(wish))),
            Err(TurnFailure::Halt(halt)) => return Err(halt),
        };
        match wanted {
            Wanted::Answer => self.record_turn(turn).await,
            Wanted::Summary => self.record_summary(turn).await,
        }
    }

    /// Records a turn: the run continues after it, or ends with it.
    async fn record_turn(&mut self, turn: TurnEnd) -> Result<Option<Worked>, Halt> {
        let TurnEnd {
            record,
            finish_reason,
            calls,
        } = turn;
        let charged = self.model.charge(&record);
        let answered = record.model.as_deref();
        let request_id = self.trace.request_id();
        self.model
            .note_answer(answered, self.runner, &self.ledger, request_id)
            .await;
        self.tally.turn(&charged.charge);
        self.turn.record = Some(TurnRecord {
            counted: true,
            ..record.clone()
        });
        let verdict = self.conversation.machine.turn_finished(FinishedTurn {
            finish_reason,
            calls,
            usage: record.usage,
        });
        self.publisher.settle().await?;
        let new_calls: Vec<_> = match verdict {
            TurnVerdict::Finish(outcome) => {
                let last = record.as_last(&charged, finish_reason, self.publisher.last_id());
                let may_go_on = self.conversation.machine.may_go_on();
                let gives_way = may_go_on && !self.publisher.is_at_limit();
                if self.end(outcome, Some(last), None, gives_way).await? {
                    return Ok(Some(Worked::Ended));
                }
                // A message waits: the run takes it with this turn, and another turn answers it.
                Vec::new()
            }
            TurnVerdict::Continue(calls) => calls.into_iter().map(new_call).collect(),
        };
        let step = record.step;
        let last_event_id = self.publisher.next_id();
        let commit = TurnCommit {
            step,
            message: record.message.get(),
            answer_fields: record.fields(),
            charged_model: charged.model.as_deref(),
            usage: record.usage,
            charge: charged.charge,
            times: record.times,
            usage_total: self.conversation.usage(),
            finish_reason,
            last_event_id,
            calls: &new_calls,
            inputs_step: new_calls.is_empty().then(|| self.conversation.next_step()),
        };
        let sent = self.runner.clock.monotonic();
        let span = self.trace.commit(step);
        let inputs = self.ledger.turn(&commit).await?;
        drop(span);
        self.turn = UnrecordedTurn::default();
        self.budget.turn_recorded(&charged.charge);
        self.hold.confirmed(sent);
        self.publisher.recorded(last_event_id);
        self.conversation
            .put_turn(step, record.message, record.usage);
        self.conversation
            .turn_ended(step, finish_reason, !new_calls.is_empty());
        self.publisher.push(step, EventData::Usage(record.usage));
        self.inputs.take::<W>(
            inputs,
            last_event_id,
            &mut self.conversation,
            &mut self.publisher,
        );
        Ok(None)
    }

    /// Ends the run with the failure of its turn.
    async fn fail_turn(&mut self, error: &ModelError) -> Result<Worked, Halt> {
        metrics::model_turn_failed(error.code());
        let cut = self.interrupt_turn();
        if cut.is_none() {
            self.budget.lower(Some(error), &self.ledger).await?;
        }
        self.finish(failed(error), None, cut).await?;
        Ok(Worked::Ended)
    }

    /// Withdraws the shown part of a failed turn and pauses, if the model may be called again;
    /// otherwise returns the error. It may not be called again if a client that cannot take text
    /// back has received some of the turn, or if the run's tries or tokens are used up.
    async fn withdraw_turn(
        &mut self,
        step: u32,
        error: ModelError,
    ) -> Result<Option<ModelError>, Halt> {
        let tries = self.turn.tries();
        let models = &self.settings.models;
        let Some(pause) = models.pause_before_next_turn(tries + 1, &error) else {
            return Ok(Some(error));
        };
        // A try that had not begun was already repeated, except if it might have cost more than its
        // reservation, or if its first words arrived together with malformed data.
        let may_begin_again = self.budget.is_metered() && !error.costs_nothing()
            || matches!(error, ModelError::Invalid { .. });
        if self.turn.open.is_none() && !may_begin_again || self.publisher.is_at_limit() {
            return Ok(Some(error));
        }
        let shown = self.turn.open.as_ref().is_some_and(|open| open.shown);
        if shown && self.spec.shown_for_good {
            return Ok(Some(error));
        }
        let used = self.turn.used(&self.budget, &self.conversation);
        let total = self.conversation.usage() + used;
        let limit = self.spec.limits.max_total_tokens;
        if limit.is_some_and(|most| total.total_tokens >= most) {
            return Ok(Some(error));
        }
        let before = self.turn.break_off(step, error, used);
        if let Some(resume_after) = before.filter(|it| self.publisher.last_pushed() != *it) {
            let reset = AttemptReset {
                resume_after,
                continues: false,
            };
            self.publisher.push(step, EventData::AttemptReset(reset));
            self.inputs.withdraw(resume_after);
            self.show_accepted(step).await?;
        }
        metrics::turn_withdrawn();
        tracing::info!(?pause, "a turn that broke off is asked for again");
        self.publisher.settle().await?;
        tokio::time::sleep(pause).await;
        Ok(None)
    }

    /// Interrupts the active turn, if there is one: see [`UnrecordedTurn::interrupt`].
    pub(super) fn interrupt_turn(&mut self) -> Option<TurnRecord> {
        let now = self.runner.clock.monotonic();
        let estimate = |bytes| self.budget.estimate(&self.conversation, bytes);
        self.turn
            .interrupt(now, &self.toolbox, &mut self.publisher, estimate)
    }

    /// Calls the model and shows its answer. Events are stored while the answer is read; if the log
    /// is slow, the upstream is read no further than memory allows.
    async fn model_turn(&mut self, step: u32, wanted: Wanted) -> Result<TurnEnd, TurnFailure> {
        let started = self.runner.clock.monotonic();
        let settings = Arc::clone(&self.settings);
        let spec = match wanted {
            Wanted::Answer => Arc::clone(&self.spec),
            Wanted::Summary => Arc::new(summary_request(&self.spec)),
        };
        let models = &settings.models;
        let is_last = self.conversation.machine.is_handing_back();
        // A turn that hands back is offered no tools, and neither is a summary.
        let is_offered = wanted == Wanted::Answer && !is_last;
        let tools = self.toolbox.offered().filter(|_| is_offered);
        let needs = needs(&spec.params, tools.is_some());
        let targets = models.targets(&spec.model, &spec.fallbacks, needs)?;
        let messages = match wanted {
            Wanted::Answer => self.conversation.render(),
            Wanted::Summary => self.conversation.render_for_summary(),
        };
        let content = Content::new(&settings.secrets);
        let instructed = self.spec.instructions.is_some();
        self.trace.asked(content, &messages, instructed);
        let parts = |answer_limit| TurnParts {
            spec: &spec,
            messages: &messages,
            tools,
            first_turn: self.conversation.is_empty(),
            answer_limit,
        };
        let mut body = models.render(&targets[0], &parts(None));
        let planned = PlannedTurn {
            step,
            bytes: body.len() + room_for_others(&targets),
            messages: &messages,
            targets: &targets,
            used: self.conversation.usage(),
            broken: self.turn.broken.as_ref(),
            is_last,
        };
        let limit = self.budget.reserve(planned, &spec, &settings, &self.ledger);
        let limit = limit.await?;
        if limit.is_some() {
            // Before the second body is built, because a request may be as large as the body limit.
            drop(std::mem::take(&mut body));
            body = models.render(&targets[0], &parts(limit));
            self.hold.may_begin().await;
        }
        let context = TurnContext {
            request_id: self.trace.request_id(),
            traceparent: self.trace.turn_context(),
            only_free_retries: self.budget.is_metered(),
        };
        let publisher = &mut self.publisher;
        let answer = if targets.len() == 1 {
            // The answer may take minutes, in which the run needs only one copy of its input.
            drop(messages);
            let started = models.start_turn(&targets, move |_| body.clone(), context);
            until_started(publisher, started).await?
        } else {
            drop(body);
            let parts = parts(limit);
            let started = models.start_turn(&targets, |it| models.render(it, &parts), context);
            until_started(publisher, started).await?
        };
        if !answer.fallbacks.is_empty() {
            let route = route_of(&answer);
            let recorded = self.ledger.route(step, &route).await;
            recorded.map_err(|error| TurnFailure::Halt(error.into()))?;
        }
        self.model.answers_at(answer.target);
        let turn = self.turn.open.insert(OpenTurn {
            step,
            wanted,
            stream: answer.stream,
            client_calls: ClientCalls::new(&spec.model),
            behind: self.publisher.last_pushed(),
            asked_at: started,
            first_token: None,
            shown: false,
        });
        while !self.publisher.is_at_limit() {
            tokio::select! {
                biased;
                stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                () = self.inputs.changed() => {
                    let shown = self.inputs.show_accepted(step, &self.ledger, &mut self.publisher);
                    shown.await.map_err(|error| TurnFailure::Halt(error.into()))?;
                }
                deltas = turn.stream.next_batch(), if !self.publisher.is_full() => {
                    let Some(deltas) = deltas? else {
                        turn.stream.check()?;
                        return self.whole_turn();
                    };
                    if turn.first_token.is_none() {
                        let after = self.runner.clock.monotonic() - started;
                        turn.first_token = Some(after);
                        if wanted == Wanted::Answer {
                            self.tally.first_token(after);
                        }
                        let span = self.trace.sampled_turn();
                        metrics::first_token(&settings.names, &spec.model, span, after);
                    }
                    for delta in deltas {
                        turn.show(delta, &self.toolbox, &mut self.publisher);
                    }
                    self.publisher.kick();
                }
            }
        }
        tracing::warn!("the run has as many events as one may have: its turn ends here");
        let cut = self
            .interrupt_turn()
            .ok_or(ModelError::Cut { source: None })?;
        Ok(TurnEnd::at_length(cut))
    }

    /// Returns the turn after the end of its stream.
    fn whole_turn(&mut self) -> Result<TurnEnd, TurnFailure> {
        // Always present while its stream is read.
        let mut whole = self
            .turn
            .open
            .take()
            .ok_or(ModelError::Cut { source: None })?;
        let times = whole.times(self.runner.clock.monotonic());
        for details in whole.stream.usage_details() {
            whole.show(details, &self.toolbox, &mut self.publisher);
        }
        let written = whole.stream.bytes();
        let answer_fields = whole.client_calls.fields();
        let turn = whole.stream.finish()?;
        let usage = if turn.usage_told {
            turn.usage
        } else {
            self.budget.estimate(&self.conversation, written)
        };
        let (usage, cached_tokens) = self.turn.with_broken_tries(usage, turn.cached_tokens);
        let record = TurnRecord {
            step: whole.step,
            wanted: whole.wanted,
            message: turn.message,
            answer_fields,
            usage,
            cached_tokens,
            model: turn.model,
            times,
            counted: false,
        };
        let charge = self.model.charge(&record).charge;
        let took = times.took.unwrap_or_default();
        let span = self.trace.sampled_turn();
        metrics::model_turn(&self.settings.names, &self.spec.model, span, &charge, took);
        let calls = turn
            .tool_calls
            .into_iter()
            .map(|call| self.toolbox.classify(call.id, call.name, call.arguments));
        Ok(TurnEnd {
            record,
            finish_reason: self.budget.end_of_turn(turn.finish_reason),
            calls: calls.collect(),
        })
    }
}

/// Waits for the beginning of the answer, and stores pending events meanwhile.
async fn until_started<L: EventLogs>(
    publisher: &mut EventPublisher<L>,
    started: impl Future<Output = Result<StartedTurn, ModelError>>,
) -> Result<StartedTurn, TurnFailure> {
    let mut started = pin!(started);
    let mut patience = pin!(tokio::time::sleep(FIRST_TEXT));
    let mut patient = true;
    loop {
        tokio::select! {
            biased;
            stored = publisher.advance(), if publisher.is_sending() => stored?,
            started = &mut started => return Ok(started?),
            () = &mut patience, if patient => {
                patient = false;
                publisher.kick();
            }
        }
    }
}

/// Returns the way of a turn, for its record.
fn route_of(answer: &StartedTurn) -> TurnRoute {
    let left = answer.fallbacks.iter().map(|left| LeftUpstream {
        upstream: left.upstream.to_string(),
        model: left.model.clone(),
        reason: left.reason.to_owned(),
    });
    TurnRoute {
        upstream: answer.target.upstream.to_string(),
        model: answer.target.model.clone(),
        left: left.collect(),
    }
}

/// Returns the bytes by which the request of another target may be longer than that of the first:
/// another name of the model, and fields that the first one lacks.
fn room_for_others(targets: &[Target]) -> usize {
    let names = targets.iter().skip(1).map(|target| target.model.len());
    names.max().map_or(0, |longest| longest + FIELDS_OF_OTHERS)
}

/// Bytes of `stream_options`, `parallel_tool_calls` and the longer name of the answer's limit.
const FIELDS_OF_OTHERS: usize = 128;

fn failed(error: &ModelError) -> Outcome {
    Outcome::Failed(RunError {
        code: error.code().to_owned(),
        message: error.to_string(),
        upstream: error.upstream().map(Box::new),
    })
}
