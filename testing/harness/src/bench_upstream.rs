//! An OpenAI-compatible upstream with hardly any cost of its own, so that a measurement shows the
//! cost of Baton.
//!
//! The model's name selects the answer: `bench-20-0` is 20 tokens without a pause, `bench-100-10`
//! is 100 tokens, 10 ms apart. Each token is the time at which it was written and goes out in a
//! write of its own, as a real model's would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::load::unix_nanos;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNK: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1780000000,"model":"bench","choices":[{"index":0,"delta":"#;
const USAGE: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1780000000,"model":"bench","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":20,"total_tokens":28}}"#;

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    loop {
        let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(async move {
            // The upstream does not care if a client disconnects.
            let _gone = converse(stream).await;
        });
    }
}

async fn converse(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut request = Vec::with_capacity(4096);
    let mut out = Vec::with_capacity(1024);
    loop {
        let Some(body) = read_request(&mut stream, &mut request).await? else {
            return Ok(());
        };
        let (tokens, gap) = plan(&body).context("the model is none of bench-<tokens>-<ms>")?;
        answer(&mut stream, &mut out, tokens, gap).await?;
    }
}

/// Returns the body of the next request on the connection; `None` once it is closed.
async fn read_request(
    stream: &mut TcpStream,
    request: &mut Vec<u8>,
) -> anyhow::Result<Option<Vec<u8>>> {
    request.clear();
    let head = loop {
        if let Some(at) = find(request, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(request).await? == 0 {
            return Ok(None);
        }
    };
    let text = std::str::from_utf8(&request[..head])?.to_ascii_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while request.len() < head + length {
        if stream.read_buf(request).await? == 0 {
            bail!("the request ended early");
        }
    }
    Ok(Some(request[head..head + length].to_vec()))
}

fn plan(body: &[u8]) -> Option<(usize, Duration)> {
    let at = find(body, b"\"bench-")? + 7;
    let rest = std::str::from_utf8(&body[at..]).ok()?;
    let (name, _) = rest.split_once('"')?;
    let (tokens, gap) = name.split_once('-')?;
    Some((
        tokens.parse().ok()?,
        Duration::from_millis(gap.parse().ok()?),
    ))
}

async fn answer(
    stream: &mut TcpStream,
    out: &mut Vec<u8>,
    tokens: usize,
    gap: Duration,
) -> anyhow::Result<()> {
    let started = Instant::now();
    out.clear();
    out.extend_from_slice(HEAD);
    frame(
        out,
        &format!(r#"{CHUNK}{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#),
    );
    for token in 0..tokens {
        if !gap.is_zero() {
            let at = u32::try_from(token + 1)?;
            tokio::time::sleep_until(started + gap * at).await;
        }
        let content = unix_nanos();
        frame(
            out,
            &format!(r#"{CHUNK}{{"content":"{content} "}},"finish_reason":null}}]}}"#),
        );
        stream.write_all(out).await?;
        out.clear();
    }
    frame(out, &format!(r#"{CHUNK}{{}},"finish_reason":"stop"}}]}}"#));
    frame(out, USAGE);
    frame(out, "[DONE]");
    out.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(out).await?;
    Ok(())
}

/// Writes one event as one HTTP chunk.
fn frame(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).as_bytes());
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Load, Route, Until};

    #[tokio::test]
    async fn the_load_reads_what_the_upstream_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let load = Load {
            route: Route::Chat,
            base_url: format!("http://{address}/v1"),
            api_key: None,
            model: "bench-20-0".into(),
            clients: 4,
            until: Until::Answers(5),
        };
        let report = tokio::select! {
            served = serve(listener) => panic!("the upstream stopped: {served:?}"),
            report = load.run() => report.unwrap(),
        };
        assert_eq!(
            (report.answers, report.failed),
            (20, 0),
            "{:?}",
            report.first_failure
        );
        assert_eq!(report.tokens, 400);
        assert_eq!(report.first_token.len(), 20);
    }
}
