//! Keeps the agents of the operator's files in the ledger, from which requests read all agents.
//!
//! A load is one commit: new agents, a new version of each changed one, and the removal of those that the
//! files no longer have. All ingresses load the same files, and only the first of them changes something.

mod read;

use std::collections::BTreeMap;
use std::time::Duration;

use baton_admission::Admission;
use baton_protocol::{AgentDefinition, AgentId, AuditId, TenantId};
use baton_service::{LiveConfig, SharedClock};
use baton_store::{
    ActorKind, AuditEntry, AuditResult, FileAgentRecord, Store, StoreError, SystemTx,
};

pub(crate) use read::{FiledAgent, read};

use crate::metrics;

/// The time after which a load with trouble is repeated: a tenant may have been made meanwhile, or an agent
/// of the same name deleted.
const AGAIN: Duration = Duration::from_secs(15);

/// The agents of the files, and their last load.
pub(crate) struct AgentFiles {
    pub(crate) store: Store,
    pub(crate) admission: Admission,
    pub(crate) clock: SharedClock,
    pub(crate) agents: Vec<FiledAgent>,
    /// The reason why the last load is not whole; the log has it once.
    pub(crate) trouble: Option<String>,
}

/// The outcome of a load.
#[derive(Debug, Default)]
struct Loaded {
    /// The changes, as `created support@1`.
    changes: Vec<String>,
    /// The entries that a tenant does not get, each with the reason.
    refused: BTreeMap<String, String>,
}

impl AgentFiles {
    /// Loads each changed configuration, and repeats a load with trouble.
    pub(crate) async fn take_changes(mut self, mut config: LiveConfig) {
        loop {
            let has_trouble = self.trouble.is_some();
            let again = async {
                if has_trouble {
                    tokio::time::sleep(AGAIN).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = again => {}
                config = config.changed() => match read(&config) {
                    Ok(agents) => self.agents = agents,
                    // The reload has refused such files.
                    Err(error) => {
                        tracing::error!(%error, "the agents of the files are kept as they were");
                        continue;
                    }
                },
            }
            self.apply().await;
        }
    }

    /// Loads the agents. The log has the changes, and the entries that are refused.
    pub(crate) async fn apply(&mut self) {
        let trouble = match self.load().await {
            Ok(Loaded { changes, refused }) => {
                let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let in_force = self.agents.len().saturating_sub(refused.len());
                metrics::file_agents(count(in_force), count(refused.len()));
                if !changes.is_empty() {
                    self.admission.forget_agents();
                    tracing::info!(
                        changes = changes.join(", "),
                        "the agents of the files are loaded"
                    );
                }
                let refused: Vec<_> = refused.into_values().collect();
                (!refused.is_empty()).then(|| refused.join("; "))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &trouble
            && self.trouble.as_ref() != Some(error)
        {
            tracing::error!(error, "agents of the files are not in force");
        }
        self.trouble = trouble;
    }

    async fn load(&self) -> Result<Loaded, StoreError> {
        let one = self.store.one_commit().await?;
        let system = one.system();
        system.lock_file_agents().await?;
        let stored = system.file_agents().await?;
        let mut loaded = Loaded::default();
        let mut found = BTreeMap::new();
        for filed in &self.agents {
            let name = &filed.definition.name;
            let tenant = match tenant_of(filed, system).await? {
                Ok(tenant) => tenant,
                Err(reason) => {
                    loaded.refused.insert(filed.place.clone(), reason);
                    continue;
                }
            };
            let present = stored
                .iter()
                .find(|stored| stored.tenant == tenant && stored.name == *name);
            let load = Load {
                files: self,
                system,
                tenant,
            };
            let id = load.keep(&filed.definition, present, &mut loaded).await?;
            if found.insert(id, filed).is_some() {
                let reason = format!(
                    "{}: the tenant has `{name}` from another entry",
                    filed.place
                );
                loaded.refused.insert(filed.place.clone(), reason);
            }
        }
        for gone in stored
            .iter()
            .filter(|it| !it.removed && !found.contains_key(&it.id))
        {
            let load = Load {
                files: self,
                system,
                tenant: gone.tenant,
            };
            load.remove(gone, &mut loaded).await?;
        }
        for shadowed in system.shadowed_file_agents().await? {
            let Some(filed) = found.get(&shadowed.file_agent) else {
                continue;
            };
            let reason = format!(
                "{}: of {} tenants the first, {}, has made an agent `{}` ({}) over the API, which its requests \
                 get: have it deleted, or give one of the two another name",
                filed.place,
                shadowed.tenants,
                shadowed.tenant,
                filed.definition.name,
                shadowed.agent
            );
            loaded.refused.entry(filed.place.clone()).or_insert(reason);
        }
        if loaded.changes.is_empty() {
            one.rollback().await?;
        } else {
            one.commit().await?;
        }
        Ok(loaded)
    }
}

/// A load of an agent: the commit, and the tenant that has it.
struct Load<'a> {
    files: &'a AgentFiles,
    system: SystemTx<'a>,
    tenant: Option<TenantId>,
}

impl Load<'_> {
    /// Stores an agent as the files have it, and returns its id.
    async fn keep(
        &self,
        definition: &AgentDefinition,
        present: Option<&FileAgentRecord>,
        loaded: &mut Loaded,
    ) -> Result<AgentId, StoreError> {
        let name = &definition.name;
        let Some(present) = present else {
            let id = AgentId::new(self.files.clock.now());
            self.system
                .create_file_agent(id, self.tenant, definition)
                .await?;
            self.record("agent.created", id, name, 1, loaded).await?;
            return Ok(id);
        };
        let is_same =
            serde_json::to_string(definition).is_ok_and(|text| text == present.definition);
        let id = present.id;
        if !is_same {
            let changed = self
                .system
                .change_file_agent(id, present.version, definition);
            if changed.await? {
                self.record("agent.changed", id, name, present.version + 1, loaded)
                    .await?;
            }
        } else if present.removed && self.system.remove_file_agent(id, false).await? {
            self.record("agent.created", id, name, present.version, loaded)
                .await?;
        }
        Ok(id)
    }

    async fn remove(&self, gone: &FileAgentRecord, loaded: &mut Loaded) -> Result<(), StoreError> {
        if self.system.remove_file_agent(gone.id, true).await? {
            self.record("agent.deleted", gone.id, &gone.name, gone.version, loaded)
                .await?;
        }
        Ok(())
    }

    async fn record(
        &self,
        action: &'static str,
        id: AgentId,
        name: &str,
        version: u32,
        loaded: &mut Loaded,
    ) -> Result<(), StoreError> {
        let detail = format!("{name}@{version}");
        loaded.changes.push(format!("{action} {detail}"));
        let entry = AuditEntry {
            id: AuditId::new(self.files.clock.now()),
            tenant: self.tenant,
            actor_kind: ActorKind::Operator,
            actor: Some("file".to_owned()),
            action,
            target: Some(format!("agent:{id}")),
            result: AuditResult::Done,
            detail: Some(detail),
            ip: None,
            user_agent: None,
            request_id: None,
        };
        self.system.record_audit(&entry).await
    }
}

/// Finds the tenant of an entry by its id, or by the name that an operator gave it; `None` is all tenants.
/// Returns the reason if there is no such tenant.
async fn tenant_of(
    filed: &FiledAgent,
    system: SystemTx<'_>,
) -> Result<Result<Option<TenantId>, String>, StoreError> {
    let Some(given) = &filed.tenant else {
        return Ok(Ok(None));
    };
    let found = match given.parse() {
        Ok(id) => system.tenant(id).await?,
        Err(_) => system.tenant_by_name(given).await?,
    };
    Ok(match found {
        Some(tenant) => Ok(Some(tenant.id)),
        None => Err(format!(
            "{}: `{}` is of the tenant `{given}`, which does not exist: make it, or correct its name",
            filed.place, filed.definition.name
        )),
    })
}
