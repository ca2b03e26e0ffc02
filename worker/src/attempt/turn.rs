//! A turn of the model's: asked for, shown, and recorded; then the run goes on, or ends with it.

use baton_protocol::{EventData, Outcome, RunError};
use baton_store::{FinalTurn, NewCall, TurnCommit};
use serde_json::value::RawValue;

use super::calls::effect_of;
use super::cut_turn::CutOff;
use super::model_turn::TurnFailure;
use super::{Attempt, Halt, Worked, commit};
use crate::agent::turn_machine::TurnVerdict;
use crate::metrics;
use crate::model::ModelError;

impl Attempt<'_> {
    /// Asks the model. Says how the run goes on: `None` if it is not over for this attempt.
    pub(super) async fn take_turn(&mut self, step: u32) -> Result<Option<Worked>, Halt> {
        self.hold.may_begin().await;
        let turn = match self.model_turn(step).await {
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
            // What broken tries have used up is recorded: the run does not go back to the queue with it.
            Err(TurnFailure::Ends(_) | TurnFailure::Waits(_)) if self.broken.is_some() => {
                let Some(broken) = self.broken.as_ref() else {
                    return Ok(None);
                };
                metrics::model_turn_failed(broken.error.code());
                let outcome = failed(&broken.error);
                let cut = self.cut_turn();
                self.finish(outcome, None, cut).await?;
                return Ok(Some(Worked::Ended));
            }
            Err(TurnFailure::Ends(outcome)) => {
                self.finish(outcome, None, None).await?;
                return Ok(Some(Worked::Ended));
            }
            Err(TurnFailure::Waits(wish)) => return Ok(Some(Worked::AwaitsBudget(wish))),
            Err(TurnFailure::Halt(halt)) => return Err(halt),
        };
        let usage = turn.finished.usage;
        let finish_reason = turn.finished.finish_reason;
        let answered = turn.model.as_deref();
        let (prices, asked) = (&self.settings.prices, &self.spec.model);
        let charge = prices.charge(asked, answered, usage, turn.cached_tokens);
        let charged_model = prices.charged_model(asked, answered);
        self.note_model(answered).await;
        self.tally.turn(&charge);
        self.unrecorded = Some(CutOff {
            step,
            message: turn.message.clone(),
            answer_fields: turn.answer_fields.clone(),
            usage,
            cached_tokens: turn.cached_tokens,
            model: turn.model.clone(),
            counted: true,
        });
        match self.machine.turn_finished(turn.finished) {
            TurnVerdict::Finish(outcome) => {
                self.publisher.settle().await?;
                let last = FinalTurn {
                    step,
                    message: turn.message.get(),
                    answer_fields: turn.answer_fields.as_deref().map(RawValue::get),
                    charged_model,
                    usage,
                    charge,
                    finish_reason,
                    last_event_id: self.publisher.last_id(),
                };
                self.finish(outcome, Some(last), None).await?;
                Ok(Some(Worked::Ended))
            }
            TurnVerdict::Continue(calls) => {
                self.publisher.settle().await?;
                let last_event_id = self.publisher.next_id();
                let new_calls: Vec<_> = calls
                    .into_iter()
                    .map(|recorded| NewCall {
                        step: recorded.step,
                        effect: effect_of(&recorded),
                        call_id: recorded.call.id,
                        name: recorded.call.name,
                        arguments: recorded.call.arguments,
                    })
                    .collect();
                let commit = TurnCommit {
                    step,
                    message: turn.message.get(),
                    answer_fields: turn.answer_fields.as_deref().map(RawValue::get),
                    charged_model,
                    usage,
                    charge,
                    usage_total: self.machine.usage(),
                    finish_reason,
                    last_event_id,
                    calls: &new_calls,
                };
                let sent = self.runner.clock.monotonic();
                commit::turn(self.runner, &self.fence, &commit).await?;
                self.unrecorded = None;
                self.broken = None;
                self.turn_recorded();
                self.hold.confirmed(sent);
                self.committed = last_event_id;
                self.transcript.put(step, turn.message);
                self.publisher.push(step, EventData::Usage(usage));
                Ok(None)
            }
        }
    }

    /// Ends the run with the failure of its turn.
    async fn fail_turn(&mut self, error: &ModelError) -> Result<Worked, Halt> {
        metrics::model_turn_failed(error.code());
        let cut = self.cut_turn();
        if cut.is_none() {
            self.lower_turn(Some(error)).await?;
        }
        self.finish(failed(error), None, cut).await?;
        Ok(Worked::Ended)
    }
}

fn failed(error: &ModelError) -> Outcome {
    Outcome::Failed(RunError {
        code: error.code().to_owned(),
        message: error.to_string(),
        upstream: error.upstream().map(Box::new),
    })
}
