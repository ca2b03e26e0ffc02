//! Runs that wait for a person.

use std::time::Duration;

use baton_protocol::{ApprovalId, ApprovalReason, Decision, EventId, Fence, RunId};
use baton_store::{ApprovalRecord, Decided, NewApproval, ParkOutcome, QueuedJob, StepData};

use super::{Ledger, Lost, Row, State, job_of, open_call};
use crate::time::{Millis, date};

impl Ledger {
    pub(crate) fn park(
        &mut self,
        fence: &Fence,
        questions: &[NewApproval],
        (last_event, expire_after): (EventId, Duration),
        now: Millis,
    ) -> Result<ParkOutcome, Lost> {
        if let Some(row) = self.rows.get(&fence.run)
            && let State::Parked(idle) = &row.state
        {
            // Repeated because its answer was lost, it changes nothing.
            let same = idle.attempt == fence.attempt
                && row.token == Some(fence.token)
                && idle.last_event == last_event;
            return if same {
                let expires_at = date(now) + expire_after;
                Ok(ParkOutcome::Parked { expires_at })
            } else {
                Err(Lost)
            };
        }
        if let Some(reason) = self.held(fence)?.0.cancel.clone() {
            return Ok(ParkOutcome::CancelRequested(reason));
        }
        let (row, held) = self.write(fence, "parking")?;
        for question in questions {
            let call = open_call(row, question.step).map(|record| record.data.clone());
            let (call_id, name, arguments) = match call {
                Some(StepData::Call {
                    call_id,
                    name,
                    arguments,
                    ..
                }) => (call_id, name, arguments),
                // A question about a limit has no call.
                _ if question.reached.is_some() => Default::default(),
                _ => continue,
            };
            row.approvals.push(ApprovalRecord {
                id: question.id,
                run: fence.run,
                step: question.step,
                attempt: fence.attempt,
                reason: question.reason,
                call_id,
                name,
                arguments,
                parameters: question.parameters.clone(),
                reached: question.reached.clone(),
                input: question.input.clone(),
                created_at: date(now),
                expires_at: date(now) + expire_after,
                decided: None,
            });
        }
        row.state = State::Parked(held.park(last_event));
        let expires_at = date(now) + expire_after;
        Ok(ParkOutcome::Parked { expires_at })
    }

    /// Decides as a person. Returns whether the decision took effect, and whether the run is queued
    /// and its job must be published.
    pub(crate) fn decide(
        &mut self,
        run: RunId,
        approval: ApprovalId,
        decision: &Decision,
        now: Millis,
    ) -> (bool, bool) {
        let Some(row) = self.rows.get_mut(&run) else {
            return (false, false);
        };
        let ended = row.status().is_terminal();
        let Some(asked) = row.approvals.iter_mut().find(|asked| asked.id == approval) else {
            return (false, false);
        };
        let is_option = asked.reason.options().contains(&decision.as_str());
        if ended || !is_option || asked.decided.is_some() || asked.expires_at <= date(now) {
            return (false, false);
        }
        asked.decided = Some(Decided {
            decision: decision.clone(),
            at: date(now),
            by: None,
            grant_revoked_at: None,
        });
        (true, queue_decided(row, now))
    }

    /// Gives up expired questions. Returns the queued runs, because their jobs must be published.
    pub(crate) fn expire_approvals(&mut self, now: Millis) -> Vec<QueuedJob> {
        let mut queued = Vec::new();
        for (run, row) in &mut self.rows {
            let mut any = false;
            for asked in &mut row.approvals {
                if asked.decided.is_none() && asked.expires_at <= date(now) {
                    any = true;
                    asked.decided = Some(Decided {
                        decision: match asked.reason {
                            ApprovalReason::Budget => Decision::Stop {},
                            ApprovalReason::Input => Decision::Cancel {},
                            _ => Decision::Fail {
                                reason: "nobody decided in time".into(),
                            },
                        },
                        at: date(now),
                        by: None,
                        grant_revoked_at: None,
                    });
                }
            }
            if any && queue_decided(row, now) {
                queued.push(job_of(*run, row));
            }
        }
        queued
    }
}

/// Queues a parked run without an open question.
fn queue_decided(row: &mut Row, now: Millis) -> bool {
    let open = row.approvals.iter().any(|asked| asked.decided.is_none());
    match row.state {
        State::Parked(idle) if !open => {
            row.state = State::Queued(idle);
            row.queued_at = now;
            true
        }
        _ => false,
    }
}
