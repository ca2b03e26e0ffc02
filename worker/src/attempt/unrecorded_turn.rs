//! Model turns that are not recorded: a cancel or a failing upstream interrupts them, or their
//! commit is interrupted.
//!
//! An answer that broke off, stalled or was malformed is withdrawn if the model may be called
//! again. Otherwise it is recorded with the run's end exactly as far as it was shown, and
//! separately from the run's output. Tokens that the upstream did not report are estimated, and
//! marked as such.

use std::time::{Duration, Instant};

use baton_protocol::{EventId, FinishReason, Usage};
use baton_run_log::{EventLogs, EventPublisher};
use baton_store::{CutTurn, FinalTurn, TurnTimes};
use serde_json::value::RawValue;

use super::answering_model::Charged;
use super::budget::Budget;
use super::client_calls::{ClientCalls, is_answer};
use super::conversation::Conversation;
use super::toolbox::Toolbox;
use crate::model::{Delta, ModelError, TurnStream};

/// The kind of answer that the model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The next part of the conversation, which clients are shown.
    Answer,
    /// A summary of the conversation, which nobody is shown as text.
    Summary,
}

/// A turn with an answer that is being read.
pub(super) struct OpenTurn {
    pub(super) step: u32,
    pub(super) wanted: Wanted,
    pub(super) stream: TurnStream,
    pub(super) client_calls: ClientCalls,
    /// The last event before it.
    pub(super) behind: EventId,
    /// When the model was asked.
    pub(super) asked_at: Instant,
    /// From then to its first output.
    pub(super) first_token: Option<Duration>,
    /// Whether a part of its answer was shown.
    pub(super) shown: bool,
}

impl OpenTurn {
    /// Shows a part of an answer to the client.
    pub(super) fn show(
        &mut self,
        delta: Delta,
        toolbox: &Toolbox,
        publisher: &mut EventPublisher<impl EventLogs>,
    ) {
        if self.wanted == Wanted::Summary {
            return;
        }
        if let Some(data) = self.client_calls.show(delta, toolbox) {
            self.shown |= is_answer(&data);
            publisher.push(self.step, data);
        }
    }

    /// Returns how long it took, up to now.
    pub(super) fn times(&self, now: Instant) -> TurnTimes {
        TurnTimes {
            took: Some(now.saturating_duration_since(self.asked_at)),
            first_token: self.first_token,
        }
    }
}

/// A turn as the ledger records it, complete or interrupted.
#[derive(Clone)]
pub(super) struct TurnRecord {
    pub(super) step: u32,
    pub(super) wanted: Wanted,
    /// The assistant's message.
    pub(super) message: Box<RawValue>,
    /// The passed-on fields around the message.
    pub(super) answer_fields: Option<Box<RawValue>>,
    pub(super) usage: Usage,
    /// The part of the prompt tokens that the upstream reported as cached.
    pub(super) cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub(super) model: Option<String>,
    /// Its times.
    pub(super) times: TurnTimes,
    /// Whether the sum of the turns already contains its tokens.
    pub(super) counted: bool,
}

impl TurnRecord {
    /// Returns the JSON text of the passed-on fields.
    pub(super) fn fields(&self) -> Option<&str> {
        self.answer_fields.as_deref().map(RawValue::get)
    }

    /// Returns the record of a turn that its run ends with.
    pub(super) fn as_last<'a>(
        &'a self,
        charged: &'a Charged,
        finish_reason: FinishReason,
        last_event_id: EventId,
    ) -> FinalTurn<'a> {
        FinalTurn {
            step: self.step,
            message: self.message.get(),
            answer_fields: self.fields(),
            charged_model: charged.model.as_deref(),
            usage: self.usage,
            charge: charged.charge,
            times: self.times,
            finish_reason,
            last_event_id,
        }
    }

    /// Returns the record of a turn that is no answer.
    pub(super) fn as_cut<'a>(
        &'a self,
        charged: &'a Charged,
        last_event_id: EventId,
    ) -> CutTurn<'a> {
        CutTurn {
            step: self.step,
            message: match self.wanted {
                Wanted::Answer => self.message.get(),
                Wanted::Summary => NOTHING_SAID,
            },
            answer_fields: self.fields(),
            charged_model: charged.model.as_deref(),
            usage: self.usage,
            charge: charged.charge,
            times: self.times,
            last_event_id,
        }
    }
}

/// The broken-off tries of the active turn.
pub(super) struct BrokenTries {
    step: u32,
    /// Their number.
    count: u32,
    /// Their usage, added up.
    pub(super) usage: Usage,
    /// The part of their prompt tokens that the upstream reported as cached.
    pub(super) cached_tokens: u64,
    /// The model that answered last.
    model: Option<String>,
    /// The error of the last of them.
    pub(super) error: ModelError,
}

impl BrokenTries {
    /// Returns the record of a turn that has a usage and no text.
    fn silent(&self) -> Option<TurnRecord> {
        let message = RawValue::from_string(NOTHING_SAID.to_owned()).ok()?;
        Some(TurnRecord {
            step: self.step,
            wanted: Wanted::Answer,
            message,
            answer_fields: None,
            usage: self.usage,
            cached_tokens: self.cached_tokens,
            model: self.model.clone(),
            times: TurnTimes::default(),
            counted: false,
        })
    }
}

const NOTHING_SAID: &str = r#"{"role":"assistant","content":""}"#;

/// The active turn, until it is recorded.
#[derive(Default)]
pub(super) struct UnrecordedTurn {
    /// The try with an answer that is being read.
    pub(super) open: Option<OpenTurn>,
    /// The record of a complete or interrupted answer, kept until it is committed.
    pub(super) record: Option<TurnRecord>,
    /// The tries that broke off.
    pub(super) broken: Option<BrokenTries>,
}

impl UnrecordedTurn {
    /// Returns the number of the tries that broke off.
    pub(super) fn tries(&self) -> u32 {
        self.broken.as_ref().map_or(0, |broken| broken.count)
    }

    /// Adds the usage of broken-off tries.
    pub(super) fn with_broken_tries(&self, usage: Usage, cached_tokens: u64) -> (Usage, u64) {
        match &self.broken {
            Some(broken) => (
                usage + broken.usage,
                cached_tokens.saturating_add(broken.cached_tokens),
            ),
            None => (usage, cached_tokens),
        }
    }

    /// Returns the usage of the active try and of those before it.
    pub(super) fn used(&self, budget: &Budget, conversation: &Conversation) -> Usage {
        let before = self.broken.as_ref().map(|broken| broken.usage);
        let used = match &self.open {
            Some(open) => {
                let told = open.stream.usage();
                told.unwrap_or_else(|| budget.estimate(conversation, open.stream.bytes()))
            }
            None => budget.taken_for_turn(),
        };
        before.unwrap_or_default() + used
    }

    /// Adds the active try to those that broke off; `used` is the usage of all of them. Returns the last
    /// event before it if its answer had begun.
    pub(super) fn break_off(
        &mut self,
        step: u32,
        error: ModelError,
        used: Usage,
    ) -> Option<EventId> {
        let (mut cached_tokens, mut model) = (0, None);
        let behind = self.open.take().map(|open| {
            if let (_, Some(partial)) = open.stream.cut() {
                (cached_tokens, model) = (partial.cached_tokens, partial.model);
            }
            open.behind
        });
        let earlier = self.broken.take();
        self.broken = Some(BrokenTries {
            step,
            count: earlier.as_ref().map_or(0, |broken| broken.count) + 1,
            usage: used,
            cached_tokens: earlier.map_or(0, |broken| broken.cached_tokens) + cached_tokens,
            model,
            error,
        });
        behind
    }

    /// Interrupts the turn, if there is one, and closes the upstream's connection at once. Its record is
    /// kept until it is committed, because a cancel may interrupt that commit, too. A turn that was read to
    /// its end is also returned if it is not committed. `estimate` returns the usage for bytes of the answer.
    pub(super) fn interrupt(
        &mut self,
        now: Instant,
        toolbox: &Toolbox,
        publisher: &mut EventPublisher<impl EventLogs>,
        estimate: impl FnOnce(usize) -> Usage,
    ) -> Option<TurnRecord> {
        if let Some(open) = self.open.take() {
            self.record = self.cut_off(open, now, toolbox, publisher, estimate);
        }
        let silent = || self.broken.as_ref().and_then(BrokenTries::silent);
        self.record.clone().or_else(silent)
    }

    fn cut_off(
        &self,
        open: OpenTurn,
        now: Instant,
        toolbox: &Toolbox,
        publisher: &mut EventPublisher<impl EventLogs>,
        estimate: impl FnOnce(usize) -> Usage,
    ) -> Option<TurnRecord> {
        let times = open.times(now);
        let OpenTurn {
            step,
            wanted,
            stream,
            mut client_calls,
            ..
        } = open;
        let (unseen, partial) = stream.cut();
        let partial = partial?;
        for delta in unseen.into_iter().filter(|_| wanted == Wanted::Answer) {
            if let Some(data) = client_calls.show(delta, toolbox) {
                publisher.push(step, data);
            }
        }
        let told = partial.usage;
        let usage = told.unwrap_or_else(|| estimate(partial.bytes));
        let (usage, cached_tokens) = self.with_broken_tries(usage, partial.cached_tokens);
        Some(TurnRecord {
            step,
            wanted,
            message: partial.message,
            answer_fields: client_calls.fields(),
            usage,
            cached_tokens,
            model: partial.model,
            times,
            counted: false,
        })
    }
}
