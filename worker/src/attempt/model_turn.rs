//! One model turn: the request goes out, and what comes back is shown while it comes.

use std::pin::pin;
use std::time::{Duration, Instant};

use baton_protocol::{FinishReason, Outcome};
use baton_store::TurnWish;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::client_calls::is_answer;
use super::cut_turn::{CutOff, OpenTurn};
use super::{Attempt, Halt};
use crate::agent::FinishedTurn;
use crate::metrics;
use crate::model::{ModelError, TurnContext, TurnStream};
use baton_run_log::PublishEventsError;

/// How long events wait for the model's first text, to travel with it.
const FIRST_TEXT: Duration = Duration::from_millis(50);

/// A turn that has ended well.
pub(super) struct TurnEnd {
    /// What the machine decides by.
    pub(super) finished: FinishedTurn,
    /// The assistant's message, to be recorded and shown to the model again.
    pub(super) message: Box<RawValue>,
    /// The passed-on fields around it, to be recorded.
    pub(super) answer_fields: Option<Box<RawValue>>,
    /// Tokens of the prompt that the upstream had read before.
    pub(super) cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub(super) model: Option<String>,
}

impl TurnEnd {
    /// Of a turn that is as long as its run may get: an answer at its limit, as if the upstream had
    /// said so. Calls in it may be cut short, and are not made.
    fn at_length(cut: CutOff) -> Self {
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
        }
    }
}

/// A turn that has not.
pub(super) enum TurnFailure {
    /// The upstream failed: so does the run.
    Model(ModelError),
    /// The model was not asked: the run ends like this.
    Ends(Outcome),
    /// The model was not asked: the run waits until other runs have given back what they do not use.
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

impl Attempt<'_> {
    /// Sends the request, and shows meanwhile what has happened so far.
    async fn start_turn(
        &mut self,
        body: Bytes,
        context: TurnContext,
    ) -> Result<TurnStream, TurnFailure> {
        let mut started = pin!(self.runner.model.start_turn(body, context));
        let mut patience = pin!(tokio::time::sleep(FIRST_TEXT));
        let mut patient = true;
        loop {
            tokio::select! {
                biased;
                stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                stream = &mut started => return Ok(stream?),
                () = &mut patience, if patient => {
                    patient = false;
                    self.publisher.kick();
                }
            }
        }
    }

    /// Asks the model and shows its answer. Events are stored while the answer is read; if the log
    /// is slow, the upstream is read no further than memory allows.
    pub(super) async fn model_turn(&mut self, step: u32) -> Result<TurnEnd, TurnFailure> {
        let started = self.runner.clock.monotonic();
        let messages = self
            .transcript
            .render(self.spec.instructions.as_deref(), &self.spec.messages);
        let first_turn = self.transcript.is_empty();
        let render = |attempt: &Self, answer_limit| {
            let tools = attempt.toolbox.offered();
            let model = &attempt.runner.model;
            model.render(&attempt.spec, &messages, tools, first_turn, answer_limit)
        };
        let mut body = render(self, None);
        if let Some(limit) = self.take_for_turn(step, &body, &messages).await? {
            // Before the second is made: a request may be as large as a body may.
            drop(std::mem::take(&mut body));
            body = render(self, Some(limit));
            self.hold.may_begin().await;
        }
        // The answer may take minutes, in which the run needs its input once.
        drop(messages);
        let context = TurnContext {
            request_id: self.headers.request_id.clone(),
            traceparent: self.headers.traceparent.clone(),
            only_free_retries: self.is_budgeted(),
        };
        let stream = self.start_turn(body, context).await?;
        let behind = self.publisher.last_pushed();
        let turn = self.open.insert(OpenTurn::new(step, stream, behind));
        let mut first = true;
        while !self.publisher.is_at_limit() {
            tokio::select! {
                biased;
                stored = self.publisher.advance(), if self.publisher.is_sending() => stored?,
                deltas = turn.stream.next_batch(), if !self.publisher.is_full() => {
                    let Some(deltas) = deltas? else {
                        turn.stream.check()?;
                        return self.whole_turn(started);
                    };
                    if first {
                        first = false;
                        let after = self.runner.clock.monotonic() - started;
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
        let cut = self.cut_turn().ok_or(ModelError::Cut { source: None })?;
        Ok(TurnEnd::at_length(cut))
    }

    /// The turn whose stream has ended.
    fn whole_turn(&mut self, started: Instant) -> Result<TurnEnd, TurnFailure> {
        // It is there while its stream is read.
        let mut whole = self.open.take().ok_or(ModelError::Cut { source: None })?;
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
        (turn.usage, turn.cached_tokens) = self.with_broken_tries(turn.usage, turn.cached_tokens);
        let finish_reason = self.end_of_turn(turn.finish_reason);
        let calls = turn
            .tool_calls
            .into_iter()
            .map(|call| self.toolbox.classify(call.id, call.name, call.arguments))
            .collect();
        let took = self.runner.clock.monotonic() - started;
        let (asked, answered) = (&self.spec.model, turn.model.as_deref());
        let prices = &self.settings.prices;
        let charge = prices.charge(asked, answered, turn.usage, turn.cached_tokens);
        metrics::model_turn(&self.settings.names, asked, &charge, took);
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
        })
    }
}
