//! Agents and their versions.

use baton_protocol::{AgentDefinition, AgentId};
use baton_store::{AgentCreation, AgentKey, AgentRecord, TenantTx};
use uuid::Uuid;

use crate::fixture::{Ledger, tenant_id};

const MOST: u32 = 100;

pub(crate) fn agent_id() -> AgentId {
    AgentId::from_uuid(Uuid::now_v7())
}

pub(crate) fn definition(name: &str, instructions: &str) -> AgentDefinition {
    let text = serde_json::json!({"name": name, "instructions": instructions});
    serde_json::from_value(text).unwrap()
}

async fn create(tx: &mut TenantTx, name: &str) -> AgentRecord {
    let wish = definition(name, "one");
    match tx.create_agent(agent_id(), &wish, "user:1", MOST).await {
        Ok(AgentCreation::Created(agent)) => *agent,
        other => panic!("{other:?}"),
    }
}

fn by_name(name: &str) -> AgentKey {
    AgentKey::Name(name.to_owned())
}

fn instructions(agent: &AgentRecord) -> &str {
    agent.version.definition.instructions.as_deref().unwrap()
}

#[tokio::test]
async fn a_change_adds_a_version_and_the_older_ones_stay() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let made = create(&mut tx, "support").await;
    assert_eq!(made.version.number, 1);
    assert_eq!(made.created_at, made.version.created_at);
    for (number, text) in [(2, "two"), (3, "three")] {
        let next = definition("support", text);
        let added = tx.add_agent_version(made.id, &next, None, "key:2").await;
        let added = added.unwrap().unwrap();
        assert_eq!((added.version.number, instructions(&added)), (number, text));
        assert_eq!(added.created_at, made.created_at);
    }
    let first = tx
        .agent_version(&by_name("support"), 1)
        .await
        .unwrap()
        .unwrap();
    let definition = first.version.definition;
    let restored = tx.add_agent_version(made.id, &definition, Some(1), "key:2");
    assert_eq!(
        restored.await.unwrap().unwrap().version.restored_from,
        Some(1)
    );
    tx.commit().await.unwrap();

    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    for key in [by_name("support"), AgentKey::Id(made.id)] {
        let newest = tx.agent(&key).await.unwrap().unwrap();
        assert_eq!((newest.version.number, instructions(&newest)), (4, "one"));
        let second = tx.agent_version(&key, 2).await.unwrap().unwrap();
        assert_eq!(instructions(&second), "two");
        assert!(tx.agent_version(&key, 5).await.unwrap().is_none());
    }
    let page = tx.agent_versions(made.id, None, 3).await.unwrap();
    let numbers: Vec<_> = page.data.iter().map(|version| version.number).collect();
    assert_eq!((numbers, page.next_cursor), (vec![4, 3, 2], Some(2)));
    let page = tx.agent_versions(made.id, Some(2), 3).await.unwrap();
    assert_eq!((page.data.len(), page.next_cursor), (1, None));
    assert_eq!(page.data[0].created_by, "user:1");
}

#[tokio::test]
async fn a_name_is_taken_once_in_a_tenant_and_free_again_after_the_agent() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let made = create(&mut tx, "support").await;
    let again = definition("support", "again");
    let taken = tx
        .create_agent(agent_id(), &again, "user:1", MOST)
        .await
        .unwrap();
    assert!(matches!(taken, AgentCreation::NameTaken), "{taken:?}");
    let other = definition("sales", "other");
    let full = tx
        .create_agent(agent_id(), &other, "user:1", 1)
        .await
        .unwrap();
    assert!(matches!(full, AgentCreation::TooMany), "{full:?}");
    assert!(tx.delete_agent(made.id).await.unwrap());
    assert!(!tx.delete_agent(made.id).await.unwrap());
    assert!(tx.agent(&by_name("support")).await.unwrap().is_none());
    let page = tx.agent_versions(made.id, None, 10).await.unwrap();
    assert!(page.data.is_empty(), "versions go with their agent");
    let gone = tx.add_agent_version(made.id, &again, None, "user:1").await;
    assert!(gone.unwrap().is_none());
    create(&mut tx, "support").await;
}

#[tokio::test]
async fn agents_are_listed_in_pages_and_only_to_their_tenant() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        made.push(create(&mut tx, name).await);
    }
    let page = tx.list_agents(None, 2).await.unwrap();
    let names: Vec<_> = page
        .data
        .iter()
        .map(|it| &*it.version.definition.name)
        .collect();
    assert_eq!(
        (names, page.next_cursor),
        (vec!["c", "b"], Some(made[1].id))
    );
    let page = tx.list_agents(page.next_cursor, 2).await.unwrap();
    assert_eq!((page.data[0].id, page.next_cursor), (made[0].id, None));
    tx.commit().await.unwrap();

    let system = ledger.store.system();
    let other = system.ensure_tenant(tenant_id(), "other").await.unwrap().id;
    let mut tx = ledger.store.tenant(other).await.unwrap();
    assert!(tx.list_agents(None, 10).await.unwrap().data.is_empty());
    for key in [by_name("a"), AgentKey::Id(made[0].id)] {
        assert!(tx.agent(&key).await.unwrap().is_none());
        assert!(tx.lock_agent(&key).await.unwrap().is_none());
        assert!(tx.agent_version(&key, 1).await.unwrap().is_none());
    }
    let page = tx.agent_versions(made[0].id, None, 10).await.unwrap();
    assert!(page.data.is_empty());
    let stolen = definition("a", "mine now");
    let added = tx
        .add_agent_version(made[0].id, &stolen, None, "user:2")
        .await;
    assert!(added.unwrap().is_none());
    assert!(!tx.delete_agent(made[0].id).await.unwrap());
    create(&mut tx, "a").await;
}

#[tokio::test]
async fn two_changes_at_once_become_two_versions() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let made = create(&mut tx, "support").await;
    tx.commit().await.unwrap();

    let mut first = ledger.store.tenant(ledger.tenant).await.unwrap();
    first
        .lock_agent(&by_name("support"))
        .await
        .unwrap()
        .unwrap();
    let next = definition("support", "two");
    let change = async {
        first
            .add_agent_version(made.id, &next, None, "user:1")
            .await
            .unwrap();
        first.commit().await.unwrap();
    };
    let waiting = async {
        let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
        tx.lock_agent(&by_name("support")).await.unwrap().unwrap()
    };
    let (seen, ()) = tokio::join!(waiting, change);
    assert_eq!((seen.version.number, instructions(&seen)), (2, "two"));
}
