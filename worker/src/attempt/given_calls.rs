//! The calls that a request names itself: the first steps of a run that asks no model.

use baton_store::{GivenCallsCommit, NewCall};

use super::calls::effect_of;
use super::{Attempt, Halt};
use crate::world::World;

impl<W: World> Attempt<'_, W> {
    /// Records the given calls before any of them begins, so that a later attempt knows their effects.
    pub(super) async fn begin_given_calls(&mut self) -> Result<(), Halt> {
        self.publisher.settle().await?;
        let given = (1..).zip(&self.spec.calls);
        let calls = given.map(|(number, call)| {
            let (name, arguments) = (call.name.clone(), call.arguments.clone());
            self.toolbox
                .classify(format!("call_{number}"), name, arguments)
        });
        let calls: Vec<_> = calls.collect();
        let recorded = self.conversation.machine.given_calls_begun(calls);
        let calls: Vec<_> = recorded
            .into_iter()
            .map(|recorded| NewCall {
                step: recorded.step,
                effect: effect_of(&recorded),
                call_id: recorded.call.id,
                name: recorded.call.name,
                arguments: recorded.call.arguments,
            })
            .collect();
        let last_event_id = self.publisher.last_id();
        let commit = GivenCallsCommit {
            calls: &calls,
            last_event_id,
        };
        let sent = self.runner.clock.monotonic();
        let span = self.trace.commit(1);
        self.ledger.begin_given_calls(&commit).await?;
        drop(span);
        self.hold.confirmed(sent);
        self.publisher.recorded(last_event_id);
        Ok(())
    }
}
