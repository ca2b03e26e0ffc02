//! A model turn: requested, shown as it arrives, and recorded. Afterwards the run continues, or
//! ends with it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use baton_admission::needs;
use baton_metering::{is_other_model, recorded_name};
use baton_protocol::{
    AuditId, EventData, FinishReason, LeftUpstream, Outcome, RunError, TurnRoute,
};
use baton_routing::Target;
use baton_run_log::{EventLogs, EventPublisher, PublishEventsError};
use baton_store::{
    ActorKind, AuditEntry, AuditResult, FinalTurn, NewCall, TurnCommit, TurnTimes, TurnWish,
};
use serde_json::value::RawValue;

use super::calls::effect_of;
use super::client_calls::is_answer;
use super::inputs::take_inputs;
use super::interrupted_turn::{InterruptedTurn, OpenTurn, UnrecordedTurn};
use super::{Attempt, Halt, Worked};
use crate::agent::FinishedTurn;
use crate::agent::turn_machine::TurnVerdict;
use crate::metrics;
use crate::model::{ModelError, StartedTurn, TurnContext, TurnParts};
use crate::world::{Ledger as _, World};

/// The time that events wait for the model's first text, to be stored with it.
const FIRST_TEXT: Duration = Duration::from_millis(50);

/// A turn that has ended well.
pub(super) struct TurnEnd {
    /// The input for the machine.
    pub(super) finished: FinishedTurn,
    /// The assistant's message, to be recorded and sent to the model again.
    pub(super) message: Box<RawValue>,
    /// The passed-on fields around the message, to be recorded.
    pub(super) answer_fields: Option<Box<RawValue>>,
    /// The part of the prompt tokens that the upstream reported as cached.
    pub(super) cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub(super) model: Option<String>,
    /// Its times.
    pub(super) times: TurnTimes,
}

impl TurnEnd {
    /// Returns the end of a turn that reached the limit of its run's length, as if the upstream had
    /// reported its own limit. Calls in it may be truncated, and are not made.
    fn at_length(cut: InterruptedTurn) -> Self {
        Self {
            finished: FinishedTurn {
                finish_reason: FinishReason::Length,
                calls: Vec::new(),
                usage: cut.usage,
            },
            message: cut.message,
            answer_fields: cut.answer_fields,
            cached_tokens: cut.cached_tokens,
            model: cut.model,
            times: cut.times,
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
    pub(super) async fn take_turn(&mut self, step: u32) -> Result<Option<Worked>, Halt> {
        self.hold.may_begin().await;
        self.trace.begin_turn(&self.spec.model, step);
        let turn = self.model_turn(step).await;
        self.trace.end_turn(turn.as_ref());
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
                let Some(outcome) = self.conversation.machine.limit_reached(limit) else {
                    return Ok(None);
                };
                self.finish(outcome, None, None).await?;
                return Ok(Some(Worked::Ended));
            }
            Err(TurnFailure::Waits(wish)) => return Ok(Some(Worked::AwaitsBudget(wish))),
            Err(TurnFailure::Halt(halt)) => return Err(halt),
        };
        let usage = turn.finished.usage;
        let finish_reason = turn.finished.finish_reason;
        let answered = turn.model.as_deref();
        let charge = self.charge(answered, usage, turn.cached_tokens);
        let charged_model = self.charged_model(answered);
        self.note_model(answered).await;
        self.tally.turn(&charge);
        self.turn.record = Some(InterruptedTurn {
            step,
            message: turn.message.clone(),
            answer_fields: turn.answer_fields.clone(),
            usage,
            cached_tokens: turn.cached_tokens,
            model: turn.model.clone(),
            times: turn.times,
            counted: true,
        });
        let new_calls: Vec<_> = match self.conversation.machine.turn_finished(turn.finished) {
            TurnVerdict::Finish(outcome) => {
                self.publisher.settle().await?;
                let last = FinalTurn {
                    step,
                    message: turn.message.get(),
                    answer_fields: turn.answer_fields.as_deref().map(RawValue::get),
                    charged_model: charged_model.as_deref(),
                    usage,
                    charge,
                    times: turn.times,
                    finish_reason,
                    last_event_id: self.publisher.last_id(),
                };
                let may_go_on = self.conversation.machine.may_go_on();
                let gives_way = may_go_on && !self.publisher.is_at_limit();
                if self.end(outcome, Some(last), None, gives_way).await? {
                    return Ok(Some(Worked::Ended));
                }
                // A message waits: the run takes it with this turn, and another turn answers it.
                Vec::new()
            }
            TurnVerdict::Continue(calls) => {
                self.publisher.settle().await?;
                let new_calls = calls.into_iter().map(|recorded| NewCall {
                    step: recorded.step,
                    effect: effect_of(&recorded),
                    call_id: recorded.call.id,
                    name: recorded.call.name,
                    arguments: recorded.call.arguments,
                });
                new_calls.collect()
            }
        };
        let last_event_id = self.publisher.next_id();
        let commit = TurnCommit {
            step,
            message: turn.message.get(),
            answer_fields: turn.answer_fields.as_deref().map(RawValue::get),
            charged_model: charged_model.as_deref(),
            usage,
            charge,
            times: turn.times,
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
        self.budget.turn_recorded(&charge);
        self.hold.confirmed(sent);
        self.publisher.recorded(last_event_id);
        self.conversation.put_turn(step, turn.message);
        self.publisher.push(step, EventData::Usage(usage));
        take_inputs(inputs, &mut self.conversation, &mut self.publisher);
        Ok(None)
    }

    /// Ends the run with the failure of its turn.
    async fn fail_turn(&mut self, error: &ModelError) -> Result<Worked, Halt> {
        metrics::model_turn_failed(error.code());
        let cut = self.interrupt_turn();
        if cut.is_none() {
            self.lower_turn(Some(error)).await?;
        }
        self.finish(failed(error), None, cut).await?;
        Ok(Worked::Ended)
    }

    fn parts<'p>(
        &'p self,
        messages: &'p RawValue,
        first_turn: bool,
        answer_limit: Option<u64>,
    ) -> TurnParts<'p> {
        TurnParts {
            spec: &self.spec,
            messages,
            tools: self.offered(),
            first_turn,
            answer_limit,
        }
    }

    /// Returns the tools that the next turn is offered: none if it hands back.
    fn offered(&self) -> Option<&RawValue> {
        let offered = self.toolbox.offered();
        offered.filter(|_| !self.conversation.machine.is_handing_back())
    }

    /// Calls the model and shows its answer. Events are stored while the answer is read; if the log
    /// is slow, the upstream is read no further than memory allows.
    pub(super) async fn model_turn(&mut self, step: u32) -> Result<TurnEnd, TurnFailure> {
        let started = self.runner.clock.monotonic();
        let settings = Arc::clone(&self.settings);
        let needs = needs(&self.spec.params, self.offered().is_some());
        let targets = settings.models.targets(&self.spec.model, needs)?;
        let messages = self.conversation.render(&self.spec);
        let first_turn = self.conversation.is_empty();
        let render = |attempt: &Self, answer_limit| {
            let parts = attempt.parts(&messages, first_turn, answer_limit);
            settings.models.render(&targets[0], &parts)
        };
        let mut body = render(self, None);
        let bytes = body.len() + room_for_others(&targets);
        let limit = self.take_for_turn(step, bytes, &messages, &targets);
        let limit = limit.await?;
        if limit.is_some() {
            // Before the second body is built, because a request may be as large as the body limit.
            drop(std::mem::take(&mut body));
            body = render(self, limit);
            self.hold.may_begin().await;
        }
        let context = TurnContext {
            request_id: self.headers.request_id.clone(),
            traceparent: self.trace.turn_context(),
            only_free_retries: self.budget.is_metered(),
        };
        let hands_back = self.conversation.machine.is_handing_back();
        let tools = self.toolbox.offered().filter(|_| !hands_back);
        let (models, publisher) = (&settings.models, &mut self.publisher);
        let answer = if targets.len() == 1 {
            // The answer may take minutes, in which the run needs only one copy of its input.
            drop(messages);
            let started = models.start_turn(&targets, move |_| body.clone(), context);
            until_started(publisher, started).await?
        } else {
            drop(body);
            let parts = TurnParts {
                spec: &self.spec,
                messages: &messages,
                tools,
                first_turn,
                answer_limit: limit,
            };
            let started = models.start_turn(&targets, |it| models.render(it, &parts), context);
            until_started(publisher, started).await?
        };
        if !answer.fallbacks.is_empty() {
            let route = route_of(&answer);
            let recorded = self.ledger.route(step, &route).await;
            recorded.map_err(|error| TurnFailure::Halt(error.into()))?;
        }
        self.target = Some(answer.target);
        let stream = answer.stream;
        let behind = self.publisher.last_pushed();
        let turn = OpenTurn::new(step, stream, behind, started);
        let turn = self.turn.open.insert(turn);
        let mut first = true;
        while !self.publisher.is_at_limit() {
            tokio::select! {
                biased;
                stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                deltas = turn.stream.next_batch(), if !self.publisher.is_full() => {
                    let Some(deltas) = deltas? else {
                        turn.stream.check()?;
                        return self.whole_turn();
                    };
                    if first {
                        first = false;
                        let after = self.runner.clock.monotonic() - started;
                        turn.first_token = Some(after);
                        self.tally.first_token(after);
                        metrics::first_token(&self.settings.names, &self.spec.model, after);
                    }
                    for delta in deltas {
                        let shown = turn.client_calls.show(delta, &self.toolbox, &self.spec.model);
                        if let Some(data) = shown {
                            turn.shown |= is_answer(&data);
                            self.publisher.push(step, data);
                        }
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
        let written = whole.stream.bytes();
        for details in whole.stream.usage_details() {
            let calls = &mut whole.client_calls;
            if let Some(data) = calls.show(details, &self.toolbox, &self.spec.model) {
                self.publisher.push(whole.step, data);
            }
        }
        let answer_fields = whole.client_calls.fields();
        let mut turn = whole.stream.finish()?;
        if !turn.usage_told {
            turn.usage = self.estimate(written);
        }
        (turn.usage, turn.cached_tokens) =
            self.turn.with_broken_tries(turn.usage, turn.cached_tokens);
        let finish_reason = self.budget.end_of_turn(turn.finish_reason);
        let calls = turn
            .tool_calls
            .into_iter()
            .map(|call| self.toolbox.classify(call.id, call.name, call.arguments))
            .collect();
        let charge = self.charge(turn.model.as_deref(), turn.usage, turn.cached_tokens);
        let took = times.took.unwrap_or_default();
        metrics::model_turn(&self.settings.names, &self.spec.model, &charge, took);
        let finished = FinishedTurn {
            finish_reason,
            calls,
            usage: turn.usage,
        };
        Ok(TurnEnd {
            finished,
            message: turn.message,
            answer_fields,
            cached_tokens: turn.cached_tokens,
            model: turn.model,
            times,
        })
    }

    /// Counts an answer of a model other than the requested one. If the run's key has a list of
    /// models or a budget, also records it in the audit log, once per attempt.
    pub(super) async fn note_model(&mut self, answered: Option<&str>) {
        let asked = self.asked_model().to_owned();
        let Some(answered) = answered.filter(|answered| is_other_model(&asked, answered)) else {
            return;
        };
        metrics::other_model(self.settings.prices.of(answered).is_some());
        if !std::mem::take(&mut self.audits_model) {
            return;
        }
        let answered = recorded_name(answered);
        tracing::warn!(asked, answered, "another model answered than was asked");
        let entry = AuditEntry {
            id: AuditId::new(self.runner.clock.now()),
            tenant: Some(self.ledger.fence.tenant),
            actor_kind: ActorKind::ApiKey,
            actor: None,
            action: "run.other_model",
            target: Some(self.ledger.fence.run.to_string()),
            result: AuditResult::Done,
            detail: Some(format!("asked `{asked}`, answered by `{answered}`")),
            ip: None,
            user_agent: None,
            request_id: self.headers.request_id.clone(),
        };
        if let Err(error) = self.runner.store.record_audit(&entry).await {
            tracing::error!(%error, asked, answered, "another model's answer is not in the audit log");
        }
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
