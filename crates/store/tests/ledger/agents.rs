//! Agents and their versions.

use baton_protocol::{AgentDefinition, AgentId, TenantId};
use baton_store::{AgentCreation, AgentKey, AgentRecord, ShadowedFileAgent, TenantTx};
use futures_util::FutureExt as _;
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

/// Loads an agent of a file, for one tenant or for all.
async fn load(ledger: &Ledger, tenant: Option<TenantId>, name: &str) -> AgentId {
    let id = agent_id();
    let wish = definition(name, "one");
    let system = ledger.store.system();
    system.create_file_agent(id, tenant, &wish).await.unwrap();
    id
}

#[tokio::test]
async fn an_agent_of_a_file_is_read_by_its_tenants_and_changed_by_none() {
    let ledger = Ledger::new().await;
    let system = ledger.store.system();
    let all = load(&ledger, None, "all").await;
    let one = load(&ledger, Some(ledger.tenant), "one").await;
    let next = definition("one", "two");
    assert!(system.change_file_agent(one, 1, &next).await.unwrap());
    assert!(!system.change_file_agent(one, 1, &next).await.unwrap());
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    for (key, version, text) in [
        (by_name("one"), 2, "two"),
        (AgentKey::Id(one), 2, "two"),
        (AgentKey::Id(all), 1, "one"),
    ] {
        let found = tx.agent(&key).await.unwrap().unwrap();
        assert_eq!(
            (found.version.number, instructions(&found)),
            (version, text)
        );
        assert!(found.of_file);
        assert!(tx.lock_agent(&key).await.unwrap().is_none());
    }
    let first = tx.agent_version(&by_name("one"), 1).await.unwrap().unwrap();
    assert_eq!(instructions(&first), "one");
    let versions = tx.agent_versions(one, None, 10).await.unwrap().data;
    let numbers: Vec<_> = versions
        .iter()
        .map(|it| (it.number, &*it.created_by))
        .collect();
    assert_eq!(numbers, [(2, "file"), (1, "file")]);
    assert!(!tx.delete_agent(one).await.unwrap());
    let added = tx.add_agent_version(one, &next, None, "user:1").await;
    assert!(added.unwrap().is_none());
    let wish = definition("all", "mine");
    let taken = tx.create_agent(agent_id(), &wish, "user:1", MOST).await;
    assert!(matches!(taken, Ok(AgentCreation::NameInFile)), "{taken:?}");
    tx.rollback().await.unwrap();

    let other = system.ensure_tenant(tenant_id(), "other").await.unwrap().id;
    let mut tx = ledger.store.tenant(other).await.unwrap();
    for key in [by_name("one"), AgentKey::Id(one)] {
        assert!(tx.agent(&key).await.unwrap().is_none());
        assert!(tx.agent_version(&key, 1).await.unwrap().is_none());
    }
    assert!(
        tx.agent_versions(one, None, 10)
            .await
            .unwrap()
            .data
            .is_empty()
    );
    let listed = tx.list_agents(None, 10).await.unwrap().data;
    let ids: Vec<_> = listed.iter().map(|agent| agent.id).collect();
    assert_eq!(ids, [all]);
    tx.rollback().await.unwrap();

    assert!(system.remove_file_agent(all, true).await.unwrap());
    assert!(!system.remove_file_agent(all, true).await.unwrap());
    let mut tx = ledger.store.tenant(other).await.unwrap();
    assert!(tx.agent(&by_name("all")).await.unwrap().is_none());
    create(&mut tx, "all").await;
}

#[tokio::test]
async fn an_agent_that_a_tenant_made_is_before_one_of_a_file_and_is_reported() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let made = create(&mut tx, "support").await;
    tx.commit().await.unwrap();
    let filed = load(&ledger, None, "support").await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    assert_eq!(
        tx.agent(&by_name("support")).await.unwrap().unwrap().id,
        made.id
    );
    assert!(tx.agent(&AgentKey::Id(filed)).await.unwrap().is_none());
    let listed = tx.list_agents(None, 10).await.unwrap().data;
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), [made.id]);
    tx.rollback().await.unwrap();
    let shadowed = ledger.store.system().shadowed_file_agents().await.unwrap();
    let expected = ShadowedFileAgent {
        file_agent: filed,
        tenants: 1,
        tenant: ledger.tenant,
        agent: made.id,
    };
    assert_eq!(shadowed, [expected]);
}

/// A load and an agent of the same name that a tenant makes wait for each other, so that one of them sees
/// the other.
#[tokio::test]
async fn a_load_waits_for_a_tenant_that_makes_an_agent() {
    let ledger = Ledger::new().await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    create(&mut tx, "support").await;
    let one = ledger.store.one_commit().await.unwrap();
    let system = one.system();
    let mut locking = Box::pin(system.lock_file_agents());
    assert!((&mut locking).now_or_never().is_none());
    let mut watcher = ledger.superuser().await;
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    loop {
        assert!(
            (&mut locking).now_or_never().is_none(),
            "the tenant's commit is to come"
        );
        let waiting: i64 = sqlx::query_scalar(waits)
            .fetch_one(&mut watcher)
            .await
            .unwrap();
        if waiting == 1 {
            break;
        }
    }
    tx.commit().await.unwrap();
    locking.await.unwrap();
    system
        .create_file_agent(agent_id(), None, &definition("support", "one"))
        .await
        .unwrap();
    let shadowed = system.shadowed_file_agents().await.unwrap();
    assert_eq!(shadowed.len(), 1);
    one.rollback().await.unwrap();
}
