//! `running` → `completed`, `failed`, `cancelled`: the holder ends the run. The last step, its
//! message, the usage and the state are one statement and one commit.

mod alone;
mod group;
mod row;

use std::sync::Arc;
use std::time::Duration;

use baton_protocol::{
    Charge, EventId, Fence, FinishReason, Lane, Outcome, RunId, TenantId, ThreadId, Usage,
};

pub(crate) use self::group::finish_group;
pub(crate) use self::row::{EndedRow, FinishRow};
use crate::columns;
use crate::errors::{FenceError, StoreError};
use crate::runs::rescue::QueuedJob;
use crate::steps::TurnTimes;
use crate::system::SystemTx;

/// The end of a run.
#[derive(Debug, Clone)]
pub struct FinishCommit<'a> {
    /// The outcome.
    pub outcome: &'a Outcome,
    /// The id of the terminal event, which is appended after this commit.
    pub last_event_id: EventId,
    /// The tokens of all turns, the last one included.
    pub usage_total: Usage,
    /// The model's last turn, if the run ends with one that is not recorded yet.
    pub turn: Option<FinalTurn<'a>>,
    /// Instead of a last turn, the turn that was broken off by a cancel or a failure.
    pub cut: Option<CutTurn<'a>>,
    /// Whether the run goes on if a message waits for it: then nothing is written, and the answer is
    /// [`FenceError::InputsWait`].
    pub unless_inputs_wait: bool,
}

/// The turn that a run ends with.
#[derive(Debug, Clone)]
pub struct FinalTurn<'a> {
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
    /// The reason why the turn ended.
    pub finish_reason: FinishReason,
    /// The last event of the turn, before the terminal one.
    pub last_event_id: EventId,
}

/// A turn that was broken off. The ledger keeps the part that was shown; it never counts as an
/// answer.
#[derive(Debug, Clone)]
pub struct CutTurn<'a> {
    /// The place in the transcript that it would have had, from 1.
    pub step: u32,
    /// The JSON text of the received part of the assistant's message.
    pub message: &'a str,
    /// The JSON text of the other fields of the answer that were received.
    pub answer_fields: Option<&'a str>,
    /// The model that is charged; `None` for the requested one.
    pub charged_model: Option<&'a str>,
    /// The turn's own tokens, known or estimated.
    pub usage: Usage,
    /// The charge for the turn.
    pub charge: Charge,
    /// Its times.
    pub times: TurnTimes,
    /// The last event of the turn, before the terminal one.
    pub last_event_id: EventId,
}

/// The result of ending a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The next run of its thread, which now needs a job.
    pub promoted: Option<QueuedJob>,
    /// The time from the cancel request to the end of a cancelled run; `None` unless cancelled.
    pub cancel_latency: Option<Duration>,
}

impl SystemTx<'_> {
    /// Ends the run. Repeated after its answer was lost, it returns the same result.
    pub async fn finish_run(
        &self,
        fence: &Fence,
        finish: &FinishCommit<'_>,
    ) -> Result<Finished, FenceError> {
        let row = Arc::new(FinishRow::new(fence, finish));
        let grouped = match self.groups {
            Some(groups) => groups.finish(&row).await,
            None => None,
        };
        let ended = match grouped {
            Some(answer) => answer?,
            None => self.finish_alone(&row).await?,
        };
        Ok(Finished {
            cancel_latency: columns::latency(ended.cancel_seconds),
            promoted: match ended.thread_id {
                Some(thread) => {
                    self.next_in_thread(fence.tenant, ThreadId::from_uuid(thread))
                        .await?
                }
                None => None,
            },
        })
    }

    /// Returns the run that goes next after one that has ended, if both are of one thread.
    pub async fn next_after(
        &self,
        tenant: TenantId,
        ended: RunId,
    ) -> Result<Option<QueuedJob>, StoreError> {
        let thread = sqlx::query_scalar!(
            "
            -- runs.thread_of
            SELECT thread_id FROM runs WHERE tenant_id = $1 AND id = $2
            ",
            tenant.as_uuid(),
            ended.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        match thread.flatten() {
            Some(thread) => {
                self.next_in_thread(tenant, ThreadId::from_uuid(thread))
                    .await
            }
            None => Ok(None),
        }
    }

    /// Returns the oldest waiting run of a thread without an active run.
    pub async fn next_in_thread(
        &self,
        tenant: TenantId,
        thread: ThreadId,
    ) -> Result<Option<QueuedJob>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- runs.next_in_thread
            SELECT id, lane AS "lane!", queued_at, published_at
            FROM runs
            WHERE tenant_id = $1 AND thread_id = $2 AND status = 'queued'
              AND NOT EXISTS (
                  SELECT FROM runs AS active
                  WHERE active.tenant_id = $1 AND active.thread_id = $2
                    AND active.status IN ('running', 'awaiting_approval'))
            ORDER BY id LIMIT 1
            "#,
            tenant.as_uuid(),
            thread.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        row.map(|row| {
            let lane: Lane = columns::lane(&row.lane)?;
            Ok(QueuedJob {
                tenant,
                run: RunId::from_uuid(row.id),
                lane,
                queued_at: row.queued_at,
                published_at: row.published_at,
            })
        })
        .transpose()
    }
}
