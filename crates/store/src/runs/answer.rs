//! `awaiting_approval` → `completed`: a request answers all open questions of a run, and a new run goes on from
//! it. The decisions, the end and the new run are one commit.

use baton_protocol::{ApiKeyId, RunId};
use uuid::Uuid;

use crate::columns;
use crate::errors::StoreError;
use crate::runs::EndedColumns;
use crate::runs::cancel::CancelRequest;
use crate::runs::new_run::{Answers, Refusal};
use crate::tenant_tx::TenantTx;

impl TenantTx {
    /// Locks the parked run, so that nobody else decides. Returns the reason why its questions cannot be answered
    /// so.
    pub(super) async fn lock_questions(
        &mut self,
        answers: &Answers,
    ) -> Result<Option<Refusal>, StoreError> {
        let tenant = self.tenant;
        let parked = sqlx::query_scalar!(
            r#"
            -- runs.lock_parked
            SELECT true AS "parked!" FROM runs
            WHERE tenant_id = $1 AND id = $2 AND status = 'awaiting_approval'
            FOR NO KEY UPDATE
            "#,
            tenant.as_uuid(),
            answers.run.as_uuid(),
        )
        .fetch_optional(self.connection())
        .await?;
        if parked.is_none() {
            return Ok(Some(Refusal::AlreadyAnswered));
        }
        let asked = sqlx::query!(
            r#"
            -- approvals.to_answer
            SELECT count(*) AS "open!",
                   count(*) FILTER (WHERE id = ANY($3) AND reason = 'approval required')
                       AS "answered!",
                   coalesce(bool_or(expires_at <= clock_timestamp()), false) AS "expired!"
            FROM approvals WHERE tenant_id = $1 AND run_id = $2 AND decision IS NULL
            "#,
            tenant.as_uuid(),
            answers.run.as_uuid(),
            &ids(answers),
        )
        .fetch_one(self.connection())
        .await?;
        let given = i64::try_from(answers.decisions.len()).unwrap_or(i64::MAX);
        Ok(if asked.open != given || asked.answered != given {
            Some(Refusal::AlreadyAnswered)
        } else if asked.expired {
            Some(Refusal::AnsweredLate)
        } else {
            None
        })
    }

    /// Decides the questions of a run that [`Self::lock_questions`] has locked, and ends the run.
    pub(super) async fn answer_questions(
        &mut self,
        answers: &Answers,
        by: Option<ApiKeyId>,
    ) -> Result<(RunId, CancelRequest), StoreError> {
        let (tenant, run) = (self.tenant, answers.run);
        let decisions = answers.decisions.iter();
        let words: Vec<String> = decisions
            .clone()
            .map(|(_, decision)| decision.as_str().to_owned())
            .collect();
        let texts: Vec<Option<String>> = decisions
            .map(|(_, decision)| Some(columns::text(decision.text()?).into_owned()))
            .collect();
        let decided = sqlx::query!(
            "
            -- approvals.answer
            UPDATE approvals SET decision = new.decision, answer = new.answer, decided_by = $6,
                                 decided_at = clock_timestamp()
            FROM unnest($3::uuid[], $4::text[], $5::text[]) AS new (id, decision, answer)
            WHERE tenant_id = $1 AND run_id = $2 AND approvals.id = new.id
              AND approvals.decision IS NULL
            ",
            tenant.as_uuid(),
            run.as_uuid(),
            &ids(answers),
            &words,
            &texts as &[Option<String>],
            by.map(|key| key.as_uuid()),
        )
        .execute(self.connection())
        .await?;
        if decided.rows_affected() != answers.decisions.len() as u64 {
            return Err(StoreError::unreadable(
                "approvals.decision",
                "decided under a lock",
            ));
        }
        for entry in &answers.audit {
            self.record_audit(entry).await?;
        }
        // As for a run that is cancelled while it waits: the next attempt, which has nothing but its reset.
        let ended = sqlx::query_as!(
            EndedColumns,
            r#"
            -- runs.end_answered
            UPDATE runs SET
                status = 'completed',
                finish_reason = 'tool_calls',
                attempt = attempt + 1,
                last_event_id = ((attempt + 1)::bigint << 32) | 2,
                finished_at = clock_timestamp(),
                end_unlogged = true
            WHERE tenant_id = $1 AND id = $2 AND status = 'awaiting_approval'
            RETURNING status AS "status!", attempt, last_event_id, prompt_tokens,
                      completion_tokens, total_tokens, finish_reason, error_code, error_message,
                      error_upstream::text AS error_upstream, cancel_reason, usage_estimated,
                      NULL::float8 AS cancel_seconds
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_one(self.connection())
        .await?;
        Ok((run, CancelRequest::Ended(ended.read(true)?)))
    }
}

fn ids(answers: &Answers) -> Vec<Uuid> {
    let decisions = answers.decisions.iter();
    decisions.map(|(approval, _)| approval.as_uuid()).collect()
}
