//! The rules for a new run on a thread with runs that have not ended. The thread is locked
//! meanwhile, so that its runs are accepted one after the other.

use baton_protocol::{MessageId, RunId, ThreadId};
use serde_json::value::RawValue;

use crate::errors::StoreError;
use crate::run_inputs::{NewInput, SendInput};
use crate::runs::cancel::CancelRequest;
use crate::runs::new_run::{Accept, NewRun, OnBusy, Refusal};
use crate::tenant_tx::TenantTx;

impl TenantTx {
    /// Cancels the other runs of the thread, if that is the rule of a new run that was accepted.
    pub(super) async fn cancel_others(
        &mut self,
        thread: ThreadId,
        run: &NewRun<'_>,
    ) -> Result<Vec<(RunId, CancelRequest)>, StoreError> {
        let reason = match run.on_busy {
            OnBusy::Interrupt => "interrupted",
            OnBusy::Rollback => "rolled_back",
            OnBusy::Reject | OnBusy::Queue | OnBusy::Steer => return Ok(Vec::new()),
        };
        let tenant = self.tenant;
        let others = sqlx::query_scalar!(
            "
            -- runs.cancel_others
            UPDATE runs SET rolled_back = rolled_back OR $4
            WHERE tenant_id = $1 AND thread_id = $2 AND id <> $3 AND finished_at IS NULL
            RETURNING id
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
            run.id.as_uuid(),
            run.on_busy == OnBusy::Rollback,
        )
        .fetch_all(self.connection())
        .await?;
        let mut cancelled = Vec::with_capacity(others.len());
        for other in others {
            let other = RunId::from_uuid(other);
            cancelled.push((other, self.request_cancel(other, reason).await?));
        }
        Ok(cancelled)
    }

    /// Sends the message of a new run to the run of the thread that works, or is the next to. Returns
    /// `None` if there is no such run, and the new one is accepted.
    pub(super) async fn steer_thread(
        &mut self,
        run: &NewRun<'_>,
        thread: ThreadId,
    ) -> Result<Option<Accept>, StoreError> {
        let tenant = self.tenant;
        let working = sqlx::query_scalar!(
            "
            -- runs.working_on_thread
            SELECT id FROM runs
            WHERE tenant_id = $1 AND thread_id = $2 AND finished_at IS NULL
              AND cancel_requested_at IS NULL
            ORDER BY started_at IS NULL, id LIMIT 1
            ",
            tenant.as_uuid(),
            thread.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(working) = working.map(RunId::from_uuid) else {
            return Ok(None);
        };
        // The admission lets only requests with one message through.
        let messages: Vec<&RawValue> =
            serde_json::from_str(run.spec.messages.get()).map_err(StoreError::Encode)?;
        let Some(message) = messages.last().copied() else {
            return Ok(None);
        };
        let input = NewInput {
            id: MessageId::from_uuid(run.id.as_uuid()),
            message,
            created_by: run.created_by.unwrap_or_default(),
        };
        match self.send_input(working, input).await? {
            SendInput::Accepted(..) | SendInput::Known(_) => {}
            SendInput::Full => return Ok(Some(Accept::Refused(Refusal::InputsFull))),
            SendInput::Ended | SendInput::NoModel | SendInput::NotFound => return Ok(None),
            SendInput::IdTaken => return Ok(Some(Accept::Refused(Refusal::IdTaken))),
        }
        if let Some(key) = run.idempotency
            && !self.use_key(key, working).await?
        {
            self.withdraw_input(working, input.id).await?;
            return self.repetition(key).await;
        }
        let record = self.run(working).await?;
        Ok(record.map(|record| Accept::Steered(Box::new(record))))
    }
}
