//! A copy of the database is restored next to an empty broker, as `docs/deploy.md` describes it.

use std::path::Path;

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use tokio::process::Command;

use crate::fixture::{assert_whole, model, options, run};

/// Runs one of PostgreSQL's own programs as the superuser.
async fn postgres(stack: &mut Stack, program: &str, arguments: &[&str]) {
    let postgres = stack.own_postgres().unwrap();
    let output = Command::new(postgres.binaries().bin.join(program))
        .args(arguments)
        .env_clear()
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", postgres.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", postgres.superuser_password())
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
}

async fn back_up(stack: &mut Stack, dump: &Path) {
    let file = dump.display().to_string();
    postgres(
        stack,
        "pg_dump",
        &["--format=custom", "--file", &file, "baton"],
    )
    .await;
}

/// Replaces the database by the copy. The two users and the group roles are the server's, and stay.
async fn restore(stack: &mut Stack, dump: &Path) {
    let file = dump.display().to_string();
    postgres(stack, "dropdb", &["--force", "baton"]).await;
    postgres(stack, "createdb", &["--owner=baton_owner", "baton"]).await;
    let restoring = ["--exit-on-error", "--dbname=baton", &file];
    postgres(stack, "pg_restore", &restoring).await;
}

/// Guards everything that an accepted run needs: it is in the copy, and nothing of it only at the
/// broker.
#[tokio::test]
async fn a_restored_database_and_an_empty_broker_lose_no_run_of_the_copy() {
    let model = model(|_| Reply::text("from the copy")).await;
    let mut options = options(&model);
    options.own_postgres = true;
    let mut stack = Stack::start(options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("baton.dump");

    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let ended = client.submit(&run()).await.unwrap();
    let (before, _) = assert_whole(&client, &ended, "from the copy").await;
    worker.kill().await;
    let queued = client.submit(&run()).await.unwrap();
    back_up(&mut stack, &dump).await;
    let after_the_copy = client.submit(&run()).await.unwrap();
    ingress.kill().await;

    restore(&mut stack, &dump).await;
    stack.wipe_broker().await.unwrap();
    stack.run(&["migrate"]).await.unwrap();
    let (ingress, _worker, _scheduler) =
        tokio::try_join!(stack.ingress(), stack.worker(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let (after, _) = assert_whole(&client, &ended, "from the copy").await;
    assert_eq!(after, before);
    assert_whole(&client, &queued, "from the copy").await;
    let lost = client.get(&format!("/v1/runs/{after_the_copy}")).await;
    assert_eq!(lost.unwrap().status, 404, "the copy is older");
    let next = client.submit(&run()).await.unwrap();
    assert_whole(&client, &next, "from the copy").await;
}
