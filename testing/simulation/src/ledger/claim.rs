//! Grants a claim, with the recorded state for the new holder.

use std::time::Duration;

use baton_invariants::Invariant;
use baton_protocol::run::Held;
use baton_protocol::{Fence, Lane, Outcome, RunId, RunSpec};
use baton_store::{
    ApprovalRecord, CallState, Claim, ClaimOutcome, ClaimedRun, KeyStanding, ParkedRun, StepData,
    StepRecord,
};
use serde_json::json;
use serde_json::value::RawValue;

use super::lease::suspect;
use super::{Grant, Ledger, Row, State, thread};
use crate::accusation::Accusation;
use crate::executor::ProcessId;
use crate::guard::Guard;
use crate::time::{Millis, date, millis};
use crate::tools::SERVER_TOOLS;

impl Ledger {
    pub(crate) fn claim(&mut self, claim: &Claim, holder: ProcessId, now: Millis) -> ClaimOutcome {
        if self.waits_for_thread(claim.run) {
            return ClaimOutcome::Waiting;
        }
        self.judge_beginning(claim.run);
        let Some(row) = self.rows.get_mut(&claim.run) else {
            return ClaimOutcome::Gone;
        };
        let (idle, was_held) = match &mut row.state {
            State::Ended(_) => {
                return row
                    .ended(false)
                    .map_or(ClaimOutcome::Gone, ClaimOutcome::Ended);
            }
            State::Running { held, expires } if row.token == Some(claim.token) => {
                *expires = now + millis(claim.lease);
                row.version += 1;
                let held = *held;
                return claimed(
                    row,
                    (claim, self.setup.without, self.revoked_at.is_some()),
                    held,
                    now,
                );
            }
            State::Running { held, expires } if *expires <= now => (held.lose_lease(), true),
            State::Running { expires, .. } => {
                return ClaimOutcome::Leased {
                    remaining: Duration::from_millis(*expires - now),
                    same_job: row.job_seq == Some(claim.job_seq),
                };
            }
            State::Parked(idle) => {
                return ClaimOutcome::Parked(ParkedRun {
                    attempt: idle.attempt,
                    last_event_id: idle.last_event,
                });
            }
            State::Queued(idle) => (*idle, false),
        };
        if was_held {
            suspect(&mut self.suspects, claim.run, row, false);
        }
        let granted = match &row.cancel {
            Some(reason) => Err(idle.end(Outcome::Cancelled(reason.clone()))),
            None => idle.claim(claim.max_failures),
        };
        match granted {
            Ok(held) => {
                row.state = State::Running {
                    held,
                    expires: now + millis(claim.lease),
                };
                row.version += 1;
                row.token = Some(claim.token);
                row.worker = Some(claim.worker);
                row.job_seq = Some(claim.job_seq);
                let newest = row.grants.last().map_or(0, |grant| grant.attempt);
                if held.attempt <= newest {
                    self.accusations.push(Accusation {
                        invariant: Invariant::I9,
                        run: claim.run,
                        what: format!("attempt {} was granted after {newest}", held.attempt),
                    });
                }
                if row.grants.is_empty() {
                    row.begin_on_thread(&self.thread);
                    row.begin_with_inputs();
                }
                row.forget_withdrawn_inputs(held.last_event);
                row.grants.push(Grant {
                    attempt: held.attempt,
                    token: claim.token,
                    holder,
                    at: now,
                    accounted: false,
                });
                claimed(
                    row,
                    (claim, self.setup.without, self.revoked_at.is_some()),
                    held,
                    now,
                )
            }
            Err(ended) => {
                row.state = State::Ended(ended);
                row.share.charge_open();
                row.ends += 1;
                let ended = row.ended(true);
                self.leave_in_thread(claim.run);
                ended.map_or(ClaimOutcome::Gone, ClaimOutcome::Ended)
            }
        }
    }
}

/// Returns a run's specification. Every third run is shown to a client that cannot take text back.
fn spec(run: RunId, input: &[Box<RawValue>]) -> String {
    json!({
        "v": RunSpec::VERSION,
        "agent": {"name": "a", "version": 0},
        "model": "m",
        "messages": input,
        "tools": [{"type": "function", "function": {"name": "ask"}}],
        "server_tools": SERVER_TOOLS.map(|(name, _)| name),
        "shown_for_good": run.as_uuid().as_u128().is_multiple_of(3),
        "limits": {"max_turns": 4},
    })
    .to_string()
}

fn claimed(
    row: &Row,
    (claim, without, is_revoked): (&Claim, Option<Guard>, bool),
    held: Held,
    now: Millis,
) -> ClaimOutcome {
    let mut recorded = row.steps.clone();
    for record in &mut recorded {
        let (step, begun_by) = (record.step, record.attempt);
        if let StepData::Call {
            paused: Some(paused),
            ..
        } = &mut record.data
        {
            let round = paused.pause.asked().map(|asked| asked.round);
            let of_round = |approval: &&ApprovalRecord| {
                let input = approval.input.as_ref();
                approval.step == step && input.is_some_and(|input| Some(input.round) == round)
            };
            let answered = row.approvals.iter().rfind(of_round);
            let decided = answered.and_then(|approval| approval.decided.as_ref());
            paused.given = decided.map(|decided| decided.decision.clone());
        }
        if let StepData::Call {
            state: CallState::Started { decision },
            ..
        } = &mut record.data
        {
            // A decision applies to the start of the call that it was requested for.
            let decided = row.approvals.iter().filter(|approval| {
                approval.step == step
                    && (approval.attempt >= begun_by || without == Some(Guard::DecisionUsedUp))
            });
            *decision = decided
                .filter_map(|approval| approval.decided.as_ref())
                .map(|decided| decided.decision.clone())
                .next_back();
        }
    }
    let asked = if recorded.iter().any(StepRecord::is_open_call) {
        row.approvals.clone()
    } else {
        Vec::new()
    };
    ClaimOutcome::Claimed(Box::new(ClaimedRun {
        key: row.is_metered.then(|| KeyStanding {
            revoked: is_revoked,
            scopes: vec!["runs:write".to_owned()],
            token_budget: true,
            ..KeyStanding::default()
        }),
        traceparent: None,
        fence: Fence {
            tenant: claim.tenant,
            run: claim.run,
            attempt: held.attempt,
            token: claim.token,
        },
        spec_json: spec(claim.run, &row.input),
        lane: Lane::Interactive,
        thread_id: row.place.as_ref().map(|_| thread()),
        last_event_id: held.last_event,
        failures: held.failures,
        usage: row.usage,
        created_at: date(0),
        queued_at: date(row.queued_at),
        started_at: date(now),
        recorded,
        asked,
    }))
}
