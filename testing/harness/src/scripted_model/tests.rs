use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn ask(model: &ScriptedModel, name: &str, stream: bool) -> reqwest::RequestBuilder {
    let body = json!({
        "model": name, "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "2+3"}],
        "tools": [{"type": "function", "function": {"name": "lookup"}}],
    });
    plain_http()
        .post(format!("{}/chat/completions", model.base_url()))
        .header("content-type", "application/json")
        .body(body.to_string())
}

fn plain_http() -> reqwest::Client {
    // Another test of the same process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn text(model: &ScriptedModel, name: &str) -> String {
    ask(model, name, true)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

#[tokio::test]
async fn an_answer_streams_and_is_recorded() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    let stream = text(&model, "tokens-3").await;
    let data: Vec<_> = stream.split_terminator("\n\n").collect();
    assert_eq!(
        data.len(),
        7,
        "role, three tokens, finish, usage, end: {stream}"
    );
    assert!(data[0].contains("\"role\":\"assistant\""), "{stream}");
    assert_eq!(data[6], "data: [DONE]");
    assert_eq!(model.requests()[0].body["messages"][0]["content"], "2+3");
    let counts = model.wait_until(|counts| counts.finished == 1).await;
    assert_eq!(
        (counts.requests, counts.open, counts.disconnected),
        (1, 0, 0)
    );
    model.stop().await;
}

#[tokio::test]
async fn an_answer_comes_whole_if_no_stream_is_asked_for() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    let whole = ask(&model, "first-tool", false)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        whole["choices"][0]["message"]["tool_calls"][0]["function"],
        json!({"name": "lookup", "arguments": "{}"}),
    );
    assert_eq!(whole["usage"]["prompt_tokens"], 7);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_wherever_the_answer_hangs() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    let mut response = ask(&model, "hang-after-2", true).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(model.counts().open, 1);
    drop(response);
    model
        .wait_until(|counts| counts.disconnected == 1 && counts.open == 0)
        .await;
    let gave_up = ask(&model, "hang", true)
        .timeout(Duration::from_millis(50))
        .send()
        .await;
    assert!(gave_up.is_err());
    model
        .wait_until(|counts| counts.disconnected == 2 && counts.open == 0)
        .await;
}

#[tokio::test]
async fn a_cut_breaks_the_body_after_what_was_scripted() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    let mut response = ask(&model, "cut-after-2", true).send().await.unwrap();
    let mut read = Vec::new();
    let end = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            other => break other,
        }
    };
    assert!(end.is_err(), "the body does not end, it breaks");
    let read = String::from_utf8(read).unwrap();
    assert!(
        read.contains("t1 ") && !read.contains("finish_reason\":\"stop"),
        "{read}"
    );
    assert_eq!(
        model
            .wait_until(|counts| counts.finished == 1)
            .await
            .disconnected,
        0
    );
}

#[tokio::test]
async fn limits_pass_after_their_number_and_scripts_can_be_changed() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    for status in [429, 429, 200] {
        let response = ask(&model, "limited-2", true).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
    model.set_script(Script::sequence([
        Reply::status(500).header("retry-after", "3")
    ]));
    let response = ask(&model, "x", true).send().await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"]
        ),
        (500, &"3".parse().unwrap())
    );
}

#[tokio::test]
async fn bytes_come_in_the_pieces_that_were_asked_for() {
    let model = ScriptedModel::start(Script::by_model()).await.unwrap();
    let split = text(&model, "split-3").await;
    let whole = piece::render(&Reply::text("naïve 🦀 süß — 漢字 ").pieces, "split");
    assert_eq!(split.as_bytes(), &whole[..]);
}
