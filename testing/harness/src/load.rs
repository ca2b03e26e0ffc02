//! A closed-loop load of streams, cheap enough to share two cores with the measured server.
//!
//! Each client keeps one connection and sends a request as soon as its answer has ended. The
//! upstream writes the time into each token (nanoseconds since 1970, nineteen digits), so a token's
//! latency is measured from write to read and not inferred from gaps, even if several travel
//! together.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::samples::Samples;

/// The bytes at the end of a stream in which its last event is looked for.
const TAIL: usize = 16 * 1024;

/// The end of a load.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Every client has received this many answers.
    Answers(usize),
    /// This much time has passed; answers begun before are waited for.
    Elapsed(Duration),
}

/// The route that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /chat/completions`.
    Chat,
    /// `POST /responses`, which only Baton has.
    Responses,
}

/// The requests, their number and their server.
#[derive(Debug, Clone)]
pub struct Load {
    /// Such as `http://127.0.0.1:8080/v1`.
    pub base_url: String,
    /// The bearer token for `Authorization`, if the server requires one.
    pub api_key: Option<String>,
    /// The route.
    pub route: Route,
    /// The model, which selects the answer of the scripted upstream.
    pub model: String,
    /// The number of concurrent clients.
    pub clients: usize,
    /// The end of the load.
    pub until: Until,
}

/// The figures of a load.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Answers that came to their end.
    pub answers: usize,
    /// Answers that did not, or requests that were refused.
    pub failed: usize,
    /// The first failure, for people.
    pub first_failure: Option<String>,
    /// Tokens read.
    pub tokens: u64,
    /// From sending the request to the first token, in microseconds.
    pub first_token: Samples,
    /// From writing a token to reading it, in microseconds.
    pub token: Samples,
    /// The duration of the whole load.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Returns the answers in a second.
    pub fn answers_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let answers = self.answers as f64;
        answers / self.elapsed.as_secs_f64()
    }

    fn merge(&mut self, other: Self) {
        self.answers += other.answers;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.tokens += other.tokens;
        self.first_token.merge(other.first_token);
        self.token.merge(other.token);
    }
}

impl Load {
    /// Runs the load. Fails only if the server cannot be reached at all.
    pub async fn run(&self) -> anyhow::Result<LoadReport> {
        let started = Instant::now();
        let reports = try_join_all((0..self.clients).map(|_| self.client(started))).await?;
        let mut report = LoadReport::default();
        for one in reports {
            report.merge(one);
        }
        report.elapsed = started.elapsed();
        Ok(report)
    }

    async fn client(&self, started: Instant) -> anyhow::Result<LoadReport> {
        let mut report = LoadReport::default();
        let tasks = TaskTracker::new();
        let mut connection = None;
        let mut asked = 0;
        while match self.until {
            Until::Answers(most) => asked < most,
            Until::Elapsed(most) => started.elapsed() < most,
        } {
            asked += 1;
            let mut sender = match connection.take() {
                Some(sender) => sender,
                None => self.connect(&tasks).await?,
            };
            match self.ask(&mut sender, &mut report).await {
                Ok(()) => {
                    report.answers += 1;
                    connection = Some(sender);
                }
                Err(error) => {
                    report.failed += 1;
                    report
                        .first_failure
                        .get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        Ok(report)
    }

    async fn connect(&self, tasks: &TaskTracker) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let address = self.authority()?;
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tasks.spawn(connection);
        Ok(sender)
    }

    fn authority(&self) -> anyhow::Result<&str> {
        let rest = self
            .base_url
            .strip_prefix("http://")
            .context("the load speaks plain HTTP")?;
        Ok(rest.split('/').next().unwrap_or(rest))
    }

    async fn ask(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        report: &mut LoadReport,
    ) -> anyhow::Result<()> {
        let authority = self.authority()?;
        let path = self
            .base_url
            .split_once(authority)
            .map_or("", |(_, path)| path);
        let (route, input) = match self.route {
            Route::Chat => (
                "chat/completions",
                r#""messages":[{"role":"user","content":"Count."}]"#,
            ),
            Route::Responses => ("responses", r#""input":"Count.""#),
        };
        let mut request = Request::post(format!("{path}/{route}"))
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.api_key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = format!(r#"{{"model":"{}","stream":true,{input}}}"#, self.model);
        let request = request.body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let sent = Instant::now();
        let response = sender.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let text = body.collect().await?.to_bytes();
            bail!("{status}: {}", String::from_utf8_lossy(&text));
        }
        let mut stamps = Stamps::default();
        let mut tail = Vec::new();
        let mut first = true;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let now = unix_nanos();
            stamps.read(&data, |written| {
                if first {
                    first = false;
                    report.first_token.push(sent.elapsed());
                }
                report.tokens += 1;
                report
                    .token
                    .push(Duration::from_nanos(now.saturating_sub(written)));
            });
            tail.extend_from_slice(&data);
            // The last event of a response has all of its text.
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
        let is_whole = match self.route {
            Route::Chat => tail.ends_with(b"[DONE]\n\n"),
            Route::Responses => {
                let end = b"event: response.completed\n";
                tail.windows(end.len()).any(|part| part == end)
            }
        };
        if !is_whole {
            bail!("a stream ended without its last event");
        }
        if first {
            bail!("a stream ended without a token");
        }
        Ok(())
    }
}

/// Reads the wall clock in nanoseconds since 1970, because two processes share no other clock.
#[expect(
    clippy::disallowed_methods,
    reason = "latency across processes is what is measured"
)]
pub fn unix_nanos() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Finds the stamps in a stream of bytes, wherever it is cut.
#[derive(Debug, Default)]
struct Stamps {
    digits: u32,
    value: u64,
}

impl Stamps {
    fn read(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        for byte in bytes {
            if byte.is_ascii_digit() {
                self.digits += 1;
                self.value = self
                    .value
                    .wrapping_mul(10)
                    .wrapping_add(u64::from(byte - b'0'));
            } else {
                if self.digits == 19 {
                    found(self.value);
                }
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_wherever_the_bytes_are_cut() {
        let text =
            br#"{"created":1780000000,"content":"1780000000123456789 1780000000123456790 "}"#;
        for cut in 0..text.len() {
            let mut stamps = Stamps::default();
            let mut found = Vec::new();
            stamps.read(&text[..cut], |stamp| found.push(stamp));
            stamps.read(&text[cut..], |stamp| found.push(stamp));
            assert_eq!(
                found,
                [1_780_000_000_123_456_789, 1_780_000_000_123_456_790],
                "{cut}"
            );
        }
    }
}
