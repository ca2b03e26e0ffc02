//! What the ledger says about a run, for clients that come late and for events that are lost.

use baton_openai::{AnswerFields, Message};
use baton_protocol::{Outcome, RunId, TenantId, Usage};
use baton_store::{RunRecord, StoreError};

use crate::state::AppState;

/// A run of the tenant's, if there is one.
pub(crate) async fn find_run(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
) -> Result<Option<RunRecord>, StoreError> {
    state.store.tenant(tenant).await?.run(run).await
}

/// A run's ending as recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    /// What it said, in order; read only if it completed.
    pub(crate) messages: Vec<Message>,
    /// What the upstream said besides, in all turns; read only if it completed.
    pub(crate) fields: AnswerFields,
    /// Whether a step of it is recorded.
    pub(crate) worked: bool,
}

impl Recorded {
    /// The ending of a run; `None` while it goes on, or if there is no such run.
    pub(crate) async fn find(
        state: &AppState,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Option<Self>, StoreError> {
        match find_run(state, tenant, run).await? {
            Some(record) => Self::of(state, tenant, &record).await,
            None => Ok(None),
        }
    }

    /// Returns how a run ended, by its record; `None` while it goes on. A terminal record
    /// never changes, and so it is not read again.
    pub(crate) async fn of(
        state: &AppState,
        tenant: TenantId,
        record: &RunRecord,
    ) -> Result<Option<Self>, StoreError> {
        let Some(outcome) = record.outcome.clone() else {
            return Ok(None);
        };
        let run = record.id;
        let mut tx = state.store.tenant(tenant).await?;
        let steps = tx.run_steps(run).await?;
        let worked = !steps.is_empty();
        let mut messages = Vec::new();
        let mut fields = AnswerFields::default();
        if matches!(outcome, Outcome::Completed(_)) {
            for message in tx.run_messages(run).await? {
                match serde_json::from_str(message.get()) {
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        tracing::error!(%error, run.id = %run, "a recorded message is unreadable");
                    }
                }
            }
            for recorded in steps.iter().filter_map(|step| step.answer_fields.as_ref()) {
                match serde_json::from_str(recorded.get()) {
                    Ok(recorded) => fields.extend(recorded),
                    Err(error) => {
                        tracing::error!(%error, run.id = %run, "recorded fields are unreadable");
                    }
                }
            }
        }
        Ok(Some(Self {
            outcome,
            usage: record.usage,
            messages,
            fields,
            worked,
        }))
    }
}
