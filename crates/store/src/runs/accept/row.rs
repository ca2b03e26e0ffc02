//! The values of an accepted run, in the form in which the statements write them.

use baton_protocol::TenantId;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::columns::{self, int4, int8};
use crate::errors::StoreError;
use crate::runs::new_run::NewRun;

/// A run that a statement inserts. It owns its values, because a group outlives its callers.
#[derive(Debug)]
pub(crate) struct AcceptRow {
    pub(super) tenant: TenantId,
    pub(super) id: Uuid,
    pub(super) lane: &'static str,
    pub(super) spec: String,
    pub(super) model: String,
    pub(super) agent_name: String,
    pub(super) agent_version: i32,
    pub(super) thread_id: Option<Uuid>,
    pub(super) api_key_id: Option<Uuid>,
    pub(super) metadata: Option<String>,
    pub(super) cancel_on_disconnect: bool,
    pub(super) metered: bool,
    pub(super) created_by: Option<String>,
    pub(super) traceparent: Option<String>,
    /// Whether the run is kept after its end.
    pub(super) stored: bool,
    /// Whether it is a response that is kept for the time of its tenant.
    pub(super) expires: bool,
    /// The limit on the tenant's waiting runs.
    pub(super) tenant_limit: i64,
}

impl AcceptRow {
    pub(super) fn new(
        tenant: TenantId,
        run: &NewRun<'_>,
        tenant_limit: u32,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            tenant,
            id: run.id.as_uuid(),
            lane: run.lane.as_str(),
            spec: serde_json::to_string(run.spec).map_err(StoreError::Encode)?,
            model: columns::text(&run.spec.model).into_owned(),
            agent_name: columns::text(&run.spec.agent.name).into_owned(),
            agent_version: int4(run.spec.agent.version),
            thread_id: run.thread_id.map(|thread| thread.as_uuid()),
            api_key_id: run.api_key_id.map(|key| key.as_uuid()),
            metadata: run
                .metadata
                .map(|metadata| RawValue::get(metadata).to_owned()),
            cancel_on_disconnect: run.cancel_on_disconnect,
            metered: run.api_key_id.is_some() && run.metered.is_some(),
            created_by: run.created_by.map(str::to_owned),
            traceparent: run.traceparent.map(str::to_owned),
            stored: run.spec.is_stored() && run.titles.is_none(),
            expires: run.spec.response.is_some() && run.spec.is_stored(),
            tenant_limit: int8(u64::from(tenant_limit)),
        })
    }

    pub(crate) const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Returns the bytes of its long texts.
    pub(crate) fn bytes(&self) -> usize {
        self.spec.len() + self.metadata.as_ref().map_or(0, String::len)
    }
}
