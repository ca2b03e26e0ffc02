//! A file of agents: it stops a start if it is wrong, and running roles follow it.

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::{Value, json};

use crate::fixture::{assert_whole, model, options};

const REFUSED: &str = "baton_config_reloads_total{outcome=\"refused\"}";
const IN_FORCE: &str = "baton_ingress_file_agents{state=\"in_force\"}";

#[tokio::test]
async fn a_changed_file_of_agents_is_followed_and_a_wrong_one_is_not() {
    let model = model(|_| Reply::text("yes")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agents.toml");
    let write = |text: &str| {
        // No role reads half of it.
        let unfinished = folder.path().join("unfinished");
        std::fs::write(&unfinished, text).unwrap();
        std::fs::rename(unfinished, &file).unwrap();
    };
    let path = format!("[agents]\npath = {:?}\n", file.to_str().unwrap());
    let agent = |text: &str| format!("[[agents]]\nname = \"support\"\ninstructions = \"{text}\"\n");

    write("[[agents]]\nname = \"support\"\ntemprature = 1.0\n");
    stack.configure(&path).unwrap();
    let (ok, said) = stack.output_of(&["config", "check"], &[]).await.unwrap();
    assert!(!ok, "{said}");
    for part in [
        "agents.toml:3: agent `support`",
        "`temprature`",
        "`temperature`",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(
        stack.ingress().await.is_err(),
        "a wrong file stops the start"
    );

    write(&agent("Be brief."));
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    assert_eq!(ingress.metric(IN_FORCE).await.unwrap(), 1);
    let client = stack.client(&ingress);
    let ask = json!({"agent": "support", "input": "x"});
    let id = client.submit(&ask).await.unwrap();
    assert_whole(&client, &id, "yes").await;

    // Without a signal: the file is looked at.
    write(&agent("Be polite."));
    let version = |version: u32| {
        let client = client.clone();
        let followed = async move {
            loop {
                let answer = client.get("/v1/agents/support").await.unwrap();
                let agent: Value = answer.json().unwrap();
                if agent["version"] == version {
                    return agent["instructions"].clone();
                }
            }
        };
        async { tokio::time::timeout(PATIENCE, followed).await.unwrap() }
    };
    assert_eq!(version(2).await, "Be polite.");
    write("[[agents]]\nname = \n");
    for role in [&ingress, &worker] {
        role.until_metric(REFUSED, 1).await.unwrap();
    }
    assert_eq!(version(2).await, "Be polite.");
    let id = client.submit(&ask).await.unwrap();
    assert_whole(&client, &id, "yes").await;
    write(&agent("Be kind."));
    assert_eq!(version(3).await, "Be kind.");
}
