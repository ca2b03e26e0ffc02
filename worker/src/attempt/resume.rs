//! Where an earlier attempt had come to, rebuilt from the ledger.

use baton_protocol::{EventData, EventId, RunLimits};
use baton_run_log::parked_events::approval_requested;
use baton_run_log::replay::commit_event;
use baton_store::{ApprovalRecord, CallState, StepData, StepRecord};

use crate::agent::turn_machine::Recorded;
use crate::agent::{Call, CallSide, FinishedTurn, Transcript, TurnMachine};

/// The machine and the transcript after the recorded steps.
pub fn rebuild(limits: RunLimits, steps: Vec<StepRecord>) -> (TurnMachine, Transcript) {
    let mut entries = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        match &step.data {
            StepData::Turn {
                finish_reason,
                usage,
            } => {
                let calls = steps[at + 1..].iter().map_while(server_call).collect();
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
                state: CallState::Started { decision },
                ..
            } => {
                entries.push(Recorded::CallStarted(step.step, decision.clone()));
            }
            StepData::Call {
                state: CallState::Pending,
                ..
            }
            // Recorded with the end of its run: nobody goes on with that.
            | StepData::CutTurn { .. } => {}
        }
    }
    let mut transcript = Transcript::default();
    for step in steps {
        if let Some(message) = step.message {
            transcript.put(step.step, message);
        }
    }
    (TurnMachine::resume(limits, entries), transcript)
}

/// The calls of a turn are the steps behind it, up to the next turn.
fn server_call(step: &StepRecord) -> Option<Call> {
    match &step.data {
        StepData::Call {
            call_id,
            name,
            arguments,
            effect,
            ..
        } => Some(Call {
            id: call_id.clone(),
            name: name.clone(),
            arguments: arguments.clone(),
            side: CallSide::Server(*effect),
        }),
        StepData::Turn { .. } | StepData::CutTurn { .. } => None,
    }
}

/// The events that follow the commit which names the run's last event `last`: what a worker that
/// died in between did not live to show. `asked` is what people were asked by any attempt.
pub fn shown_by_commit(
    steps: &[StepRecord],
    asked: &[ApprovalRecord],
    last: EventId,
) -> Vec<(u32, EventData)> {
    let Some(step) = steps.iter().find(|step| step.last_event_id == Some(last)) else {
        // Parking is the last that an attempt does.
        return asked
            .iter()
            .filter(|approval| approval.attempt == last.attempt())
            .map(|approval| (approval.step, approval_requested(approval)))
            .collect();
    };
    commit_event(step)
        .map(|event| (step.step, event))
        .into_iter()
        .collect()
}
