//! Servers with a full disk, which then gets room again. A server that must be restarted then is
//! restarted as a supervisor would do it, by the server's own health.

use std::sync::LazyLock;
use std::time::Duration;

use baton_harness::client::{Client, PATIENCE};
use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::small_disk::SmallDisk;
use baton_harness::stack::{Role, Stack, StackOptions};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{assert_whole, gated, model, options, run};

/// A text larger than the free space in the last pages of any file, and not compressible.
static LONG: LazyLock<String> =
    LazyLock::new(|| (0..2_000).map(|_| Uuid::new_v4().to_string()).collect());

/// Guards the append that is repeated while there is no room (the worker keeps its text, and does
/// not ask the model again), and the job that is published again.
#[test]
fn a_broker_whose_disk_is_full_loses_no_accepted_run_and_pays_for_none_twice() {
    SmallDisk::run(
        "disk_full::a_broker_whose_disk_is_full_loses_no_accepted_run_and_pays_for_none_twice",
        32,
        async |disk| {
            let gate = Gate::closed();
            let held = gate.clone();
            let model = model(move |request| match request.index {
                0 => gated(&["caught ", "in it, "], &held, &[&LONG, "out again"]),
                _ => Reply::text("waited"),
            })
            .await;
            // A lost job is published again after the length of a lease.
            let mut options = one_slot(options(&model))
                .set("BATON_WORKER__LEASE", "6s")
                .set("BATON_WORKER__RENEW_EVERY", "1s");
            options.broker_folder = Some(disk.folder_for("broker").unwrap());
            let mut stack = Stack::start(options).await.unwrap();
            let (ingress, scheduler, worker) =
                tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
            let client = stack.client(&ingress);
            let caught = client.submit(&run()).await.unwrap();
            model.wait_until(|counts| counts.requests == 1).await;

            disk.fill().unwrap();
            // More jobs than fit into the last page of the queue's file. The broker does not answer
            // when it cannot write: each submission waits for it until a timeout, and is accepted.
            let body = run();
            let submissions = (0..60).map(|_| client.submit(&body));
            let accepted = try_join_all(submissions).await.unwrap();
            assert_ne!(unpublished(&ingress).await, 0, "the queue has no room");
            gate.open();
            until(async || {
                !stack.nats.is_healthy().await && log_of(&stack).contains(EVENTS_REFUSED)
            })
            .await;
            let shown = client.run(&caught).await.unwrap();
            assert_eq!(shown["status"], "running", "nobody can be told of its end");

            disk.make_room().unwrap();
            stack.nats.restart().await.unwrap();

            let (recorded, _) = assert_whole(
                &client,
                &caught,
                &format!("caught in it, {}out again", *LONG),
            )
            .await;
            assert_eq!(recorded["attempt"], 1, "its worker kept it");
            for id in &accepted {
                assert_whole(&client, id, "waited").await;
            }
            let next = client.submit(&run()).await.unwrap();
            assert_whole(&client, &next, "waited").await;
            let asked = model.counts().requests;
            assert_eq!(asked, accepted.len() + 2, "no turn was asked for twice");
            assert_lived(&stack, &[&ingress, &scheduler, &worker]).await;
        },
    );
}

/// Guards the commit that is repeated while the ledger has no room (the worker keeps its text, and
/// does not ask the model again), and the refusal of runs that cannot be written.
#[test]
fn a_database_whose_disk_is_full_refuses_runs_and_loses_none_that_it_took() {
    SmallDisk::run(
        "disk_full::a_database_whose_disk_is_full_refuses_runs_and_loses_none_that_it_took",
        192,
        async |disk| {
            let gate = Gate::closed();
            let held = gate.clone();
            let model = model(move |request| match request.index {
                0 => gated(&["caught ", "in it, "], &held, &[&LONG, "out again"]),
                _ => Reply::text("waited"),
            })
            .await;
            let mut options = one_slot(options(&model)).long_lease();
            options.own_postgres = true;
            options.database_folder = Some(disk.folder_for("database").unwrap());
            let mut stack = Stack::start(options).await.unwrap();
            let (ingress, scheduler, worker) =
                tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
            let client = stack.client(&ingress);
            let caught = client.submit(&run()).await.unwrap();
            model.wait_until(|counts| counts.requests == 1).await;
            let mut accepted = vec![client.submit(&run()).await.unwrap()];

            disk.fill().unwrap();
            // First fill the pages that have room, until a table must grow.
            accepted.extend(submit_until_refused(&client, &long()).await);
            gate.open();
            until(async || stack.logged().unwrap().contains(COMMIT_REFUSED)).await;
            // Then fill these pages too.
            while stack.close_log_segment().await.unwrap() {
                accepted.extend(client.submit(&run()).await.ok());
            }
            accepted.extend(submit_until_refused(&client, &run()).await);

            disk.make_room().unwrap();
            until(async || {
                // PostgreSQL recovers by itself, or has ended for lack of room.
                let postgres = stack.own_postgres().unwrap();
                if !postgres.is_running() {
                    postgres.restart().await.unwrap();
                }
                let next = client.submit(&run()).await.ok();
                accepted.extend(next.clone());
                next.is_some()
            })
            .await;

            let text = format!("caught in it, {}out again", *LONG);
            let (recorded, _) = assert_whole(&client, &caught, &text).await;
            assert_eq!(recorded["attempt"], 1, "its worker kept it");
            for id in &accepted {
                let (recorded, _) = assert_whole(&client, id, "waited").await;
                assert_eq!(recorded["attempt"], 1);
            }
            assert_lived(&stack, &[&ingress, &scheduler, &worker]).await;
        },
    );
}

/// Submits until the answer is to retry later; returns the runs that were accepted before.
async fn submit_until_refused(client: &Client, body: &Value) -> Vec<String> {
    let mut accepted = Vec::new();
    loop {
        let answer = client.post("/v1/runs", body).await.unwrap();
        let told = answer.json().unwrap();
        if answer.status == 202 {
            accepted.push(told["id"].as_str().unwrap().to_owned());
            continue;
        }
        assert_eq!(answer.status, 503, "{told}");
        assert_eq!(told["code"], "ledger_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
        return accepted;
    }
}

/// Returns a run with a row that needs more room than there is.
fn long() -> Value {
    json!({"model": "script", "input": *LONG})
}

/// A worker's log message after a commit that the ledger refused.
const COMMIT_REFUSED: &str = "the ledger did not take a commit yet";
/// The broker's log message after an event that it did not store.
const EVENTS_REFUSED: &str = "failed to store a msg on stream 'BATON > EVENTS'";

fn log_of(stack: &Stack) -> String {
    std::fs::read_to_string(stack.nats.log()).unwrap()
}

fn one_slot(options: StackOptions) -> StackOptions {
    options
        .set("BATON_WORKER__SLOTS", "1")
        .set("BATON_WORKER__INTERACTIVE_SLOTS", "0")
}

/// Returns the number of accepted runs with a job that the broker may not have.
async fn unpublished(ingress: &Role) -> u64 {
    let metrics = ingress.metrics().await.unwrap();
    let published = |outcome| {
        let series = format!("baton_ingress_jobs_published_total{{outcome=\"{outcome}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse::<u64>().unwrap()
    };
    published("unknown") + published("failed")
}

async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

/// Checks that the roles are still the processes that were started, and that none of them panicked.
async fn assert_lived(stack: &Stack, roles: &[&Role]) {
    for role in roles {
        role.metrics().await.unwrap();
    }
    assert!(!stack.logged().unwrap().contains("panicked"));
}
