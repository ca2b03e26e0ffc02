//! Messages that clients send to the run while it works: a commit takes them, then they are shown.

use baton_protocol::EventData;
use baton_protocol::event::InputApplied;
use baton_run_log::{EventLogs, EventPublisher};
use baton_store::{StepData, StepRecord};

use super::conversation::Conversation;
use crate::metrics;

/// Adds the messages that a commit took to the conversation, and shows them after the event of the
/// commit.
pub(super) fn take_inputs(
    inputs: Vec<StepRecord>,
    conversation: &mut Conversation,
    publisher: &mut EventPublisher<impl EventLogs>,
) {
    for input in inputs {
        let (StepData::Input { id }, Some(message)) = (input.data, input.message) else {
            continue;
        };
        let step = input.step;
        conversation.put_input(step, message);
        let shown = EventData::InputApplied(InputApplied { id, step });
        let event = publisher.push(step, shown);
        publisher.recorded(event);
        metrics::input_applied();
        tracing::info!(message.id = %id, step, "a message to the run was applied");
    }
}
