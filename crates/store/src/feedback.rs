//! The table `run_feedback`: judgements about runs.

use baton_protocol::{FeedbackId, RunId};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns::int8;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A judgement: a number or a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// A number.
    Score(f64),
    /// A word.
    Value(String),
}

/// A judgement about a run, to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFeedback {
    /// Its id, a UUIDv7 of now.
    pub id: FeedbackId,
    /// The judged quality.
    pub key: String,
    /// The judgement.
    pub judgement: Judgement,
    /// An explanation.
    pub comment: Option<String>,
    /// The actor that gives it, as the audit log names actors.
    pub created_by: String,
}

/// A judgement as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedbackRecord {
    /// Its id.
    pub id: FeedbackId,
    /// The judged quality.
    pub key: String,
    /// The judgement as a number; `None` if it is a word.
    pub score: Option<f64>,
    /// The judgement as a word; `None` if it is a number.
    pub value: Option<String>,
    /// An explanation.
    pub comment: Option<String>,
    /// The actor that gave it.
    pub created_by: String,
    /// The time at which it was given.
    pub created_at: DateTime<Utc>,
}

/// The answer to a judgement.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenFeedback {
    /// It is stored.
    Stored(FeedbackRecord),
    /// The tenant has no such run.
    NoSuchRun,
    /// The run has as many judgements as it may have.
    Full,
}

struct Row {
    id: Uuid,
    key: String,
    score: Option<f64>,
    value: Option<String>,
    comment: Option<String>,
    created_by: String,
    created_at: DateTime<Utc>,
}

impl From<Row> for FeedbackRecord {
    fn from(row: Row) -> Self {
        Self {
            id: FeedbackId::from_uuid(row.id),
            key: row.key,
            score: row.score,
            value: row.value,
            comment: row.comment,
            created_by: row.created_by,
            created_at: row.created_at,
        }
    }
}

impl TenantTx {
    /// Adds a judgement to a run that has fewer than `most`. Judgements that come at once may exceed that
    /// by their number.
    pub async fn give_feedback(
        &mut self,
        run: RunId,
        feedback: &NewFeedback,
        most: u32,
    ) -> Result<GivenFeedback, StoreError> {
        let tenant = self.tenant;
        let (score, value) = match &feedback.judgement {
            Judgement::Score(score) => (Some(*score), None),
            Judgement::Value(value) => (None, Some(&**value)),
        };
        let created_at = sqlx::query_scalar!(
            r#"
            -- feedback.give
            INSERT INTO run_feedback (tenant_id, run_id, id, key, score, value, comment, created_by)
            SELECT tenant_id, id, $3, $4, $5, $6, $7, $8
            FROM runs
            WHERE tenant_id = $1 AND id = $2
              AND (SELECT count(*) FROM run_feedback WHERE tenant_id = $1 AND run_id = $2) < $9
            RETURNING created_at
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
            feedback.id.as_uuid(),
            feedback.key,
            score,
            value,
            feedback.comment,
            feedback.created_by,
            int8(u64::from(most)),
        )
        .fetch_optional(self.connection())
        .await?;
        let Some(created_at) = created_at else {
            let exists = self.run(run).await?.is_some();
            return Ok(if exists {
                GivenFeedback::Full
            } else {
                GivenFeedback::NoSuchRun
            });
        };
        Ok(GivenFeedback::Stored(FeedbackRecord {
            id: feedback.id,
            key: feedback.key.clone(),
            score,
            value: value.map(str::to_owned),
            comment: feedback.comment.clone(),
            created_by: feedback.created_by.clone(),
            created_at,
        }))
    }

    /// Returns the judgements about a run, the oldest first.
    pub async fn run_feedback(&mut self, run: RunId) -> Result<Vec<FeedbackRecord>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query_as!(
            Row,
            r#"
            -- feedback.of_run
            SELECT id, key, score, value, comment, created_by, created_at
            FROM run_feedback
            WHERE tenant_id = $1 AND run_id = $2
            ORDER BY id
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(FeedbackRecord::from).collect())
    }
}
