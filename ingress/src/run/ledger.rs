//! Reads a run from the ledger, for clients that come late and for events that are lost.

use baton_openai::{AnswerFields, Message};
use baton_protocol::{Outcome, RunId, TenantId, Usage};
use baton_store::{RunRecord, Store, StoreError};

/// Returns a run of the tenant, if it exists.
pub(crate) async fn find_run(
    store: &Store,
    tenant: TenantId,
    run: RunId,
) -> Result<Option<RunRecord>, StoreError> {
    store.tenant(tenant).await?.run(run).await
}

/// A run's recorded end.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) outcome: Outcome,
    pub(crate) usage: Usage,
    /// The run's messages, in order; read only if it completed.
    pub(crate) messages: Vec<Message>,
    /// The upstream's other fields, of all turns; read only if the run completed.
    pub(crate) fields: AnswerFields,
    /// Whether at least one step of the run is recorded.
    pub(crate) worked: bool,
}

impl Recorded {
    /// Returns the end of a run; `None` while it is active, or if it does not exist.
    pub(crate) async fn find(
        store: &Store,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Option<Self>, StoreError> {
        match find_run(store, tenant, run).await? {
            Some(record) => Self::of(store, tenant, &record).await,
            None => Ok(None),
        }
    }

    /// Returns the end of a run according to its record; `None` while it is active. A terminal
    /// record never changes, so it is not read again.
    pub(crate) async fn of(
        store: &Store,
        tenant: TenantId,
        record: &RunRecord,
    ) -> Result<Option<Self>, StoreError> {
        let Some(outcome) = record.outcome.clone() else {
            return Ok(None);
        };
        let run = record.id;
        let mut tx = store.tenant(tenant).await?;
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
