//! The demo agent: a person must approve its calculations, so that users see a run that waits.

use baton_protocol::agent::AgentDefinition;
use baton_protocol::{AgentId, TenantId};
use baton_service::config::BuiltInTool;
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{AgentCreation, AuditEntry};
use serde_json::json;

use crate::ledger::{audit_entry, connect};

/// The agent's name, which requests write as their model.
pub(crate) const AGENT: &str = "cautious";

/// The agents that a tenant may have.
const MOST: u32 = 1_000;

fn definition() -> serde_json::Result<AgentDefinition> {
    let calculator = BuiltInTool::Calculator.as_str();
    serde_json::from_value(json!({
        "name": AGENT,
        "description": "Asks a person before it calculates; made by `baton dev`.",
        "tools": [{"type": "server", "name": calculator, "approval": "always"}],
    }))
}

/// Makes the agent of the tenant, unless it has one of this name.
pub(crate) async fn ensure(config: &Config, tenant: TenantId) -> anyhow::Result<()> {
    let store = connect(config).await?;
    let id = AgentId::new(SystemClock.now());
    let mut tx = store.tenant(tenant).await?;
    let created = tx
        .create_agent(id, &definition()?, "operator", MOST)
        .await?;
    if let AgentCreation::Created(_) = created {
        let entry = audit_entry(Some(tenant), "agent.created", format!("agent:{id}"));
        tx.record_audit(&AuditEntry {
            detail: Some(format!("{AGENT}@1")),
            ..entry
        })
        .await?;
    }
    tx.commit().await?;
    store.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use baton_protocol::agent::ToolApproval;

    use super::*;

    #[test]
    fn the_agent_asks_before_each_calculation() {
        let agent = definition().unwrap();
        assert_eq!(agent.tools[0].approval, ToolApproval::Always);
        assert_eq!(agent.model, None, "it has the server's default model");
    }
}
