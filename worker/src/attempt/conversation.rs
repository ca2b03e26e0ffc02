//! A run's conversation, rebuilt from the ledger: the recorded messages and the state after them.

use std::sync::Arc;

use baton_protocol::compaction::{SUMMARY_PROMPT, compacted_input};
use baton_protocol::{EventId, FinishReason, RunSpec, Usage};
use baton_store::{CallState, StepData, StepRecord};
use serde_json::value::RawValue;

use crate::agent::turn_machine::{Next, Recorded, Resumption};
use crate::agent::{Call, CallSide, FinishedTurn, Transcript, TurnMachine};

/// Bytes of text in about one token, over common languages and models.
const BYTES_PER_TOKEN: usize = 4;

/// The last message for a model that hands back.
const HAND_BACK: &str = "The limit of this run is reached, and no tool can be called any longer. \
                         Answer now with what you have.";

/// A run's messages, and the machine that decides from them.
pub(super) struct Conversation {
    /// The request, with the messages before the run.
    spec: Arc<RunSpec>,
    /// The state of the run.
    pub(super) machine: TurnMachine,
    /// The input after the newest compaction; `None` before the first.
    compacted: Option<Box<RawValue>>,
    /// The messages that the run added since then.
    transcript: Transcript,
    /// Whether the run has added any message.
    has_added: bool,
    /// The number of clients' messages at its end, which no turn has answered.
    unanswered: usize,
    /// The tokens of the last turn, read and written: about those that the next one reads. 0 after a
    /// compaction.
    context_tokens: u64,
}

impl Conversation {
    /// Rebuilds the conversation of the recorded steps. `needs_approval` says of a tool and the arguments of
    /// a call whether a person must approve it.
    pub(super) fn rebuild(
        spec: Arc<RunSpec>,
        steps: Vec<StepRecord>,
        needs_approval: impl Fn(&str, &str) -> bool,
    ) -> Self {
        let is_approved = spec.approved_calls().next().is_some();
        let machine = if is_approved {
            TurnMachine::of_approved_calls(spec.limits)
        } else if spec.calls.is_empty() {
            TurnMachine::new(spec.limits)
        } else {
            TurnMachine::of_given_calls(spec.limits)
        };
        let under_rule = |call: Call| Call {
            needs_approval: needs_approval(&call.name, &call.arguments),
            ..call
        };
        let mut entries = Vec::with_capacity(steps.len());
        // Calls before any turn are given ones.
        let given = steps.iter().map_while(server_call);
        // The request came with the approval.
        let given = given.map(|call| if is_approved { call } else { under_rule(call) });
        let given: Vec<_> = given.collect();
        if !given.is_empty() {
            entries.push(Recorded::GivenCalls(given));
        }
        for (at, step) in steps.iter().enumerate() {
            if let StepData::Call {
                paused: Some(_), ..
            } = &step.data
            {
                entries.push(Recorded::CallPaused(step.step));
            }
            match &step.data {
            StepData::Turn {
                finish_reason,
                usage,
            } => {
                let calls = steps[at + 1..].iter().map_while(server_call);
                let calls = calls.map(under_rule).collect();
                entries.push(Recorded::Turn(FinishedTurn {
                    finish_reason: *finish_reason,
                    calls,
                    usage: *usage,
                }));
            }
            StepData::Call {
                state: CallState::Finished { .. },
                ..
            } => {
                entries.push(Recorded::CallFinished(step.step));
            }
            StepData::Call {
                state:
                    CallState::Pending {
                        decision: Some(decision),
                    }
                    | CallState::Started {
                        decision: Some(decision),
                    },
                ..
            } => {
                entries.push(Recorded::CallDecided(step.step, decision.clone()));
            }
            StepData::Call {
                state: CallState::Started { decision: None },
                ..
            } => {
                entries.push(Recorded::CallStarted(step.step));
            }
            StepData::Call {
                state: CallState::Pending { decision: None },
                ..
            }
            // Recorded with the end of its run, so it never matters for a resumed one.
            | StepData::CutTurn { .. } => {}
            StepData::Input { .. } => entries.push(Recorded::Input),
            StepData::Compaction { usage } => entries.push(Recorded::Compaction(*usage)),
        }
        }
        let context_tokens = spec.compaction.map_or(0, |rule| rule.earlier_tokens);
        let mut conversation = Self {
            spec,
            machine: machine.after(entries),
            compacted: None,
            transcript: Transcript::default(),
            has_added: false,
            unanswered: 0,
            context_tokens,
        };
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let Some(message) = step.message else {
                continue;
            };
            let calls = steps.peek().and_then(server_call).is_some();
            match step.data {
                StepData::Compaction { .. } => conversation.compact(&message),
                StepData::Turn {
                    usage,
                    finish_reason,
                } => {
                    conversation.put_turn(step.step, message, usage);
                    conversation.turn_ended(step.step, finish_reason, calls);
                }
                StepData::Call { .. } | StepData::CutTurn { .. } => {
                    conversation.put(step.step, message);
                }
                StepData::Input { .. } => conversation.put_unanswered(step.step, message),
            }
        }
        conversation
    }

    fn put(&mut self, step: u32, message: Box<RawValue>) {
        self.transcript.put(step, message);
        self.has_added = true;
        self.unanswered = 0;
    }

    fn put_unanswered(&mut self, step: u32, message: Box<RawValue>) {
        let before = self.unanswered;
        self.put(step, message);
        self.unanswered = before + 1;
    }

    /// Returns the next action.
    pub(super) fn next(&self) -> Next {
        self.machine.next()
    }

    /// Returns the step of the next turn.
    pub(super) const fn next_step(&self) -> u32 {
        self.machine.next_step()
    }

    /// Returns the tokens of all finished turns.
    pub(super) const fn usage(&self) -> Usage {
        self.machine.usage()
    }

    /// Returns whether the run has added nothing to its input.
    pub(super) const fn is_empty(&self) -> bool {
        !self.has_added
    }

    /// Returns whether the next turn comes after a summary.
    pub(super) fn must_compact(&self) -> bool {
        let rule = self.spec.compaction;
        rule.is_some_and(|rule| self.context_tokens >= rule.threshold)
    }

    /// Replaces the conversation by a recorded summary.
    pub(super) fn compact(&mut self, summary: &RawValue) {
        let Some(rule) = self.spec.compaction else {
            tracing::error!("a run without a rule for compactions has one: its conversation stays");
            return;
        };
        match compacted_input(&self.spec.messages, &rule, summary) {
            Ok(input) => {
                self.compacted = Some(input);
                self.transcript.keep_last(self.unanswered);
            }
            // The input was checked to be an array when the run was accepted.
            Err(error) => tracing::error!(%error, "the conversation cannot be compacted"),
        }
        self.context_tokens = 0;
    }

    /// Adds a recorded turn's message.
    pub(super) fn put_turn(&mut self, step: u32, message: Box<RawValue>, usage: Usage) {
        self.put(step, message);
        let counted = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        self.context_tokens = counted.max(usage.total_tokens);
    }

    /// Notes the end of a recorded turn, with or without calls. The model is asked to continue an answer
    /// that a limit cut off.
    pub(super) fn turn_ended(&mut self, step: u32, reason: FinishReason, has_calls: bool) {
        if self.machine.is_cut_at_limit(reason) && !has_calls {
            self.transcript.ask_to_go_on(step);
        }
    }

    /// Adds a recorded call's result.
    pub(super) fn put_result(&mut self, step: u32, message: Box<RawValue>) {
        self.put(step, message);
        self.machine.call_finished(step);
    }

    /// Returns the step of the next turn if this call is the last open one; `None` while others are open.
    pub(super) fn step_after_call(&self, step: u32) -> Option<u32> {
        let machine = &self.machine;
        machine.is_last_call(step).then(|| machine.next_step())
    }

    /// Adds a recorded message of a client.
    pub(super) fn put_input(&mut self, step: u32, message: Box<RawValue>) {
        self.put_unanswered(step, message);
        self.machine.input_applied();
    }

    /// Returns the messages for the model.
    pub(super) fn render(&self) -> Box<RawValue> {
        let last = self.machine.is_handing_back().then_some(HAND_BACK);
        self.render_with(last)
    }

    /// Returns the messages that ask the model for a summary.
    pub(super) fn render_for_summary(&self) -> Box<RawValue> {
        self.render_with(Some(SUMMARY_PROMPT))
    }

    fn render_with(&self, last: Option<&str>) -> Box<RawValue> {
        let instructions = self.spec.instructions.as_deref();
        let input = self.compacted.as_deref().unwrap_or(&self.spec.messages);
        self.transcript.render(instructions, input, last)
    }

    /// Estimates the tokens of a turn that wrote `written` bytes.
    pub(super) fn guess(&self, written: usize) -> Usage {
        guess(text_bytes(self.render().get()), written)
    }
}

/// Returns the server-side call of a step, before the rule of approvals. A turn's calls are the steps
/// after it, up to the next turn.
fn server_call(step: &StepRecord) -> Option<Call> {
    match &step.data {
        StepData::Call {
            call_id,
            name,
            arguments,
            edited_arguments,
            effect,
            paused,
            ..
        } => Some(Call {
            id: call_id.clone(),
            name: name.clone(),
            arguments: edited_arguments.as_ref().unwrap_or(arguments).clone(),
            edited: edited_arguments.is_some(),
            side: CallSide::Server(*effect),
            needs_approval: false,
            resumes: paused.as_ref().map(|paused| {
                Arc::new(Resumption {
                    pause: paused.pause.clone(),
                    given: paused.given.clone(),
                    started: step.started_event_id.unwrap_or(EventId::ORIGIN),
                })
            }),
        }),
        StepData::Turn { .. }
        | StepData::CutTurn { .. }
        | StepData::Input { .. }
        | StepData::Compaction { .. } => None,
    }
}

/// Estimates the tokens of `read` and `written` bytes.
fn guess(read: usize, written: usize) -> Usage {
    let tokens = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN) as u64;
    let (prompt_tokens, completion_tokens) = (tokens(read), tokens(written));
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        estimated: true,
    }
}

/// Returns the length of messages without inlined data: a model does not read a picture as its
/// base64.
fn text_bytes(messages: &str) -> usize {
    const INLINED: &str = "\"data:";

    let mut bytes = messages.len();
    let mut rest = messages;
    while let Some(at) = rest.find(INLINED) {
        rest = &rest[at + 1..];
        let end = rest.find('"').unwrap_or(rest.len());
        bytes -= end;
        rest = &rest[end..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_counts_text_and_says_that_it_is_one() {
        let usage = guess(text_bytes("12345678"), 5);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (2, 2));
        assert_eq!(usage.total_tokens, 4);
        assert!(usage.estimated);
    }

    #[test]
    fn a_picture_is_no_text() {
        let picture = format!(
            r#"[{{"url":"data:image/png;base64,{}"}},"x"]"#,
            "A".repeat(999)
        );
        assert_eq!(text_bytes(&picture), r#"[{"url":""},"x"]"#.len());
        assert_eq!(text_bytes(r#""data:"#), 1);
        assert_eq!(text_bytes("database"), 8);
    }
}
