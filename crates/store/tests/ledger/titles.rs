//! A wish for the title of a thread becomes one run, and its answer the title.

use std::time::Duration;

use baton_protocol::{RunId, ThreadId};
use baton_store::{
    Accept, EndedTitleRun, NewRun, QueueLimits, Refusal, ThreadChange, ThreadRecord,
};
use serde_json::Value;

use crate::fixture::{DONE, LONG, Ledger, ROOMY, answer, new_run, run_id, spec, tenant_id};
use crate::threads::new_thread;

/// A change that asks a model for a title.
const WISH: ThreadChange<'static> = ThreadChange {
    title: None,
    metadata: None,
    title_model: Some(Some("m")),
};

async fn change(ledger: &Ledger, thread: ThreadId, change: ThreadChange<'_>) -> ThreadRecord {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let changed = tx.change_thread(thread, &change).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    changed
}

async fn read(ledger: &Ledger, thread: ThreadId) -> (Option<String>, Option<String>) {
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    let thread = tx.thread(thread).await.unwrap().unwrap();
    (thread.title, thread.title_model)
}

/// Accepts a run that is to title a thread.
async fn ask(ledger: &Ledger, thread: ThreadId, limits: &QueueLimits) -> (RunId, Accept) {
    let (run, spec) = (run_id(), spec());
    let new = NewRun {
        titles: Some(thread),
        ..new_run(run, &spec)
    };
    (run, ledger.accept_with(&new, limits).await.unwrap())
}

async fn asked(ledger: &Ledger, thread: ThreadId) -> RunId {
    let (run, accept) = ask(ledger, thread, &ROOMY).await;
    assert!(matches!(accept, Accept::Created { .. }), "{accept:?}");
    run
}

async fn is_wanted(ledger: &Ledger, thread: ThreadId) -> bool {
    let (_, accept) = ask(ledger, thread, &ROOMY).await;
    !matches!(accept, Accept::Refused(Refusal::TitleNotWanted))
}

async fn ended(ledger: &Ledger) -> Vec<EndedTitleRun> {
    ledger.store.system().ended_title_runs(10).await.unwrap()
}

async fn end(ledger: &Ledger, run: RunId) -> EndedTitleRun {
    let fence = ledger.fence(run, LONG).await;
    let system = ledger.store.system();
    system.finish_run(&fence, &answer(&DONE)).await.unwrap();
    let mut ended = ended(ledger).await;
    assert_eq!(ended.len(), 1);
    ended.remove(0)
}

async fn doomed(ledger: &Ledger) -> Vec<RunId> {
    let system = ledger.store.system();
    let doomed = system.unstored_runs(Duration::ZERO, 10).await.unwrap();
    doomed.into_iter().map(|(_, run)| run).collect()
}

#[tokio::test]
async fn a_wish_for_a_title_is_one_run_and_its_answer_the_title() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    assert!(!is_wanted(&ledger, thread).await);
    change(&ledger, thread, WISH).await;
    let (joining, its_spec) = (run_id(), spec());
    let joining = NewRun {
        thread_id: Some(thread),
        ..new_run(joining, &its_spec)
    };
    let accept = ledger.accept_with(&joining, &ROOMY).await.unwrap();
    let Accept::Created { title_model, .. } = accept else {
        panic!("{accept:?}")
    };
    assert_eq!(title_model.as_deref(), Some("m"));

    let full = QueueLimits { tenant: 1, ..ROOMY };
    let (_, refused) = ask(&ledger, thread, &full).await;
    assert!(
        matches!(
            refused,
            Accept::Refused(Refusal::TenantQueueFull { limit: 1 })
        ),
        "{refused:?}"
    );
    assert_eq!(
        read(&ledger, thread).await,
        (None, Some("m".into())),
        "a refused run leaves the wish"
    );
    let run = asked(&ledger, thread).await;
    assert_eq!(read(&ledger, thread).await, (None, None));
    assert!(!is_wanted(&ledger, thread).await, "another run asks");
    assert_eq!(ended(&ledger).await.len(), 0, "it has not ended");

    let over = end(&ledger, run).await;
    assert_eq!((over.tenant, over.run), (ledger.tenant, run));
    assert_eq!(over.thread, thread);
    let message = over.message.as_deref().unwrap();
    let message: Value = serde_json::from_str(message.get()).unwrap();
    assert_eq!(message["content"], "42");
    assert_eq!(doomed(&ledger).await, [], "its answer is still to be used");
    let system = ledger.store.system();
    assert!(system.give_title(&over, Some("Six\0")).await.unwrap());
    assert!(!system.give_title(&over, Some("Seven")).await.unwrap());
    assert_eq!(
        read(&ledger, thread).await,
        (Some("Six\u{fffd}".into()), None)
    );
    assert_eq!(ended(&ledger).await.len(), 0);
    assert_eq!(doomed(&ledger).await, [run]);
}

#[tokio::test]
async fn a_title_that_a_person_gave_is_not_replaced() {
    let ledger = Ledger::new().await;
    let thread = new_thread(&ledger).await;
    let title = |title| ThreadChange {
        title: Some(Some(title)),
        ..ThreadChange::default()
    };
    change(&ledger, thread, WISH).await;
    let changed = change(&ledger, thread, title("Mine")).await;
    assert_eq!(changed.title_model, None, "it ends the wish");
    let cleared = ThreadChange {
        title: Some(None),
        ..WISH
    };
    change(&ledger, thread, cleared).await;
    let run = asked(&ledger, thread).await;
    change(&ledger, thread, title("Mine again")).await;
    let over = end(&ledger, run).await;
    let system = ledger.store.system();
    assert!(!system.give_title(&over, Some("The model's")).await.unwrap());
    assert_eq!(
        read(&ledger, thread).await,
        (Some("Mine again".into()), None)
    );
    assert_eq!(doomed(&ledger).await, [run], "its answer was used up");
}

#[tokio::test]
async fn no_title_run_is_for_a_thread_that_is_deleted_or_of_another_tenant() {
    let ledger = Ledger::new().await;
    let (thread, deleted) = (new_thread(&ledger).await, new_thread(&ledger).await);
    change(&ledger, thread, WISH).await;
    change(&ledger, deleted, WISH).await;
    let run = asked(&ledger, deleted).await;
    let mut tx = ledger.store.tenant(ledger.tenant).await.unwrap();
    tx.delete_thread(deleted).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!is_wanted(&ledger, deleted).await);
    let over = end(&ledger, run).await;
    let system = ledger.store.system();
    assert!(!system.give_title(&over, Some("Late")).await.unwrap());

    let other = system.ensure_tenant(tenant_id(), "other").await.unwrap().id;
    let (run, spec) = (run_id(), spec());
    let foreign = NewRun {
        titles: Some(thread),
        ..new_run(run, &spec)
    };
    let accept = ledger.store.accept_run(other, &foreign, &ROOMY).await;
    assert!(
        matches!(accept, Ok(Accept::Refused(Refusal::TitleNotWanted))),
        "{accept:?}"
    );
    assert_eq!(read(&ledger, thread).await, (None, Some("m".into())));
}
