//! What the client is shown of a model's answer.

use baton_protocol::EventData;
use baton_protocol::event::{Text, ToolCallDelta};

use super::toolbox::Toolbox;
use crate::agent::CallSide;
use crate::model::Delta;

/// Which of a turn's calls the client is shown: its own alone, counted from zero.
#[derive(Default)]
pub(super) struct ClientCalls {
    /// By the upstream's index: the client's index, or nothing for a call of the server's.
    seen: Vec<(u32, Option<u32>)>,
    shown: u32,
}

impl ClientCalls {
    pub(super) fn show(&mut self, delta: Delta, toolbox: &Toolbox) -> Option<EventData> {
        match delta {
            Delta::Text(text) => Some(EventData::TextDelta(Text { text })),
            Delta::Reasoning(text) => Some(EventData::ReasoningDelta(Text { text })),
            Delta::Refusal(text) => Some(EventData::RefusalDelta(Text { text })),
            Delta::Field { .. } => None,
            Delta::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                let known = self.seen.iter().find(|(upstream, _)| *upstream == index);
                let shown = if let Some((_, shown)) = known {
                    *shown
                } else {
                    let client = name
                        .as_deref()
                        .is_some_and(|name| toolbox.side(name) == CallSide::Client);
                    let shown = client.then_some(self.shown);
                    self.shown += u32::from(client);
                    self.seen.push((index, shown));
                    shown
                };
                let index = shown?;
                Some(EventData::ToolCallDelta(ToolCallDelta {
                    index,
                    id,
                    name,
                    arguments,
                }))
            }
        }
    }
}
