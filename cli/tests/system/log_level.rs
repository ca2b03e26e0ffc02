//! The log filter of running roles is changed over NATS.

use std::time::Duration;

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Role;
use serde_json::Value;

use crate::fixture::{model, stack};

async fn filter(role: &Role) -> Value {
    let answer = role.admin().get("/log-level").await.unwrap();
    answer.json().unwrap()
}

/// Guards `baton log-level`: under the delivered permissions it reaches every process, says so for each, and
/// ends by itself.
#[tokio::test]
async fn an_operator_changes_the_log_filter_of_all_roles_for_a_time_or_of_one() {
    let model = model(|_| Reply::text("as always")).await;
    let stack = stack(&model).await;
    let nobody = stack.output_of(&["log-level", "debug"], &[]).await.unwrap();
    assert!(
        !nobody.0 && nobody.1.contains("no role answered"),
        "{nobody:?}"
    );

    let (ingress, scheduler, worker, other) = tokio::try_join!(
        stack.ingress(),
        stack.scheduler(),
        stack.worker(),
        stack.worker()
    )
    .unwrap();
    let before = filter(&worker).await;
    let said = stack.run(&["log-level", "baton=debug", "--role", "worker"]);
    let said = said.await.unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(
        said.lines().all(|line| line.starts_with("worker")),
        "{said}"
    );
    for worker in [&worker, &other] {
        assert_eq!(filter(worker).await["filter"], "baton=debug");
    }
    assert_eq!(filter(&ingress).await, before);
    stack
        .run(&[
            "log-level",
            before["filter"].as_str().unwrap(),
            "--role",
            "worker",
        ])
        .await
        .unwrap();

    let said = stack.run(&["log-level", "baton=trace", "--for", "30s"]);
    let said = said.await.unwrap();
    assert_eq!(said.lines().count(), 4, "{said}");
    let all = [&ingress, &scheduler, &worker, &other];
    for role in all {
        let now = filter(role).await;
        assert_eq!(now["filter"], "baton=trace");
        assert!(now["for"].is_string(), "{now}");
    }
    // A shorter time replaces the longer one.
    stack
        .run(&["log-level", "baton=trace", "--for", "1s"])
        .await
        .unwrap();
    let ended = async {
        for role in all {
            while filter(role).await != before {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();

    for (arguments, named) in [
        (&["log-level", "info,=="][..], "is not a log filter"),
        (&["log-level", "info", "--for", "3d"], "from 1s to 24h"),
        (&["log-level", "info", "--role", "cook"], "ingress"),
    ] {
        let (ok, text) = stack.output_of(arguments, &[]).await.unwrap();
        assert!(!ok && text.contains(named), "{arguments:?}: {text}");
    }
}
