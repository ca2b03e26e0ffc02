//! The agents of tenants, found by the names in requests and remembered for two seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_protocol::TenantId;
use baton_protocol::agent::is_agent_name;
use baton_store::{AgentKey, AgentRecord, Store, StoreError, TenantTx};
use moka::future::Cache;

use crate::agent::{Agent, AgentSource, BuiltInAgent, DEFAULT_AGENT};
use crate::request::SubmitRequest;

/// The time for which another process may use an agent as it was before a change.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// Names, of agents and of models that are none.
const REMEMBERED: u64 = 10_000;

/// A name, or a name with a version: `support`, `support@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Selected {
    name: String,
    version: Option<u32>,
}

impl Selected {
    /// Reads the name of an agent; `None` if no agent can have it.
    fn parse(given: &str) -> Option<Self> {
        let (name, version) = match given.split_once('@') {
            None => (given, None),
            Some((name, version)) => (name, Some(version.parse().ok()?)),
        };
        is_agent_name(name).then(|| Self {
            name: name.to_owned(),
            version,
        })
    }
}

/// The stored agents. Clones share what is remembered.
#[derive(Clone)]
pub(crate) struct Agents {
    store: Store,
    remembered: Cache<(TenantId, Selected), Option<Arc<AgentRecord>>>,
}

impl Agents {
    pub(crate) fn new(store: Store) -> Self {
        let remembered = Cache::builder()
            .max_capacity(REMEMBERED)
            .time_to_live(REMEMBERED_FOR)
            .build();
        Self { store, remembered }
    }

    /// Forgets an agent in its newest version. A version by its number never changes.
    pub(crate) async fn forget(&self, tenant: TenantId, name: &str) {
        let newest = Selected {
            name: name.to_owned(),
            version: None,
        };
        self.remembered.invalidate(&(tenant, newest)).await;
    }

    /// Forgets all agents in their newest versions.
    pub(crate) fn forget_all(&self) {
        self.remembered.invalidate_all();
    }

    /// Reads the agents that a request may mean.
    pub(crate) async fn of_request(
        &self,
        tenant: TenantId,
        request: &SubmitRequest,
        built_in: &BuiltInAgent,
    ) -> Result<RequestAgents, StoreError> {
        let mut found = BTreeMap::new();
        let mut tx = None;
        let given = request.agent.as_deref().or(request.model.as_deref());
        // A request that names no agent is the default one's.
        let names = [
            given,
            Some(DEFAULT_AGENT).filter(|_| request.agent.is_none()),
        ];
        for name in names.into_iter().flatten() {
            if let Some(selected) = Selected::parse(name)
                && let Some(record) = self.find(tenant, selected, &mut tx).await?
            {
                let version = &record.version;
                let agent = Agent::of(&version.definition, version.number, built_in);
                found.insert(name.to_owned(), agent);
            }
        }
        Ok(RequestAgents {
            found,
            built_in: built_in.clone(),
        })
    }

    /// Finds an agent; one that is not remembered is read in `tx`, which is begun for the first.
    async fn find(
        &self,
        tenant: TenantId,
        selected: Selected,
        tx: &mut Option<TenantTx>,
    ) -> Result<Option<Arc<AgentRecord>>, StoreError> {
        let place = (tenant, selected);
        if let Some(known) = self.remembered.get(&place).await {
            return Ok(known);
        }
        let key = AgentKey::Name(place.1.name.clone());
        let tx = match tx {
            Some(tx) => tx,
            None => tx.insert(self.store.tenant(tenant).await?),
        };
        let found = match place.1.version {
            None => tx.agent(&key).await?,
            Some(version) => tx.agent_version(&key, version).await?,
        };
        let found = found.map(Arc::new);
        self.remembered.insert(place, found.clone()).await;
        Ok(found)
    }
}

/// The agents that one request may mean.
#[derive(Debug)]
pub(crate) struct RequestAgents {
    /// By the name in the request, with its version if it has one.
    found: BTreeMap<String, Agent>,
    built_in: BuiltInAgent,
}

impl AgentSource for RequestAgents {
    fn find(&self, name: &str) -> Option<Agent> {
        let found = self.found.get(name).cloned();
        found.or_else(|| self.built_in.find(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_pinned_by_its_number() {
        let read = |given| Selected::parse(given).map(|it| (it.name, it.version));
        assert_eq!(read("support"), Some(("support".to_owned(), None)));
        assert_eq!(read("support@3"), Some(("support".to_owned(), Some(3))));
        for none in [
            "support@",
            "support@x",
            "support@-1",
            "openai/gpt",
            "M",
            "a@1@2",
            "",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
