//! Running roles reload a changed configuration.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;

use crate::fixture::{CountingTool, assert_whole, model, options, run};

const TAKEN: &str = "baton_config_reloads_total{outcome=\"taken\"}";
const REFUSED: &str = "baton_config_reloads_total{outcome=\"refused\"}";

/// Guards SIGHUP, which ended every role before: limits and tools change under load, and a
/// configuration with mistakes changes nothing.
#[tokio::test]
async fn running_roles_take_changed_limits_and_tools_and_refuse_mistakes() {
    let model = model(|_| Reply::text("goes on")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let (ingress, scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    assert_whole(&client, &id, "goes on").await;

    // The name of a built-in tool: a mistake that the file alone does not show.
    let tool = CountingTool::start().await;
    let wrong = tool.config().replace("\"count\"", "\"calculator\"");
    stack.configure(&wrong).unwrap();
    for role in [&ingress, &scheduler, &worker] {
        role.hang_up();
        role.until_metric(REFUSED, 1).await.unwrap();
        assert_eq!(role.metric(TAKEN).await.unwrap(), 0);
    }

    let changed = format!("[limits]\nper_key_per_minute = 100000\n{}", tool.config());
    stack.configure(&changed).unwrap();
    for role in [&ingress, &scheduler, &worker] {
        role.hang_up();
        role.until_metric(TAKEN, 1).await.unwrap();
    }
    // The rules are replaced a moment after the reload was counted.
    let offered = async {
        loop {
            let id = client.submit(&run()).await.unwrap();
            assert_whole(&client, &id, "goes on").await;
            let requests = model.requests();
            let tools = requests.last().unwrap().body["tools"].to_string();
            if tools.contains("\"count\"") {
                return;
            }
        }
    };
    tokio::time::timeout(baton_harness::client::PATIENCE, offered)
        .await
        .unwrap();

    stack
        .configure(&format!(
            "[limits]\nper_key_per_minute = 1\n{}",
            tool.config()
        ))
        .unwrap();
    ingress.hang_up();
    ingress.until_metric(TAKEN, 2).await.unwrap();
    let refused = async { while client.post("/v1/runs", &run()).await.unwrap().status != 429 {} };
    tokio::time::timeout(baton_harness::client::PATIENCE, refused)
        .await
        .unwrap();
}
