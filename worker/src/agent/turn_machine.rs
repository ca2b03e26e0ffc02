//! Which step comes next in a run.
//!
//! A run alternates model turns and tool calls until the model answers, a limit is reached, or the
//! model calls a tool that the client is to execute. The machine is fed with what happened, in the
//! order in which it was recorded, and says what to do; the same feed after a crash leads to the
//! same place, which is how a run is resumed.

use std::collections::BTreeMap;

use baton_protocol::{Decision, Effect, FinishReason, Outcome, RunLimits, Usage};

/// A call that the model made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id that the model gave it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, as the model wrote them.
    pub arguments: String,
    /// Who executes it, and what executing it twice would mean.
    pub side: CallSide,
}

/// Who executes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSide {
    /// The client does, after the run has ended with `tool_calls`.
    Client,
    /// The worker does.
    Server(Effect),
}

/// A model turn that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTurn {
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// What it calls.
    pub calls: Vec<Call>,
    /// Its tokens.
    pub usage: Usage,
}

/// A call of the server's with its place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// Its step.
    pub step: u32,
    /// The call.
    pub call: Call,
    /// What may be done with it.
    pub standing: Standing,
}

/// What may be done with a call that has no recorded result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may be executed.
    Open,
    /// It was begun and must not be executed twice: a person is to decide.
    OutcomeUnknown,
    /// A person has said how it ended: nothing is executed.
    Settled {
        /// Whether it did what it was asked.
        ok: bool,
        /// What the model is told.
        content: String,
    },
}

impl Standing {
    fn of_started(call: &Call, decision: Option<Decision>) -> Self {
        match decision {
            Some(Decision::Retry {}) => Self::Open,
            Some(Decision::Result { result }) => Self::Settled {
                ok: true,
                content: result,
            },
            Some(Decision::Fail { reason }) => Self::Settled {
                ok: false,
                content: if reason.is_empty() {
                    GIVEN_UP.to_owned()
                } else {
                    reason
                },
            },
            None => match call.side {
                CallSide::Server(effect) if !effect.may_repeat() => Self::OutcomeUnknown,
                _ => Self::Open,
            },
        }
    }
}

/// What the model is told of a call that was given up without a word.
const GIVEN_UP: &str = "the server that made this call was lost before it had the result, and it \
                        was decided not to make it again";

/// One entry of the ledger, for resuming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A model turn, finished.
    Turn(FinishedTurn),
    /// The result of the call with this step.
    CallFinished(u32),
    /// An execution of the call with this step had begun, and a person may have decided since what
    /// is to become of it.
    CallStarted(u32, Option<Decision>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask the model; the turn is this step.
    CallModel {
        /// The turn's step.
        step: u32,
    },
    /// Execute or settle these calls; each result is one step.
    RunCalls(Vec<RecordedCall>),
    /// Ask a person about these calls; nothing else is left to do until there is an answer.
    Park(Vec<RecordedCall>),
    /// The run has ended.
    Finish(Outcome),
}

/// What the end of a turn means for its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnVerdict {
    /// The run goes on: record the turn with these calls of the server's.
    Continue(Vec<RecordedCall>),
    /// The run ends with this turn: record both together.
    Finish(Outcome),
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct TurnMachine {
    limits: RunLimits,
    turns: u32,
    /// Counted from 1: 0 is what happens before the first step.
    next_step: u32,
    usage: Usage,
    open: BTreeMap<u32, RecordedCall>,
    ended: Option<Outcome>,
}

impl TurnMachine {
    /// A run of which nothing is recorded.
    pub const fn new(limits: RunLimits) -> Self {
        Self {
            limits,
            turns: 0,
            next_step: 1,
            usage: Usage {
                prompt_tokens: 0,
                completion_tokens: 0,
                total_tokens: 0,
                estimated: false,
            },
            open: BTreeMap::new(),
            ended: None,
        }
    }

    /// A run of which `recorded` is in the ledger.
    pub fn resume(limits: RunLimits, recorded: impl IntoIterator<Item = Recorded>) -> Self {
        let mut machine = Self::new(limits);
        for entry in recorded {
            match entry {
                Recorded::Turn(turn) => {
                    machine.turn_finished(turn);
                }
                Recorded::CallFinished(step) => machine.call_finished(step),
                Recorded::CallStarted(step, decision) => {
                    if let Some(recorded) = machine.open.get_mut(&step) {
                        recorded.standing = Standing::of_started(&recorded.call, decision);
                    }
                }
            }
        }
        machine
    }

    /// What to do now.
    pub fn next(&self) -> Next {
        if let Some(outcome) = &self.ended {
            Next::Finish(outcome.clone())
        } else if self.open.is_empty() {
            Next::CallModel {
                step: self.next_step,
            }
        } else {
            let (unknown, ready): (Vec<_>, Vec<_>) = self
                .open
                .values()
                .cloned()
                .partition(|call| call.standing == Standing::OutcomeUnknown);
            if ready.is_empty() {
                Next::Park(unknown)
            } else {
                Next::RunCalls(ready)
            }
        }
    }

    /// Tokens over all recorded turns.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// The step of the turn that comes next.
    pub const fn next_step(&self) -> u32 {
        self.next_step
    }

    /// A model turn has ended.
    pub fn turn_finished(&mut self, turn: FinishedTurn) -> TurnVerdict {
        self.turns += 1;
        self.next_step += 1;
        self.usage += turn.usage;
        if let Some(outcome) = self.outcome_of(&turn) {
            self.ended = Some(outcome.clone());
            return TurnVerdict::Finish(outcome);
        }
        let mut calls = Vec::with_capacity(turn.calls.len());
        for call in turn.calls {
            let call = RecordedCall {
                step: self.next_step,
                call,
                standing: Standing::Open,
            };
            self.next_step += 1;
            self.open.insert(call.step, call.clone());
            calls.push(call);
        }
        TurnVerdict::Continue(calls)
    }

    /// The result of a call is recorded.
    pub fn call_finished(&mut self, step: u32) {
        self.open.remove(&step);
    }

    fn outcome_of(&self, turn: &FinishedTurn) -> Option<Outcome> {
        // Cut short, a call's arguments are not what the model meant: nothing is executed.
        if matches!(
            turn.finish_reason,
            FinishReason::Length | FinishReason::ContentFilter | FinishReason::Budget
        ) || turn.calls.is_empty()
        {
            // "I call tools" without a call is an answer, whatever the upstream named it.
            let reason = match turn.finish_reason {
                FinishReason::ToolCalls => FinishReason::Stop,
                other => other,
            };
            return Some(Outcome::Completed(reason));
        }
        // The client cannot go on without the server's results, nor the server without the
        // client's: one call of the client's ends the run, and no tool of the server's runs.
        if turn.calls.iter().any(|call| call.side == CallSide::Client) {
            return Some(Outcome::Completed(FinishReason::ToolCalls));
        }
        // Without a turn left to read them, the results would be side effects and nothing else.
        if self.turns >= self.limits.max_turns {
            return Some(Outcome::Completed(FinishReason::MaxTurns));
        }
        if self
            .limits
            .max_total_tokens
            .is_some_and(|most| self.usage.total_tokens >= most)
        {
            return Some(Outcome::Completed(FinishReason::Length));
        }
        None
    }
}

#[cfg(test)]
mod tests;
