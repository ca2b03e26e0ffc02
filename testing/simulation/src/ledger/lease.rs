//! The lease of a run: its holder, its renewal and its end.

use std::time::Duration;

use baton_protocol::run::Idle;
use baton_protocol::{EventId, Fence, RunId, WorkerId};
use baton_store::{QueuedJob, Renewal};

use super::{Ledger, Lost, Row, State, Suspect, job_of};
use crate::guard::Guard;
use crate::time::{Millis, millis};

impl Ledger {
    /// Renews the lease. Without a length only the row changes, as a sign of life.
    pub(crate) fn renew(
        &mut self,
        fence: &Fence,
        lease: Option<Duration>,
        now: Millis,
    ) -> Result<Renewal, Lost> {
        let (row, held) = self.held(fence)?;
        row.version += 1;
        if let Some(lease) = lease {
            row.state = State::Running {
                held,
                expires: now + millis(lease),
            };
        }
        Ok(Renewal {
            cancel_requested: row.cancel.clone(),
            waiting: row.waiting_inputs(),
        })
    }

    pub(crate) fn hand_over(
        &mut self,
        fence: &Fence,
        last_event: EventId,
        now: Millis,
    ) -> Result<(), Lost> {
        let (row, held) = self.write(fence, "hand-over")?;
        let idle = held.hand_over();
        row.state = State::Queued(Idle {
            last_event: idle.last_event.max(last_event),
            ..idle
        });
        row.queued_at = now;
        Ok(())
    }

    /// Queues runs with an expired lease.
    pub(crate) fn requeue_expired(&mut self, now: Millis) -> Vec<QueuedJob> {
        let mut queued = Vec::new();
        for (run, row) in &mut self.rows {
            let State::Running { held, expires } = &row.state else {
                continue;
            };
            if *expires > now {
                continue;
            }
            let idle = held.lose_lease();
            suspect(&mut self.suspects, *run, row, false);
            row.state = State::Queued(idle);
            row.queued_at = now;
            queued.push(job_of(*run, row));
        }
        queued
    }

    /// Returns the runs that a worker holds, with the versions of their rows.
    pub(crate) fn held_by(&self, worker: WorkerId) -> Vec<(RunId, u64)> {
        self.rows
            .iter()
            .filter(|(_, row)| {
                matches!(row.state, State::Running { .. }) && row.worker == Some(worker)
            })
            .map(|(run, row)| (*run, row.version))
            .collect()
    }

    /// Takes a worker's runs if their rows are unchanged.
    pub(crate) fn requeue_silent(
        &mut self,
        worker: WorkerId,
        rows: &[(RunId, u64)],
        now: Millis,
    ) -> Vec<QueuedJob> {
        let mut taken = Vec::new();
        let compares = self.setup.without != Some(Guard::Silence);
        for (run, version) in rows {
            let Some(row) = self.rows.get_mut(run) else {
                continue;
            };
            let State::Running { held, .. } = &row.state else {
                continue;
            };
            if row.worker != Some(worker) || (compares && row.version != *version) {
                continue;
            }
            let idle = held.lose_lease();
            suspect(&mut self.suspects, *run, row, true);
            row.state = State::Queued(idle);
            row.queued_at = now;
            row.version += 1;
            taken.push(job_of(*run, row));
        }
        taken
    }
}

/// Records a lost lease, so that the checker decides whether its holder was hampered.
pub(super) fn suspect(suspects: &mut Vec<Suspect>, run: RunId, row: &Row, early: bool) {
    if let Some(grant) = row.grants.last().filter(|grant| !grant.accounted) {
        suspects.push(Suspect {
            run,
            attempt: grant.attempt,
            holder: grant.holder,
            at: grant.at,
            early,
        });
    }
}
