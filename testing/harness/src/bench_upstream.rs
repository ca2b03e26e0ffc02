//! An OpenAI-compatible upstream with hardly any cost of its own, so that a measurement shows the
//! cost of Baton.
//!
//! The model's name selects the answer: `bench-20-0` is 20 tokens without a pause, `bench-100-10`
//! is 100 tokens, 10 ms apart; `bench-100-10-agent` shows reasoning and calls the calculator before them,
//! and shows reasoning again when it has the result. Each token is the time at which it was written and goes out in a
//! write of its own, as a real model's would.

use std::iter::repeat_n;
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

const CALL: &str = r#"{"index":0,"id":"call_bench","type":"function","function":{"name":"calculator","arguments":"{\"expression\":\"6*7\"}"}}"#;
/// The tokens of reasoning before an agent's call, and before its text.
const THOUGHTS: usize = 200;

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
        let plan = Plan::of(&body).context("the model is none of bench-<tokens>-<ms>[-agent]")?;
        answer(&mut stream, &mut out, &plan).await?;
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

/// A planned answer: how many tokens of reasoning and of text it has, and what follows them.
struct Plan {
    thoughts: usize,
    tokens: usize,
    /// The time between two tokens.
    gap: Duration,
    calls: bool,
}

impl Plan {
    fn of(body: &[u8]) -> Option<Self> {
        let at = find(body, b"\"bench-")? + 7;
        let rest = std::str::from_utf8(&body[at..]).ok()?;
        let (name, _) = rest.split_once('"')?;
        let (name, is_agent) = match name.strip_suffix("-agent") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (tokens, gap) = name.split_once('-')?;
        let calls = is_agent && find(body, br#""role":"tool""#).is_none();
        Some(Self {
            thoughts: if is_agent { THOUGHTS } else { 0 },
            tokens: if calls { 0 } else { tokens.parse().ok()? },
            gap: Duration::from_millis(gap.parse().ok()?),
            calls,
        })
    }
}

async fn answer(stream: &mut TcpStream, out: &mut Vec<u8>, plan: &Plan) -> anyhow::Result<()> {
    let started = Instant::now();
    out.clear();
    out.extend_from_slice(HEAD);
    frame(
        out,
        &format!(r#"{CHUNK}{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#),
    );
    let thoughts = repeat_n("reasoning_content", plan.thoughts);
    let fields = thoughts.chain(repeat_n("content", plan.tokens));
    for (at, field) in (1..).zip(fields) {
        if !plan.gap.is_zero() {
            tokio::time::sleep_until(started + plan.gap * at).await;
        }
        let content = unix_nanos();
        frame(
            out,
            &format!(r#"{CHUNK}{{"{field}":"{content} "}},"finish_reason":null}}]}}"#),
        );
        stream.write_all(out).await?;
        out.clear();
    }
    let end = if plan.calls {
        frame(
            out,
            &format!(r#"{CHUNK}{{"tool_calls":[{CALL}]}},"finish_reason":null}}]}}"#),
        );
        "tool_calls"
    } else {
        "stop"
    };
    frame(out, &format!(r#"{CHUNK}{{}},"finish_reason":"{end}"}}]}}"#));
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
