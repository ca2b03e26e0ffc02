//! The spans of an attempt: the wait before it, itself, its turns, calls and commits. They hold content only if
//! that is switched on.

use std::borrow::Cow;

use baton_nats::JobHeaders;
use baton_protocol::{FinishReason, Outcome, RunSpec, WorkerId};
use baton_store::ClaimedRun;
use baton_traces::{SampledSpan, Span, SpanKind};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::content::Content;
use super::turn::{TurnEnd, TurnFailure};

/// The open spans of an attempt.
pub(super) struct AttemptTrace {
    /// The HTTP request that the run came with.
    request_id: Option<String>,
    /// The context of the run, for what goes out while spans are not sent.
    run: Option<String>,
    attempt: Span,
    /// The turn at work.
    turn: Span,
}

impl AttemptTrace {
    /// Writes the span of the wait, and begins that of the attempt.
    pub(super) fn begin(
        claimed: &ClaimedRun,
        spec: &RunSpec,
        headers: &JobHeaders,
        worker: WorkerId,
        now: DateTime<Utc>,
    ) -> Self {
        // The row's first: a job that is published again has no headers.
        let run = claimed
            .traceparent
            .as_ref()
            .or(headers.traceparent.as_ref());
        let parent = run.map(String::as_str);
        let mut attempt = Span::begin(|| "attempt", SpanKind::Consumer, parent);
        // Two clocks: the wait is over before it began if the database's is ahead. It ends while the attempt is
        // at work, so that it is kept if the attempt fails.
        let queued_at = claimed.queued_at.min(now);
        drop(Span::begin_at(
            || "queue",
            SpanKind::Internal,
            parent,
            Some(queued_at.into()),
        ));
        let fence = claimed.fence;
        attempt.set("gen_ai.operation.name", || "invoke_agent");
        attempt.set("gen_ai.agent.name", || spec.agent.name.clone());
        attempt.set("gen_ai.conversation.id", || {
            let thread = claimed.thread_id.map(|thread| thread.to_string());
            thread.unwrap_or_else(|| fence.run.to_string())
        });
        attempt.set("baton.tenant.id", || fence.tenant.to_string());
        attempt.set("baton.run.id", || fence.run.to_string());
        attempt.set("baton.attempt", || i64::from(fence.attempt));
        attempt.set("baton.worker.id", || worker.to_string());
        Self {
            request_id: headers.request_id.clone(),
            run: run.cloned(),
            attempt,
            turn: Span::default(),
        }
    }

    /// Begins the span of a turn.
    pub(super) fn begin_turn(&mut self, model: &str, step: u32) {
        self.turn = self.child(|| format!("chat {model}"), SpanKind::Client);
        self.turn.set("gen_ai.operation.name", || "chat");
        self.turn.set("gen_ai.provider.name", || "openai");
        self.turn.set("gen_ai.request.model", || model.to_owned());
        self.turn.set("baton.step", || i64::from(step));
    }

    /// Records the messages of the turn's request; with instructions, they are the first one.
    pub(super) fn asked(
        &mut self,
        content: Option<Content<'_>>,
        messages: &RawValue,
        instructed: bool,
    ) {
        if let Some(content) = content
            && self.turn.is_recording()
        {
            let asked = content.asked(messages, instructed);
            self.turn.set("gen_ai.input.messages", || asked.messages);
            if let Some(instructions) = asked.instructions {
                self.turn.set("gen_ai.system_instructions", || instructions);
            }
        }
    }

    /// Returns the id of the HTTP request that the run came with.
    pub(super) fn request_id(&self) -> Option<String> {
        self.request_id.clone()
    }

    /// Returns the span of the attempt, if it is sampled.
    pub(super) fn sampled(&self) -> Option<SampledSpan> {
        self.attempt.sampled()
    }

    /// Returns the span of the turn, if it is sampled.
    pub(super) fn sampled_turn(&self) -> Option<SampledSpan> {
        self.turn.sampled()
    }

    /// Returns the context that goes out with the turn's request.
    pub(super) fn turn_context(&self) -> Option<String> {
        self.turn.traceparent().or_else(|| self.run.clone())
    }

    /// Ends the span of the turn.
    pub(super) fn end_turn(
        &mut self,
        content: Option<Content<'_>>,
        ended: Result<&TurnEnd, &TurnFailure>,
    ) {
        let mut turn = std::mem::take(&mut self.turn);
        match ended {
            Ok(end) => {
                let record = &end.record;
                let usage = record.usage;
                turn.set("gen_ai.usage.input_tokens", || count(usage.prompt_tokens));
                turn.set("gen_ai.usage.output_tokens", || {
                    count(usage.completion_tokens)
                });
                turn.set("gen_ai.usage.cache_read.input_tokens", || {
                    count(record.cached_tokens)
                });
                turn.set("gen_ai.response.finish_reasons", || {
                    finish_reasons(end.finish_reason)
                });
                if let Some(content) = content {
                    turn.set("gen_ai.output.messages", || {
                        content.answered(&record.message, end.finish_reason.as_str())
                    });
                }
                if let Some(model) = &record.model {
                    turn.set("gen_ai.response.model", || model.clone());
                }
                if let Some(after) = record.times.first_token {
                    turn.set("gen_ai.response.time_to_first_chunk", || {
                        after.as_secs_f64()
                    });
                }
            }
            Err(TurnFailure::Model(error)) => turn.fail(error.code()),
            Err(TurnFailure::Ends(_) | TurnFailure::Limit(_)) => turn.fail("not_asked"),
            Err(TurnFailure::Waits(_)) => turn.fail("awaits_budget"),
            Err(TurnFailure::Halt(_)) => turn.fail("attempt_over"),
        }
    }

    /// Begins the span of a tool's call.
    pub(super) fn tool(&self, name: &str, call_id: &str, step: u32) -> Span {
        let mut tool = self.child(|| format!("execute_tool {name}"), SpanKind::Internal);
        tool.set("gen_ai.operation.name", || "execute_tool");
        tool.set("gen_ai.tool.name", || name.to_owned());
        tool.set("gen_ai.tool.call.id", || call_id.to_owned());
        tool.set("gen_ai.tool.type", || "function");
        tool.set("baton.step", || i64::from(step));
        tool
    }

    /// Records the arguments of a call.
    pub(super) fn called(content: Option<Content<'_>>, tool: &mut Span, arguments: &str) {
        if let Some(content) = content {
            tool.set("gen_ai.tool.call.arguments", || content.text(arguments));
        }
    }

    /// Records the result of a call.
    pub(super) fn returned(content: Option<Content<'_>>, tool: &mut Span, result: &str) {
        if let Some(content) = content {
            tool.set("gen_ai.tool.call.result", || content.text(result));
        }
    }

    /// Returns the headers that go out with a tool's request.
    pub(super) fn tool_headers(&self, tool: &Span) -> JobHeaders {
        JobHeaders {
            request_id: self.request_id(),
            traceparent: tool.traceparent().or_else(|| self.run.clone()),
        }
    }

    /// Begins the span of a commit, which ends when it is dropped.
    pub(super) fn commit(&self, step: u32) -> Span {
        let mut commit = self.child(|| "commit", SpanKind::Internal);
        commit.set("baton.step", || i64::from(step));
        commit
    }

    /// Says how the attempt ended the run.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        let status = outcome.status().as_str();
        self.attempt.set("baton.attempt.ending", || status);
        if let Outcome::Failed(error) = outcome {
            self.attempt.fail(&error.code);
        }
    }

    /// Says why the attempt ended and left the run to another.
    pub(super) fn released(&mut self, ending: &'static str) {
        self.attempt.set("baton.attempt.ending", || ending);
    }

    fn child<N: Into<Cow<'static, str>>>(&self, name: impl FnOnce() -> N, kind: SpanKind) -> Span {
        match self.attempt.traceparent() {
            Some(parent) => Span::begin(name, kind, Some(&parent)),
            None => Span::default(),
        }
    }
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

fn finish_reasons(reason: FinishReason) -> baton_traces::Value {
    baton_traces::strings([reason.as_str()])
}
