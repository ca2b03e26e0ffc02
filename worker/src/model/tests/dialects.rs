//! Tests the dialects of upstreams, row by row and family by family.

use std::io::Write as _;

use baton_harness::dialects::{self, Dialect};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::*;

async fn reply(reply: Reply) -> (String, Result<FinishedTurn, ModelError>) {
    let (_upstream, config) = upstream(Script::always(reply)).await;
    let retry = RetryPolicy {
        max_retries: 0,
        ..QUICK
    };
    turn(ModelConfig { retry, ..config }).await
}

fn message(turn: &FinishedTurn) -> serde_json::Value {
    serde_json::from_str(turn.message.get()).unwrap()
}

async fn check(dialect: &Dialect, content_type: &str) {
    let name = dialect.name;
    let (shown, finished) = reply(Reply::body_of_kind(content_type, dialect.body)).await;
    let Some(meaning) = &dialect.meaning else {
        let error = finished.expect_err(name).to_string();
        assert!(error.contains(dialect.words), "{name}: {error}");
        return;
    };
    let finished = finished.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let message = message(&finished);
    assert_eq!(shown, meaning.text, "{name}");
    assert_eq!(
        message["content"].as_str().unwrap_or_default(),
        meaning.text,
        "{name}"
    );
    assert_eq!(
        message["reasoning_content"].as_str().unwrap_or_default(),
        meaning.reasoning,
        "{name}"
    );
    let calls: Vec<_> = finished
        .tool_calls
        .iter()
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    assert_eq!(calls, meaning.calls, "{name}");
    assert_eq!(
        finished.finish_reason.as_chat(),
        meaning.finish_reason,
        "{name}"
    );
    let ids: std::collections::BTreeSet<_> =
        finished.tool_calls.iter().map(|call| &call.id).collect();
    assert_eq!(
        ids.len(),
        calls.len(),
        "{name}: each call has an id of its own"
    );
}

#[tokio::test]
async fn every_family_of_upstreams_is_read() {
    for dialect in dialects::all() {
        check(&dialect, "text/event-stream").await;
    }
}

/// A head that misstates the body's type changes nothing.
#[tokio::test]
async fn an_answer_is_read_as_what_it_is_whatever_its_head_says() {
    for dialect in dialects::all() {
        for content_type in ["application/json", "text/plain; charset=utf-8", ""] {
            check(&dialect, content_type).await;
        }
    }
}

/// No answer that breaks off is shown as complete, unless its end had arrived.
#[tokio::test]
async fn an_answer_that_is_broken_off_is_never_whole() {
    for dialect in dialects::all() {
        let Some(meaning) = dialect.meaning.as_ref() else {
            continue;
        };
        let body = dialect.body.as_bytes();
        let (upstream, config) = upstream(Script::always(Reply::tokens(0))).await;
        let retry = RetryPolicy {
            max_retries: 0,
            ..QUICK
        };
        let config = ModelConfig { retry, ..config };
        for at in (0..body.len()).step_by(1 + body.len() / 24) {
            let piece = Piece::Raw(Bytes::copy_from_slice(&body[..at]));
            upstream.set_script(Script::always(Reply::pieces([piece, Piece::Cut])));
            let (shown, finished) = turn(config.clone()).await;
            if let Ok(finished) = finished {
                assert_eq!(shown, meaning.text, "{} cut at {at}", dialect.name);
                assert_eq!(
                    finished.tool_calls.len(),
                    meaning.calls.len(),
                    "{} cut at {at}",
                    dialect.name
                );
            }
        }
    }
}

#[tokio::test]
async fn a_compressed_answer_is_decoded_though_nobody_asked() {
    let body = dialects::all().remove(0).body.as_bytes();
    let gzip = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let br = {
        let mut out = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 20);
        encoder.write_all(body).unwrap();
        drop(encoder);
        out
    };
    let zstd = zstd::encode_all(body, 3).unwrap();
    for (encoding, bytes) in [
        ("gzip", gzip),
        ("deflate", deflate),
        ("br", br),
        ("zstd", zstd),
    ] {
        let compressed =
            Reply::body_of_kind("text/event-stream", bytes).header("content-encoding", encoding);
        let (upstream, config) = upstream(Script::always(compressed)).await;
        let (shown, finished) = turn(config).await;
        assert_eq!(shown, "Hello", "{encoding}: {finished:?}");
        finished.unwrap();
        let asked = &upstream.requests()[0].headers;
        assert_eq!(asked["accept-encoding"], "identity");
    }
}

/// A few bytes expand to many: the limit applies to the expanded answer.
#[tokio::test]
async fn a_limit_holds_for_what_comes_out_of_a_compressed_answer() {
    let frame = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(1 << 20)
    );
    let bomb = zstd::encode_all(frame.repeat(32).as_bytes(), 3).unwrap();
    assert!(bomb.len() < 100_000);
    let compressed =
        Reply::body_of_kind("text/event-stream", bomb).header("content-encoding", "zstd");
    assert_eq!(code(reply(compressed).await.1), "upstream_too_long");
}

#[tokio::test]
async fn one_line_may_be_as_long_as_an_answer() {
    let (shown, finished) = reply(Reply::long_line(1_300_000)).await;
    finished.unwrap();
    assert_eq!(shown.len(), 1_300_000);
}

#[tokio::test]
async fn a_refusals_words_code_and_param_are_kept() {
    for (body, words, code, param) in [
        (
            r#"{"error":{"message":"too long","code":"context_length_exceeded","param":"messages"}}"#,
            "too long",
            Some("context_length_exceeded"),
            Some("messages"),
        ),
        (
            r#"{"object":"error","message":"no tools here"}"#,
            "no tools here",
            None,
            None,
        ),
        (
            r#"{"detail":[{"loc":["body","n"],"msg":"not a number"}]}"#,
            "n: not a number",
            None,
            Some("n"),
        ),
        (
            "model is not loaded",
            "model is not loaded",
            Some("upstream_rejected"),
            None,
        ),
        (
            "<html>",
            "it does not say why",
            Some("upstream_rejected"),
            None,
        ),
    ] {
        let error = reply(Reply::status(400).body(body)).await.1.unwrap_err();
        let ModelError::Rejected { error, .. } = error else {
            panic!("{error:?}");
        };
        let told = (
            error.message.as_str(),
            error.code.as_deref(),
            error.param.as_deref(),
        );
        assert_eq!(told, (words, code, param), "{body}");
    }
}
