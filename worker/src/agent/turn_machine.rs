//! Decides the next step of a run.
//!
//! A run alternates model turns and tool calls until the model answers, a limit is reached, or the
//! model calls a tool that the client must execute. The machine takes events in the order in which
//! they were recorded, and returns the next action. The same events lead to the same state after a
//! crash, and this is how a run is resumed.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_protocol::{
    CallPause, Decision, Effect, EventId, FinishReason, OnLimit, Outcome, RunLimits, Usage,
};

/// A call that the model made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id that the model gave it.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments that it is made with.
    pub arguments: String,
    /// Whether a person approved these arguments in place of the model's.
    pub edited: bool,
    /// The party that executes it, and the effect of executing it twice.
    pub side: CallSide,
    /// Whether a person must approve it before it is made.
    pub needs_approval: bool,
    /// The state in which its server has left it; `None` for a call that was not left.
    pub resumes: Option<Arc<Resumption>>,
}

/// The state from which a call goes on that its server has left without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumption {
    /// The state in which the server has left it.
    pub pause: CallPause,
    /// A person's answer to the server's questions; `None` before, or if it asked for nothing.
    pub given: Option<Decision>,
    /// The event that showed the beginning of the call.
    pub started: EventId,
}

impl Resumption {
    /// Returns whether a person must answer first.
    fn waits(&self) -> bool {
        self.pause.asked().is_some() && self.given.is_none()
    }
}

/// The party that executes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSide {
    /// The client, after the run has ended with `tool_calls`.
    Client,
    /// The worker.
    Server(Effect),
}

/// A model turn that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTurn {
    /// The reason why the model stopped.
    pub finish_reason: FinishReason,
    /// The model's calls.
    pub calls: Vec<Call>,
    /// The turn's tokens.
    pub usage: Usage,
}

/// A server-side call with its step in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    /// The call's step.
    pub step: u32,
    /// The call.
    pub call: Call,
    /// The permitted handling of the call.
    pub standing: Standing,
}

/// The permitted handling of a call without a recorded result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may be executed.
    Open,
    /// It has not begun: a person has to approve it first.
    NeedsApproval,
    /// It was started and must not be executed twice: a person has to decide.
    OutcomeUnknown,
    /// Its server has left it with questions: a person has to answer them first.
    NeedsInput,
    /// Its server goes on with it, and was asked for the result just now.
    AtServer,
    /// A person has decided its result: it is not executed.
    Settled {
        /// Whether the call succeeded.
        ok: bool,
        /// The result for the model.
        content: String,
    },
}

impl Standing {
    /// Returns the handling of a call that nobody began.
    const fn of_new(call: &Call) -> Self {
        if call.needs_approval {
            Self::NeedsApproval
        } else {
            Self::Open
        }
    }

    /// Returns the handling of a call that its server has left.
    fn of_paused(call: &Call) -> Self {
        match &call.resumes {
            Some(resumed) if resumed.waits() => Self::NeedsInput,
            _ => Self::Open,
        }
    }

    /// Returns the handling of a call that was started and has no result.
    const fn of_started(call: &Call) -> Self {
        match call.side {
            CallSide::Server(effect) if !effect.may_repeat() => Self::OutcomeUnknown,
            _ => Self::Open,
        }
    }

    fn of_decided(decision: Decision) -> Self {
        match decision {
            Decision::Retry {}
            | Decision::Approve { .. }
            | Decision::Accept { .. }
            | Decision::Decline {}
            | Decision::Cancel {} => Self::Open,
            // These decide about a run at its limit, never about a call.
            Decision::Raise { .. } | Decision::Stop {} => Self::NeedsApproval,
            Decision::Result { result } => Self::Settled {
                ok: true,
                content: result,
            },
            Decision::Fail { reason } => Self::Settled {
                ok: false,
                content: if reason.is_empty() {
                    GIVEN_UP.to_owned()
                } else {
                    reason
                },
            },
            Decision::Reject { reason } => Self::Settled {
                ok: false,
                content: Decision::text_of_rejection(&reason),
            },
        }
    }

    /// Returns whether a person has to decide before the call goes on.
    const fn waits(&self) -> bool {
        match self {
            Self::NeedsApproval | Self::OutcomeUnknown | Self::NeedsInput | Self::AtServer => true,
            Self::Open | Self::Settled { .. } => false,
        }
    }
}

/// The default result of a call that a person decided as failed.
const GIVEN_UP: &str = "the server that made this call was lost before it had the result, and it \
                        was decided not to make it again";

/// The result of a call beyond the run's limit of calls.
const NO_MORE_CALLS: &str =
    "this call was not made: the run has made as many calls as it may. Answer with what you have";

/// The result of a call in an answer that was cut off at a limit.
const CUT_OFF: &str =
    "this call was not made: a limit of this run cut the answer off within it. Make the call again";

/// A ledger entry, as input for resuming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The calls that the run was given.
    GivenCalls(Vec<Call>),
    /// A finished model turn.
    Turn(FinishedTurn),
    /// The result of the call with this step.
    CallFinished(u32),
    /// The server of the call with this step has left it without a result, as the call says.
    CallPaused(u32),
    /// The call with this step was started, and nobody has decided about it since.
    CallStarted(u32),
    /// A person has decided about the call with this step since it was recorded or started.
    CallDecided(u32, Decision),
    /// A message that a client sent to the run while it worked.
    Input,
    /// A summary in place of the conversation, with its tokens.
    Compaction(Usage),
}

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Record the calls that the run was given: they are its first steps.
    BeginGivenCalls,
    /// Call the model; the turn is this step.
    CallModel {
        /// The turn's step.
        step: u32,
    },
    /// Call the model without tools: a limit is reached, and the run ends with this answer.
    HandBack {
        /// The turn's step.
        step: u32,
    },
    /// Execute or settle these calls; each result is one step.
    RunCalls(Vec<RecordedCall>),
    /// Ask a person about these calls: all other work is done.
    Park(Vec<RecordedCall>),
    /// Wait for tasks of servers: all other work is done.
    AwaitTasks,
    /// Ask a person for a higher limit: the last turn requests more calls than are left, and none of them is
    /// made before.
    ParkAtLimit(FinishReason),
    /// The run has ended.
    Finish(Outcome),
}

/// The consequence of a reached limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtLimit {
    /// The model answers once more, without tools.
    HandBack,
    /// The run waits for a higher limit.
    Park,
    /// The run ends.
    Finish(Outcome),
}

/// The consequence of a turn's end for its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnVerdict {
    /// The run continues: record the turn with these server-side calls.
    Continue(Vec<RecordedCall>),
    /// The run ends with this turn: record both together.
    Finish(Outcome),
}

/// The source of a run's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The model.
    Model,
    /// The request, which names them. They are not recorded yet.
    Given,
    /// An earlier run's model, and a person who approved them with the request. They are not recorded yet, and the
    /// model goes on with their results.
    Approved,
    /// The request. They are recorded, and the run ends with the last of their results.
    GivenAndRecorded,
}

/// The state of a run between steps.
#[derive(Debug, Clone)]
pub struct TurnMachine {
    limits: RunLimits,
    origin: Origin,
    turns: u32,
    /// Counted from 1: 0 is the time before the first step.
    next_step: u32,
    usage: Usage,
    /// Server-side calls that were not refused.
    calls: u32,
    /// The limit that is reached, if the model may answer once more.
    hand_back: Option<FinishReason>,
    /// Whether the open calls are more than the run may make.
    exceeds_calls: bool,
    /// Whether a person let the run end at its limit.
    is_stopped: bool,
    open: BTreeMap<u32, RecordedCall>,
    ended: Option<Outcome>,
}

impl TurnMachine {
    /// Creates the state of a run without recorded steps.
    pub const fn new(limits: RunLimits) -> Self {
        Self {
            limits,
            origin: Origin::Model,
            turns: 0,
            next_step: 1,
            usage: Usage {
                prompt_tokens: 0,
                completion_tokens: 0,
                total_tokens: 0,
                estimated: false,
            },
            calls: 0,
            hand_back: None,
            exceeds_calls: false,
            is_stopped: false,
            open: BTreeMap::new(),
            ended: None,
        }
    }

    /// Creates the state of a run that asks no model: its request names the calls.
    pub const fn of_given_calls(limits: RunLimits) -> Self {
        let mut machine = Self::new(limits);
        machine.origin = Origin::Given;
        machine
    }

    /// Creates the state of a run that begins with approved calls of an earlier one.
    pub const fn of_approved_calls(limits: RunLimits) -> Self {
        let mut machine = Self::new(limits);
        machine.origin = Origin::Approved;
        machine
    }

    /// Creates the state of a run with these recorded steps.
    pub fn resume(limits: RunLimits, recorded: impl IntoIterator<Item = Recorded>) -> Self {
        Self::new(limits).after(recorded)
    }

    /// Returns the state after these recorded steps.
    #[must_use]
    pub fn after(self, recorded: impl IntoIterator<Item = Recorded>) -> Self {
        let mut machine = self;
        for entry in recorded {
            match entry {
                Recorded::GivenCalls(calls) => {
                    machine.given_calls_begun(calls);
                }
                Recorded::Turn(turn) => {
                    machine.turn_finished(turn);
                }
                Recorded::CallFinished(step) => machine.call_finished(step),
                Recorded::Input => machine.input_applied(),
                Recorded::Compaction(usage) => machine.compaction_finished(usage),
                Recorded::CallPaused(step) => {
                    if let Some(recorded) = machine.open.get_mut(&step) {
                        recorded.standing = Standing::of_paused(&recorded.call);
                    }
                }
                Recorded::CallStarted(step) => {
                    if let Some(recorded) = machine.open.get_mut(&step) {
                        recorded.standing = Standing::of_started(&recorded.call);
                    }
                }
                Recorded::CallDecided(step, decision) => {
                    if let Some(recorded) = machine.open.get_mut(&step) {
                        recorded.standing = Standing::of_decided(decision);
                    }
                }
            }
        }
        machine
    }

    /// Returns the next action.
    pub fn next(&self) -> Next {
        if let Some(outcome) = &self.ended {
            Next::Finish(outcome.clone())
        } else if self.exceeds_calls {
            let limit = FinishReason::MaxToolCalls;
            if self.is_stopped {
                Next::Finish(Outcome::Completed(limit))
            } else {
                Next::ParkAtLimit(limit)
            }
        } else if self.open.is_empty() {
            match self.origin {
                Origin::Model if self.hand_back.is_some() => Next::HandBack {
                    step: self.next_step,
                },
                Origin::Model => Next::CallModel {
                    step: self.next_step,
                },
                Origin::Given | Origin::Approved => Next::BeginGivenCalls,
                Origin::GivenAndRecorded => Next::Finish(Outcome::Completed(FinishReason::Stop)),
            }
        } else {
            let (waiting, ready): (Vec<_>, Vec<_>) = self
                .open
                .values()
                .cloned()
                .partition(|call| call.standing.waits());
            if ready.is_empty() {
                // Servers go on meanwhile, and are asked once all is decided.
                let for_people = waiting
                    .into_iter()
                    .filter(|call| call.standing != Standing::AtServer);
                let for_people: Vec<_> = for_people.collect();
                if for_people.is_empty() {
                    Next::AwaitTasks
                } else {
                    Next::Park(for_people)
                }
            } else {
                Next::RunCalls(ready)
            }
        }
    }

    /// Returns the tokens of all recorded turns.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns the step of the next turn.
    pub const fn next_step(&self) -> u32 {
        self.next_step
    }

    /// Returns the number of server-side calls that were not refused.
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// Notes that a person let the run end at the limit that it waited at.
    pub const fn stop_at_limit(&mut self) {
        self.is_stopped = true;
    }

    /// Notes that a limit is reached.
    pub fn limit_reached(&mut self, limit: FinishReason) -> AtLimit {
        match self.limits.on_limit {
            OnLimit::HandBack if self.hand_back.is_none() => {
                self.hand_back = Some(limit);
                AtLimit::HandBack
            }
            OnLimit::Park if !self.is_stopped => AtLimit::Park,
            OnLimit::HandBack | OnLimit::Park | OnLimit::Stop => {
                AtLimit::Finish(Outcome::Completed(self.hand_back.unwrap_or(limit)))
            }
        }
    }

    /// Returns whether a turn was cut off at a limit that the run may go on after.
    pub fn is_cut_at_limit(&self, finish_reason: FinishReason) -> bool {
        self.limits.on_limit == OnLimit::Park
            && matches!(
                finish_reason,
                FinishReason::MaxTokens | FinishReason::MaxCost
            )
    }

    /// Returns whether the next turn is the last one, without tools.
    pub const fn is_handing_back(&self) -> bool {
        self.hand_back.is_some()
    }

    /// Takes a model turn that has ended.
    pub fn turn_finished(&mut self, turn: FinishedTurn) -> TurnVerdict {
        self.turns += 1;
        self.next_step += 1;
        self.usage += turn.usage;
        if let Some(outcome) = self.outcome_of(&turn) {
            self.ended = Some(outcome.clone());
            return TurnVerdict::Finish(outcome);
        }
        if self.is_cut_at_limit(turn.finish_reason) {
            let mut calls = self.open_calls(turn.calls);
            self.settle(&mut calls, CUT_OFF);
            return TurnVerdict::Continue(calls);
        }
        let most = self.limits.most.max_tool_calls.unwrap_or(u32::MAX);
        let may = usize::try_from(most.saturating_sub(self.calls)).unwrap_or(usize::MAX);
        if turn.calls.len() > may {
            match self.limit_reached(FinishReason::MaxToolCalls) {
                AtLimit::HandBack => {}
                AtLimit::Park => {
                    self.exceeds_calls = true;
                    return TurnVerdict::Continue(self.open_calls(turn.calls));
                }
                AtLimit::Finish(outcome) => {
                    self.ended = Some(outcome.clone());
                    return TurnVerdict::Finish(outcome);
                }
            }
        }
        let mut calls = self.open_calls(turn.calls);
        self.settle(calls.get_mut(may..).unwrap_or_default(), NO_MORE_CALLS);
        let made = u32::try_from(calls.len().min(may)).unwrap_or(u32::MAX);
        self.calls = self.calls.saturating_add(made);
        TurnVerdict::Continue(calls)
    }

    /// Settles open calls as not made.
    fn settle(&mut self, calls: &mut [RecordedCall], result: &str) {
        for refused in calls {
            refused.standing = Standing::Settled {
                ok: false,
                content: result.to_owned(),
            };
            self.open.insert(refused.step, refused.clone());
        }
    }

    /// Gives calls the next steps.
    fn open_calls(&mut self, calls: Vec<Call>) -> Vec<RecordedCall> {
        let mut recorded = Vec::with_capacity(calls.len());
        for call in calls {
            let call = RecordedCall {
                step: self.next_step,
                standing: Standing::of_new(&call),
                call,
            };
            self.next_step += 1;
            self.open.insert(call.step, call.clone());
            recorded.push(call);
        }
        recorded
    }

    /// Takes the calls that the run was given. Returns them with their steps, to be recorded.
    pub fn given_calls_begun(&mut self, calls: Vec<Call>) -> Vec<RecordedCall> {
        self.origin = match self.origin {
            Origin::Approved | Origin::Model => Origin::Model,
            Origin::Given | Origin::GivenAndRecorded => Origin::GivenAndRecorded,
        };
        self.open_calls(calls)
    }

    /// Takes the recorded state in which a server has left its call.
    pub fn call_paused(&mut self, step: u32, resumes: Resumption) {
        if let Some(recorded) = self.open.get_mut(&step) {
            let is_task = resumes.pause.task().is_some();
            recorded.call.resumes = Some(Arc::new(resumes));
            recorded.standing = match Standing::of_paused(&recorded.call) {
                Standing::Open if is_task => Standing::AtServer,
                standing => standing,
            };
        }
    }

    /// Takes a call's recorded result.
    pub fn call_finished(&mut self, step: u32) {
        self.open.remove(&step);
    }

    /// Takes a recorded message of a client, which the next turn answers.
    pub fn input_applied(&mut self) {
        self.next_step += 1;
        self.ended = None;
    }

    /// Takes a summary. It is no turn of the run, but its tokens count.
    pub fn compaction_finished(&mut self, usage: Usage) {
        self.next_step += 1;
        self.usage += usage;
    }

    /// Returns whether a model turn follows the result of the call with this step.
    pub fn is_last_call(&self, step: u32) -> bool {
        matches!(self.origin, Origin::Model)
            && self.open.len() == 1
            && self.open.contains_key(&step)
    }

    /// Returns whether the run has ended with an answer, and may take another turn if a message waits.
    pub fn may_go_on(&self) -> bool {
        self.ended == Some(Outcome::Completed(FinishReason::Stop)) && self.turn_limit().is_none()
    }

    fn outcome_of(&self, turn: &FinishedTurn) -> Option<Outcome> {
        // It was asked without tools, so it has no calls.
        if let Some(limit) = self.hand_back {
            return Some(Outcome::Completed(limit));
        }
        let from_client = turn.calls.iter().any(|call| call.side == CallSide::Client);
        let goes_on = self.is_cut_at_limit(turn.finish_reason) && !from_client;
        if goes_on && self.turn_limit().is_none() {
            return None;
        }
        // The arguments of a truncated call are not what the model meant, so nothing is executed.
        if matches!(
            turn.finish_reason,
            FinishReason::Length
                | FinishReason::ContentFilter
                | FinishReason::Budget
                | FinishReason::MaxTokens
                | FinishReason::MaxCost
                | FinishReason::MaxWallTime
        ) || turn.calls.is_empty()
        {
            // A turn that claims tool calls but has none is an answer.
            let reason = match turn.finish_reason {
                FinishReason::ToolCalls => FinishReason::Stop,
                other => other,
            };
            return Some(Outcome::Completed(reason));
        }
        // The client needs the server's results to continue, and the server needs the client's. So
        // one call of a client's tool ends the run, and no server-side tool is executed.
        if from_client {
            return Some(Outcome::Completed(FinishReason::ToolCalls));
        }
        // Without a turn left to read them, the results would only be side effects.
        self.turn_limit().map(Outcome::Completed)
    }

    /// Returns the limit that leaves the run no other turn.
    fn turn_limit(&self) -> Option<FinishReason> {
        if self.turns >= self.limits.max_turns {
            return Some(FinishReason::MaxTurns);
        }
        self.limits
            .max_total_tokens
            .is_some_and(|most| self.usage.total_tokens >= most)
            .then_some(FinishReason::Length)
    }
}

#[cfg(test)]
mod tests;
