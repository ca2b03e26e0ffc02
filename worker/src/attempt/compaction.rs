//! A summary in place of the conversation: asked of the model between two turns, and recorded as a step.
//!
//! It is a turn that shows nothing. A worker that is lost meanwhile leaves no trace of it but its cost at the
//! upstream, and the next attempt asks again. Once it is recorded, every attempt goes on from the same summary.

use baton_metering::ANSWER_LIMITS;
use baton_protocol::compaction::summary_text;
use baton_protocol::event::ContextCompacted;
use baton_protocol::{EventData, FinishReason, Outcome, RawFields, RunError, RunSpec};
use baton_store::CompactionCommit;

use super::turn::TurnEnd;
use super::unrecorded_turn::{TurnRecord, UnrecordedTurn};
use super::{Attempt, Halt, Worked};
use crate::metrics;
use crate::world::World;

/// Fields that shape an answer for its reader, who does not read a summary.
const OF_ANSWERS: [&str; 9] = [
    "response_format",
    "verbosity",
    "stop",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "modalities",
    "audio",
    "prediction",
];

/// Returns the request for a summary: the model's, without the fields of answers and without tools.
pub(super) fn summary_request(spec: &RunSpec) -> RunSpec {
    let is_of_answers = |name: &str| OF_ANSWERS.contains(&name) || ANSWER_LIMITS.contains(&name);
    let fields = spec.params.fields().into_iter();
    let fields = fields.filter(|(name, _)| !is_of_answers(name));
    RunSpec {
        v: spec.v,
        agent: spec.agent.clone(),
        model: spec.model.clone(),
        fallbacks: spec.fallbacks.clone(),
        instructions: None,
        // Rendered with the conversation.
        messages: Box::default(),
        tools: None,
        server_tools: Vec::new(),
        calls: Vec::new(),
        params: RawFields::from_fields(fields),
        shown_for_good: false,
        response: None,
        compaction: None,
        request_id: None,
        limits: spec.limits,
    }
}

impl<W: World> Attempt<'_, W> {
    /// Records a summary; the next turn begins with it. Ends the run if the model wrote none.
    pub(super) async fn record_summary(&mut self, turn: TurnEnd) -> Result<Option<Worked>, Halt> {
        let TurnEnd {
            record,
            finish_reason,
            ..
        } = turn;
        let is_whole = finish_reason == FinishReason::Stop;
        if !is_whole || summary_text(&record.message).trim().is_empty() {
            return self.end_without_summary(record, finish_reason).await;
        }
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
        self.conversation.machine.compaction_finished(record.usage);
        self.publisher.settle().await?;
        let (step, last_event_id) = (record.step, self.publisher.next_id());
        let commit = CompactionCommit {
            step,
            summary: record.message.get(),
            charged_model: charged.model.as_deref(),
            usage: record.usage,
            charge: charged.charge,
            times: record.times,
            usage_total: self.conversation.usage(),
            last_event_id,
        };
        let sent = self.runner.clock.monotonic();
        let span = self.trace.commit(step);
        self.ledger.compaction(&commit).await?;
        drop(span);
        self.turn = UnrecordedTurn::default();
        self.budget.turn_recorded(&charged.charge);
        self.hold.confirmed(sent);
        self.publisher.recorded(last_event_id);
        self.conversation.compact(&record.message);
        let usage = record.usage;
        let shown = EventData::ContextCompacted(ContextCompacted { usage });
        self.publisher.push(step, shown);
        metrics::compaction("made");
        tracing::info!(
            step,
            input_tokens = usage.prompt_tokens,
            output_tokens = usage.completion_tokens,
            "the conversation was compacted"
        );
        Ok(None)
    }

    /// Ends the run without a summary, and records the tokens that the model used.
    async fn end_without_summary(
        &mut self,
        record: TurnRecord,
        reason: FinishReason,
    ) -> Result<Option<Worked>, Halt> {
        metrics::compaction("failed");
        tracing::warn!(code = reason.as_str(), "the model wrote no whole summary");
        let outcome = match reason {
            FinishReason::Budget | FinishReason::MaxTokens | FinishReason::MaxCost => {
                Outcome::Completed(reason)
            }
            _ => Outcome::Failed(RunError {
                code: "no_summary".to_owned(),
                message: format!(
                    "the conversation had to be compacted, and the model wrote no whole summary (`{}`): \
                     raise `compact_threshold`, or name another model",
                    reason.as_str()
                ),
                upstream: None,
            }),
        };
        self.turn.record = Some(record.clone());
        self.finish(outcome, None, Some(record)).await?;
        Ok(Some(Worked::Ended))
    }
}
