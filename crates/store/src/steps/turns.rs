//! Records a model turn together with the calls that it requests.

mod alone;
mod group;
mod row;

use std::sync::Arc;

use baton_protocol::{Charge, Effect, EventId, Fence, FinishReason, Usage};

pub(crate) use self::group::commit_turn_group;
pub(crate) use self::row::TurnCommitRow;
use crate::errors::FenceError;
use crate::steps::{StepRecord, TurnTimes};
use crate::system::SystemTx;

/// A turn that does not end its run.
#[derive(Debug, Clone)]
pub struct TurnCommit<'a> {
    /// Its place in the transcript, from 1.
    pub step: u32,
    /// The JSON text of the assistant's message.
    pub message: &'a str,
    /// The JSON text of the other fields of the answer, which are passed on.
    pub answer_fields: Option<&'a str>,
    /// The model that is charged; `None` for the requested one.
    pub charged_model: Option<&'a str>,
    /// The turn's own tokens.
    pub usage: Usage,
    /// The charge for the turn.
    pub charge: Charge,
    /// Its times.
    pub times: TurnTimes,
    /// The tokens of all turns, this one included.
    pub usage_total: Usage,
    /// The reason why the turn ended.
    pub finish_reason: FinishReason,
    /// The turn's last event, confirmed by the stream.
    pub last_event_id: EventId,
    /// The server-side calls that it requests, in order.
    pub calls: &'a [NewCall],
    /// The step from which on the commit records the messages that wait for the run; `None` if it
    /// takes none, because calls of the turn have no result yet.
    pub inputs_step: Option<u32>,
}

/// A call that a turn requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCall {
    /// Its place in the transcript, after the turn's.
    pub step: u32,
    /// The call's id, as the model gave it.
    pub call_id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments as the model wrote them.
    pub arguments: String,
    /// The effect of a repetition.
    pub effect: Effect,
}

impl SystemTx<'_> {
    /// Records a turn, its message and its calls in one commit. This is progress of the run, so
    /// that its count of failures starts again. Repeated after its answer was lost, it changes
    /// nothing. Returns the messages that it took.
    pub async fn commit_turn(
        &self,
        fence: &Fence,
        turn: &TurnCommit<'_>,
    ) -> Result<Vec<StepRecord>, FenceError> {
        let row = Arc::new(TurnCommitRow::new(fence, turn));
        let grouped = match self.groups {
            Some(groups) => groups.commit_turn(&row).await,
            None => None,
        };
        let took = match grouped {
            Some(answer) => answer?,
            None => self.commit_turn_alone(&row).await?,
        };
        match turn.inputs_step {
            Some(step) if took => Ok(self.taken_inputs(fence.tenant, fence.run, step).await?),
            _ => Ok(Vec::new()),
        }
    }
}
