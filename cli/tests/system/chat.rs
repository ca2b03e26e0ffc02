//! A chat without any fault.

use std::time::Duration;

use baton_harness::scripted_model::{Piece, Reply};
use serde_json::json;

use crate::fixture::{
    assert_whole, call, chat, count, has_tool_result, model, options, run, stack,
};
use baton_harness::stack::Stack;

#[tokio::test]
async fn a_chat_streams_through_all_roles_and_calls_a_tool() {
    let model = model(|request| {
        if !has_tool_result(request) {
            let arguments = json!({"expression": "15% of 847"});
            return call("Let me see. ", "calculator", &arguments);
        }
        let result = request.last_text("tool").unwrap_or_default();
        Reply::text(&format!("It is {result}, naïve 日本."))
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, _worker, _scheduler) = (
        stack.ingress().await.unwrap(),
        stack.worker().await.unwrap(),
        stack.scheduler().await.unwrap(),
    );
    let client = stack.client(&ingress);

    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();

    assert_eq!(answer.error, None);
    assert!(answer.done);
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
    let text = "Let me see. It is 127.05, naïve 日本.";
    assert_eq!(answer.text, text);
    let (run, events) = assert_whole(&client, &answer.run, text).await;
    assert_eq!(run["attempt"], 1);
    assert_eq!(
        run["steps"].as_array().unwrap().len(),
        3,
        "a turn, a call, a turn"
    );
    assert_eq!(count(&events, "tool.finished"), 1);
    assert!(
        run["usage"]["total_tokens"].as_u64().unwrap() > 14,
        "of both turns: {run:#}"
    );
}

/// Guards the cursor: ids are the same on every ingress, and a catch-up begins at the cursor itself.
#[tokio::test]
async fn events_from_any_cursor_are_the_rest_of_the_list_on_every_ingress() {
    let model = model(|request| {
        if has_tool_result(request) {
            Reply::tokens(12)
        } else {
            call("Well. ", "calculator", &json!({"expression": "1+1"}))
        }
    })
    .await;
    let stack = stack(&model).await;
    let (one, other) = tokio::try_join!(stack.ingress(), stack.ingress()).unwrap();
    let _worker = stack.worker().await.unwrap();
    let (one, other) = (stack.client(&one), stack.client(&other));
    let id = one.submit(&run()).await.unwrap();
    one.ended(&id).await.unwrap();

    let all = one.all_events(&id).await.unwrap();
    baton_harness::client::check_log(&all).unwrap();
    assert!(all.len() > 5, "{all:#?}");
    for (at, event) in all.iter().enumerate() {
        for client in [&one, &other] {
            let stream = client.events(&id, Some(event.id)).await.unwrap();
            assert_eq!(
                stream.no_more,
                at + 1 == all.len(),
                "only behind the last there is no more"
            );
            assert_eq!(stream.rest().await.unwrap(), all[at + 1..]);
        }
    }
    let gone = other
        .events(&id, Some(all[1].id + 1_000))
        .await
        .unwrap_err();
    assert!(gone.to_string().contains("cursor_unknown"), "{gone:#}");
}

/// Guards the commit order: no part of a run that fails half-way is recorded as an answer.
#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failed_run_and_never_a_short_answer() {
    let model = model(|_| Reply::tokens(3).cut()).await;
    let stack = Stack::start(options(&model).set("BATON_LLM__MAX_RETRIES", "0"))
        .await
        .unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);

    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();

    let error = answer.error.unwrap();
    assert!(
        error["message"].as_str().unwrap().contains(&answer.run),
        "{error}"
    );
    assert!(!answer.done && answer.finish_reason.is_none());
    let (run, events) = crate::fixture::assert_ended(&client, &answer.run, "failed").await;
    crate::fixture::assert_cut(&run, &events, "t0 t1 t2 ");
}

/// Guards the limit of a run's log: beyond it the oldest events would be dropped, so that the run
/// ends itself below it, with its text so far.
#[tokio::test]
async fn a_run_with_as_many_events_as_one_may_have_ends_at_its_length() {
    // Each token is stored before the next one is written.
    let pieces = (0..500).flat_map(|n| {
        let token = Piece::Text(format!("t{n} "));
        [token, Piece::Pause(Duration::from_millis(15))]
    });
    let reply = Reply::pieces(pieces).ended("stop");
    let model = model(move |_| reply.clone()).await;
    let options = options(&model).set("BATON_NATS__EVENTS_PER_RUN", "100");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);

    let mut answer = client.chat(&chat()).await.unwrap();
    answer.finish().await.unwrap();

    assert_eq!(
        (answer.error, answer.finish_reason.as_deref()),
        (None, Some("length"))
    );
    assert!(answer.done);
    model.wait_until(|counts| counts.disconnected == 1).await;
    let (run, events) = assert_whole(&client, &answer.run, &answer.text).await;
    assert_eq!(run["finish_reason"], "length");
    assert_eq!(run["usage"]["estimated"], true);
    assert_eq!(events[0].kind, "run.started", "none has given way");
}
