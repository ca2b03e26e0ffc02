//! A model with random answers.

use std::time::Duration;

use baton_protocol::{Effect, FinishReason, Usage};
use baton_worker::agent::{Call, CallSide, FinishedTurn};

use crate::world::Sim;

/// A planned turn: its pieces of text, each after a pause, and its end.
pub(super) struct Turn {
    pub(super) pieces: Vec<(Duration, String)>,
    /// The end; absent if the upstream fails.
    pub(super) end: Option<FinishedTurn>,
}

impl Sim {
    pub(super) fn think(&self) -> Turn {
        let pieces = (0..self.between(1, 5)).map(|_| {
            let pause = if self.per_mille(100) {
                self.between(2_000, 15_000)
            } else {
                self.between(10, 2_000)
            };
            let word = format!("{:x} ", self.below(0xffff));
            (Duration::from_millis(pause), word)
        });
        let pieces = pieces.collect();
        let calls = match self.below(10) {
            0..=3 => 0,
            4..=6 => 1,
            7 | 8 => 2,
            _ => 3,
        };
        let calls: Vec<Call> = (0..calls).map(|_| self.make_up_call()).collect();
        let finish_reason = match (calls.is_empty(), self.below(20)) {
            (_, 0) => FinishReason::Length,
            (true, _) => FinishReason::Stop,
            (false, _) => FinishReason::ToolCalls,
        };
        let completion_tokens = self.between(1, 50);
        let usage = Usage {
            prompt_tokens: 10,
            completion_tokens,
            total_tokens: 10 + completion_tokens,
            estimated: false,
        };
        Turn {
            pieces,
            end: (!self.per_mille(20)).then_some(FinishedTurn {
                finish_reason,
                calls,
                usage,
            }),
        }
    }

    fn make_up_call(&self) -> Call {
        let (name, side) = match self.below(20) {
            0 => ("ask", CallSide::Client),
            1..=5 => ("compute", CallSide::Server(Effect::Pure)),
            6..=9 => ("put", CallSide::Server(Effect::Idempotent)),
            _ => ("pay", CallSide::Server(Effect::AtMostOnce)),
        };
        Call {
            id: format!("call_{:x}", self.below(u64::from(u32::MAX))),
            name: name.into(),
            arguments: "{}".into(),
            side,
        }
    }
}
