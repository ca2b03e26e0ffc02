//! Tests the client against an upstream that misbehaves on purpose, over real sockets.

use std::time::Duration;

use baton_harness::scripted_model::{Piece, Reply, Script, ScriptedModel};
use baton_openai::{ErrorObject, ToolCall};
use baton_protocol::{FinishReason, Usage};
use baton_routing::Needs;
use baton_service::Secret;
use bytes::Bytes;
use serde_json::json;

use super::*;

const QUICK: RetryPolicy = RetryPolicy {
    max_retries: 2,
    base: Duration::from_millis(1),
    cap: Duration::from_millis(20),
};

async fn upstream(script: Script) -> (ScriptedModel, ModelConfig) {
    let upstream = ScriptedModel::start(script).await.unwrap();
    let config = ModelConfig {
        retry: QUICK,
        ..ModelConfig::new(upstream.base_url())
    };
    (upstream, config)
}

fn request() -> Bytes {
    json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}],
    })
    .to_string()
    .into()
}

async fn start(config: ModelConfig) -> Result<TurnStream, ModelError> {
    ask(&Upstreams::one(config).unwrap(), TurnContext::default()).await
}

async fn ask(models: &Upstreams, context: TurnContext) -> Result<TurnStream, ModelError> {
    let targets = models.targets("m", &[], Needs::default())?;
    let started = models.start_turn(&targets, |_| request(), context).await;
    started.map(|started| started.stream)
}

/// Returns the text that was shown, and the end of the turn.
async fn turn(config: ModelConfig) -> (String, Result<FinishedTurn, ModelError>) {
    let mut shown = String::new();
    let mut stream = match start(config).await {
        Ok(stream) => stream,
        Err(error) => return (shown, Err(error)),
    };
    loop {
        match stream.next_batch().await {
            Ok(Some(deltas)) => {
                for delta in deltas {
                    if let Delta::Text(text) = delta {
                        shown.push_str(&text);
                    }
                }
            }
            Ok(None) => return (shown, stream.finish()),
            Err(error) => return (shown, Err(error)),
        }
    }
}

fn code(result: Result<FinishedTurn, ModelError>) -> &'static str {
    result.expect_err("the turn fails").code()
}

#[tokio::test]
async fn an_answer_is_shown_as_it_comes_and_finished_whole() {
    let (upstream, config) = upstream(Script::always(Reply::tokens(20))).await;
    let (shown, finished) = turn(config).await;
    let finished = finished.unwrap();
    let tokens: Vec<_> = (0..20).map(|i| format!("t{i} ")).collect();
    let text = tokens.concat();
    assert_eq!(shown, text);
    assert_eq!(finished.finish_reason, FinishReason::Stop);
    let usage = Usage {
        prompt_tokens: 7,
        completion_tokens: 20,
        total_tokens: 27,
        estimated: false,
    };
    assert_eq!(finished.usage, usage);
    let message: serde_json::Value = serde_json::from_str(finished.message.get()).unwrap();
    assert_eq!(message, json!({"role": "assistant", "content": text}));
    assert_eq!(upstream.requests()[0].body["model"], "m");
}

#[tokio::test]
async fn bytes_cut_anywhere_make_the_same_answer() {
    let text = "naïve 🦀 süß — 漢字";
    let (_upstream, config) = upstream(Script::always(Reply::text(text).in_pieces_of(3))).await;
    let (shown, finished) = turn(config).await;
    assert_eq!(shown, text);
    assert_eq!(finished.unwrap().finish_reason, FinishReason::Stop);
}

#[tokio::test]
async fn tool_calls_are_put_together() {
    let call = ToolCall::function("call_7", "calculator", r#"{"expression":"15% of 847"}"#);
    let (_upstream, config) = upstream(Script::always(Reply::tool_calls([call]))).await;
    let finished = turn(config).await.1.unwrap();
    assert_eq!(finished.finish_reason, FinishReason::ToolCalls);
    assert_eq!(
        finished.tool_calls,
        [CalledTool {
            id: "call_7".to_owned(),
            name: "calculator".to_owned(),
            arguments: r#"{"expression":"15% of 847"}"#.to_owned(),
        }],
    );
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_tried_again() {
    let (upstream, config) = upstream(Script::sequence([
        Reply::status(429).header("retry-after", "0"),
        Reply::tokens(0).cut(),
        Reply::text("third time lucky"),
    ]))
    .await;
    let (shown, finished) = turn(config).await;
    finished.unwrap();
    assert_eq!(shown, "third time lucky");
    assert_eq!(upstream.counts().requests, 3);
}

#[tokio::test]
async fn tries_end_with_the_last_error() {
    for (status, code) in [(503, "upstream_error"), (429, "upstream_rate_limited")] {
        let (upstream, config) = upstream(Script::always(Reply::status(status))).await;
        assert_eq!(turn(config).await.1.unwrap_err().code(), code);
        assert_eq!(upstream.counts().requests, 3, "once and two retries");
    }
}

#[tokio::test]
async fn what_cannot_succeed_is_asked_once() {
    let quota = json!({"error": {"message": "pay", "type": "insufficient_quota",
        "param": null, "code": "insufficient_quota"}})
    .to_string();
    for (reply, code) in [
        (Reply::status(400), "upstream_rejected"),
        (Reply::status(401), "upstream_unauthorized"),
        (Reply::status(404).body("not even JSON"), "model_not_found"),
        (Reply::status(429).body(quota), "upstream_rate_limited"),
        (
            Reply::status(302).header("location", "/v1/models"),
            "upstream_error",
        ),
        (Reply::bad_json_after(0), "upstream_invalid"),
    ] {
        let (upstream, config) = upstream(Script::always(reply)).await;
        assert_eq!(turn(config).await.1.unwrap_err().code(), code);
        assert_eq!(upstream.counts().requests, 1, "{code}");
    }
}

#[tokio::test]
async fn after_the_first_token_every_failure_fails_the_turn() {
    let overloaded = ErrorObject::new("server_error", "overloaded", "too busy");
    for (reply, expected) in [
        (Reply::tokens(3).cut(), "upstream_cut"),
        (Reply::tokens(3).unended(), "upstream_cut"),
        (Reply::tokens(3).unended().then(Piece::Done), "upstream_cut"),
        (
            Reply::tokens(3)
                .unended()
                .then(Piece::Raw(Bytes::from_static(b"data: {\"cho"))),
            "upstream_cut",
        ),
        (Reply::bad_json_after(3), "upstream_invalid"),
        (Reply::error_after(3, overloaded), "upstream_error"),
    ] {
        let (upstream, config) = upstream(Script::always(reply.clone())).await;
        let (shown, finished) = turn(config).await;
        assert_eq!(
            (shown.as_str(), code(finished)),
            ("t0 t1 t2 ", expected),
            "{reply:?}"
        );
        assert_eq!(upstream.counts().requests, 1);
    }
}

#[tokio::test]
async fn an_answer_that_lacks_only_its_end_marker_is_whole() {
    let mut whole = Reply::text("all said").unended();
    whole = whole.then(Piece::Finish("stop".to_owned()));
    for reply in [
        whole.clone(),
        whole.clone().then(Piece::Cut),
        whole.then(Piece::Raw(Bytes::from_static(b"data: [DONE]"))),
    ] {
        let (_upstream, config) = upstream(Script::always(reply.clone())).await;
        let (shown, finished) = turn(config).await;
        assert_eq!(shown, "all said", "{reply:?}");
        assert_eq!(finished.unwrap().usage, Usage::default(), "none was told");
    }
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_refused() {
    let (_upstream, config) = upstream(Script::always(Reply::long_line(10_000_000))).await;
    assert_eq!(code(turn(config).await.1), "upstream_too_long");
}

#[tokio::test]
async fn an_answer_beyond_its_limit_is_refused() {
    let (_upstream, config) = upstream(Script::always(Reply::tokens(100))).await;
    let config = ModelConfig {
        max_answer: 50,
        ..config
    };
    let (shown, finished) = turn(config).await;
    assert!(shown.len() <= 50);
    assert_eq!(code(finished), "upstream_too_long");
}

#[tokio::test]
async fn each_wait_has_its_limit_and_the_upstream_is_let_go() {
    let short = Duration::from_millis(60);
    let long = Duration::from_secs(30);
    let all_long = Timeouts {
        connect: long,
        first_byte: long,
        idle: long,
        total: long,
    };
    for (reply, timeouts, waited) in [
        (
            Reply::hang_before_headers(),
            Timeouts {
                first_byte: short,
                ..all_long
            },
            Wait::FirstByte,
        ),
        (
            Reply::pieces([Piece::Hang]),
            Timeouts {
                first_byte: short,
                ..all_long
            },
            Wait::FirstByte,
        ),
        (
            Reply::tokens(2).hang(),
            Timeouts {
                idle: short,
                ..all_long
            },
            Wait::NextByte,
        ),
        (
            Reply::tokens(1_000).each_after(Duration::from_millis(5)),
            Timeouts {
                total: short,
                ..all_long
            },
            Wait::WholeAnswer,
        ),
    ] {
        let (upstream, config) = upstream(Script::always(reply)).await;
        let retry = RetryPolicy {
            max_retries: 0,
            ..QUICK
        };
        let error = turn(ModelConfig {
            timeouts,
            retry,
            ..config
        })
        .await
        .1
        .unwrap_err();
        assert!(
            matches!(error, ModelError::TimedOut(wait) if wait == waited),
            "{error:?}"
        );
        upstream
            .wait_until(|counts| counts.disconnected == 1 && counts.open == 0)
            .await;
    }
}

#[tokio::test]
async fn a_dropped_stream_and_a_dropped_start_close_the_connection() {
    let (upstream, config) = upstream(Script::always(Reply::tokens(2).hang())).await;
    let stream = start(config.clone()).await.unwrap();
    assert_eq!(upstream.counts().open, 1);
    drop(stream);
    upstream
        .wait_until(|counts| counts.disconnected == 1 && counts.open == 0)
        .await;

    upstream.set_script(Script::always(Reply::hang_before_headers()));
    let mut starting = Box::pin(start(config));
    tokio::select! {
        _ = &mut starting => panic!("it hangs"),
        _ = upstream.wait_until(|counts| counts.open == 1) => {}
    }
    drop(starting);
    upstream
        .wait_until(|counts| counts.disconnected == 2 && counts.open == 0)
        .await;
}

#[tokio::test]
async fn a_batch_that_is_waited_for_in_a_select_is_never_lost() {
    let reply = Reply::tokens(50).each_after(Duration::from_millis(1));
    let (_upstream, config) = upstream(Script::always(reply)).await;
    let mut stream = start(config).await.unwrap();
    let mut tokens = 0;
    let mut interruptions = 0;
    loop {
        tokio::select! {
            batch = stream.next_batch() => match batch.unwrap() {
                Some(deltas) => tokens += deltas.iter().filter(|delta| matches!(delta, Delta::Text(_))).count(),
                None => break,
            },
            () = tokio::task::yield_now() => interruptions += 1,
        }
    }
    assert_eq!(tokens, 50);
    assert!(interruptions > 0, "the wait was interrupted");
    stream.finish().unwrap();
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unreachable() {
    let (upstream, config) = upstream(Script::by_model()).await;
    upstream.stop().await;
    let error = turn(config).await.1.unwrap_err();
    assert_eq!(error.code(), "upstream_unreachable");
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn the_key_and_the_ids_are_sent_and_the_key_is_never_quoted() {
    let (upstream, config) = upstream(Script::new(|request| {
        let key = request.headers["authorization"].to_str().unwrap();
        Reply::status(400)
            .body(json!({"error": {"message": format!("you sent {key}")}}).to_string())
    }))
    .await;
    let config = ModelConfig {
        api_key: Some(Secret::new("sk-secret".to_owned())),
        ..config
    };
    let context = TurnContext {
        request_id: Some("req-1".to_owned()),
        traceparent: Some("00-trace".to_owned()),
        only_free_retries: false,
    };
    let models = Upstreams::one(config).unwrap();
    let error = ask(&models, context).await.unwrap_err();
    assert!(
        error.to_string().ends_with("you sent Bearer [key]"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("sk-secret"));
    let headers = &upstream.requests()[0].headers;
    assert_eq!(headers["authorization"], "Bearer sk-secret");
    assert_eq!(
        (&headers["x-request-id"], &headers["traceparent"]),
        (&"req-1".parse().unwrap(), &"00-trace".parse().unwrap(),)
    );
}

#[tokio::test]
async fn an_upstream_that_cannot_stream_is_told_apart_from_an_error() {
    let json = |body: &str| Reply::status(200).body(body.to_owned());
    for (reply, expected) in [
        (json(r#"{"choices":[]}"#), "upstream_invalid"),
        (
            json(r#"{"error":{"message":"no","type":"invalid_request_error"}}"#),
            "upstream_error",
        ),
    ] {
        let (_upstream, config) = upstream(Script::always(reply)).await;
        assert_eq!(code(turn(config).await.1), expected);
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let (upstream, config) = upstream(Script::always(Reply::tokens(3))).await;
    let models = Upstreams::one(config).unwrap();
    for _ in 0..20 {
        let mut stream = ask(&models, TurnContext::default()).await.unwrap();
        while stream.next_batch().await.unwrap().is_some() {}
        stream.finish().unwrap();
    }
    assert!(
        upstream.connections() <= 3,
        "{} connections",
        upstream.connections()
    );
}

#[tokio::test]
async fn the_upstreams_models_are_listed() {
    let (_upstream, config) = upstream(Script::by_model()).await;
    let models = ModelClient::with_config(config)
        .unwrap()
        .list_models()
        .await
        .unwrap();
    assert!(models.data.iter().any(|model| model.id == "tokens-20"));
}

/// Text that arrived together with the break is shown before the error.
#[tokio::test]
async fn text_that_arrives_with_the_break_is_not_lost() {
    let (_upstream, config) = upstream(Script::always(Reply::text("half an answer").cut())).await;
    let (shown, result) = turn(config).await;
    assert_eq!(shown, "half an answer");
    assert_eq!(code(result), "upstream_cut");
}

mod dialects;
