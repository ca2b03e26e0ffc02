//! A database that crashes.

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::{Gate, Reply};
use baton_harness::stack::Stack;
use serde_json::json;

use crate::fixture::{
    CountingTool, assert_whole, call, chat, gated, has_tool_result, model, options, run,
};

/// Guards the repeatable commit: if a turn ends while the ledger is away, the same attempt records
/// it once the ledger is back, and nothing is done twice.
#[tokio::test]
async fn a_database_crash_in_the_middle_of_a_run_costs_nothing_but_time() {
    let tool = CountingTool::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| {
        if has_tool_result(request) {
            gated(&["I ", "have "], &held, &["counted"])
        } else {
            call("Once. ", "count", &json!({}))
        }
    })
    .await;
    let mut options = options(&model);
    options.own_postgres = true;
    options.config = tool.config();
    let mut stack = Stack::start(options).await.unwrap();
    let (ingress, _scheduler, _worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("have ").await.unwrap();

    // At the turn's end the ledger is away, or is just coming back.
    gate.open();
    stack.crash_postgres().await.unwrap();
    answer.finish().await.unwrap();

    let text = "Once. I have counted";
    assert_eq!((answer.error, &*answer.text), (None, text));
    assert!(answer.done);
    assert_whole(&client, &answer.run, text).await;
    assert_eq!(tool.calls(), 1);

    model.set_script(baton_harness::scripted_model::Script::always(Reply::text(
        "on we go",
    )));
    // A request on a connection from before the crash gets the answer to retry.
    let accepted = async {
        loop {
            match client.submit(&run()).await {
                Ok(next) => return next,
                Err(error) => assert!(error.to_string().starts_with("503"), "{error:#}"),
            }
        }
    };
    let next = tokio::time::timeout(PATIENCE, accepted).await.unwrap();
    assert_whole(&client, &next, "on we go").await;
}
