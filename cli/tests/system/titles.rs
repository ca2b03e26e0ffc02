//! Titles of threads by a model.

use std::time::Duration;

use baton_harness::client::{Client, PATIENCE};
use baton_harness::scripted_model::Reply;
use serde_json::{Value, json};

use crate::fixture::{model, stack};

async fn thread(client: &Client, path: &str) -> Value {
    client.get(path).await.unwrap().json().unwrap()
}

/// Guards the whole way of a title: a run joins, another one asks, the scheduler gives the answer.
#[tokio::test]
async fn a_model_titles_a_thread_after_the_first_message() {
    let model = model(|request| match request.last_text("user") {
        Some("How do I get to Rome?") if request.body["messages"][0]["role"] == "system" => {
            Reply::text("\"By train to Rome\"")
        }
        _ => Reply::text("Take the train."),
    })
    .await;
    let stack = stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let _scheduler = stack.scheduler().await.unwrap();
    let client = stack.client(&ingress);
    let wish = json!({"title_model": "script"});
    let made = client.post("/v1/threads", &wish).await.unwrap();
    let made = made.json().unwrap();
    let path = format!("/v1/threads/{}", made["id"].as_str().unwrap());
    assert_eq!(made["title_model"], "script", "{made}");
    let wish = json!({
        "model": "script", "input": "How do I get to Rome?", "thread_id": made["id"],
    });
    let id = client.submit(&wish).await.unwrap();
    let titled = async {
        loop {
            let thread = thread(&client, &path).await;
            if !thread["title"].is_null() {
                break thread;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let titled = tokio::time::timeout(PATIENCE, titled).await.unwrap();
    assert_eq!(titled["title"], "By train to Rome");
    assert_eq!(titled["title_model"], Value::Null);
    client.ended(&id).await.unwrap();
    // The run for the title is no part of the conversation.
    let messages = thread(&client, &format!("{path}/messages")).await;
    assert_eq!(messages["data"].as_array().unwrap().len(), 2, "{messages}");
    let next = json!({"model": "script", "input": "Thanks.", "thread_id": made["id"]});
    let next = client.submit(&next).await.unwrap();
    client.ended(&next).await.unwrap();
    assert_eq!(model.requests().len(), 3, "one title is asked for");
}
