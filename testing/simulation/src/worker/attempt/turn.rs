//! A turn: the model's answer is shown while it comes, then recorded.

use baton_protocol::event::Text;
use baton_protocol::{EventData, Outcome, RunError};
use baton_store::NewCall;
use baton_worker::agent::turn_machine::TurnVerdict;
use baton_worker::agent::{FinishedTurn, Transcript};
use serde_json::value::RawValue;

use super::calls::effect_of;
use super::{Attempt, Halt};
use crate::accusation::Invariant;
use crate::ledger::{FinalEntry, TurnEntry};

impl Attempt<'_> {
    pub(super) async fn take_turn(&mut self, step: u32) -> Result<bool, Halt> {
        self.hold.may_begin().await;
        self.look_at_transcript();
        let Some((finished, message)) = self.model_turn(step).await? else {
            let outcome = Outcome::Failed(RunError {
                code: "upstream_failed".into(),
                message: "the upstream failed".into(),
                upstream: None,
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

    /// Asks the model and shows its answer while it comes; `None` if the upstream fails.
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

    /// Checks that the model is shown exactly the recorded messages.
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
