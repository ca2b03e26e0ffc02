//! A client of an ingress.
//!
//! Each request has a connection of its own: dropping an answer closes it, as a client that
//! disconnects does.

mod chat;
mod events;
mod responses;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use chat::ChatStream;
pub use events::{EventStream, RunEvent, check_log, shown_text};
pub use responses::{ResponseEvent, ResponseEvents};

/// The time after which something counts as missing. It is far above the expected time, so that it
/// bounds only a failing test.
pub const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(30);

/// A client of one ingress.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    key: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Returns the body as text.
    pub fn text(&self) -> anyhow::Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        let text = self.text()?;
        serde_json::from_str(text).with_context(|| format!("{}: {text}", self.status))
    }
}

/// An answer with a body that is read as it arrives.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// The connection, closed with the answer.
    _connection: JoinSet<()>,
}

impl Streamed {
    /// Returns the next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .context("the stream is silent")?;
            match frame.transpose().context("the stream broke off")? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

impl Client {
    /// Makes a client with this credential; with an empty one, it sends none.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self {
            address,
            key: key.to_owned(),
        }
    }

    /// Returns a client of the same ingress with another credential.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self::new(self.address, key)
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.whole(Method::GET, path, &[], None).await
    }

    /// Sends a GET request with further headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.whole(Method::GET, path, headers, None).await
    }

    /// Sends a POST request.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.whole(Method::POST, path, &[], Some(body)).await
    }

    /// Sends a POST request with further headers.
    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<Answer> {
        self.whole(Method::POST, path, headers, Some(body)).await
    }

    /// Sends a DELETE request.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.whole(Method::DELETE, path, &[], None).await
    }

    /// Submits a run; returns its id.
    pub async fn submit(&self, body: &Value) -> anyhow::Result<String> {
        let answer = self.post("/v1/runs", body).await?;
        let run = answer.json()?;
        if answer.status != StatusCode::ACCEPTED {
            bail!("{}: {run}", answer.status);
        }
        Ok(run["id"]
            .as_str()
            .context("a run without an id")?
            .to_owned())
    }

    /// Sends a GET request, reads nothing of the answer for this long, and disconnects. Only a
    /// small part of the answer fits into the buffers of the two kernels.
    pub(crate) async fn never_read(&self, path: &str, time: Duration) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4_096)?;
        let mut stream = timeout(PATIENCE, socket.connect(self.address)).await??;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             accept: text/event-stream\r\n\r\n",
            self.address, self.key
        );
        stream.write_all(head.as_bytes()).await?;
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// Returns the run from the ledger.
    pub async fn run(&self, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/v1/runs/{id}")).await?.json()
    }

    /// Waits until the run meets the condition.
    pub async fn run_when(
        &self,
        id: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let reached = async {
            loop {
                // A server that is being restarted answers later.
                if let Ok(run) = self.run(id).await {
                    last = run;
                    if wanted(&last) {
                        return;
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let in_time = timeout(PATIENCE, reached).await;
        in_time.with_context(|| format!("the run stays as it is: {last}"))?;
        Ok(last)
    }

    /// Waits until the run has ended.
    pub async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        self.run_when(id, |run| {
            matches!(
                run["status"].as_str(),
                Some("completed" | "failed" | "cancelled")
            )
        })
        .await
    }

    /// Cancels a run.
    pub async fn cancel(&self, id: &str) -> anyhow::Result<Answer> {
        self.post(&format!("/v1/runs/{id}/cancel"), &Value::Null)
            .await
    }

    /// Follows a run's events after the event `after`.
    pub async fn events(&self, id: &str, after: Option<u64>) -> anyhow::Result<EventStream> {
        let after = after.map(|after| after.to_string());
        let mut headers = vec![("accept", "text/event-stream")];
        if let Some(after) = &after {
            headers.push(("last-event-id", after));
        }
        let path = format!("/v1/runs/{id}/events");
        let answer = self.send(Method::GET, &path, &headers, None).await?;
        EventStream::new(answer).await
    }

    /// Returns all events of a run, from the first to the last. Asks again while the server is not
    /// able to answer.
    pub async fn all_events(&self, id: &str) -> anyhow::Result<Vec<RunEvent>> {
        let asking = async {
            loop {
                match self.events(id, None).await {
                    Err(error) if error.to_string().starts_with("503") => {
                        tokio::time::sleep(POLL).await;
                    }
                    stream => return stream?.rest().await,
                }
            }
        };
        timeout(PATIENCE, asking).await.context("no events")?
    }

    /// Begins a streamed chat.
    pub async fn chat(&self, body: &Value) -> anyhow::Result<ChatStream> {
        self.chat_with(body, &[]).await
    }

    /// Begins a streamed chat under an `Idempotency-Key`.
    pub async fn keyed_chat(&self, body: &Value, key: &str) -> anyhow::Result<ChatStream> {
        self.chat_with(body, &[("idempotency-key", key)]).await
    }

    /// Begins a streamed chat with these headers.
    pub async fn chat_with(
        &self,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<ChatStream> {
        let answer = self
            .send(Method::POST, "/v1/chat/completions", headers, Some(body))
            .await?;
        ChatStream::new(answer).await
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut answer = self.send(method, path, headers, body).await?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.next().await? {
            body.extend_from_slice(&bytes);
        }
        Ok(Answer {
            status: answer.status,
            headers: answer.headers,
            body: body.into(),
        })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Streamed> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None | Some(Value::Null) => Bytes::new(),
            Some(body) => {
                request = request.header("content-type", "application/json");
                serde_json::to_vec(body)?.into()
            }
        };
        let request = request.body(Full::new(body))?;
        let asking = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                // The reader of the answer notices a broken connection.
                let _over = connection.await;
            });
            let answer = sender.send_request(request).await?;
            anyhow::Ok((answer, tasks))
        };
        let (answer, connection) = timeout(PATIENCE, asking)
            .await
            .with_context(|| format!("{path} is not answered"))?
            .with_context(|| format!("{path} cannot be asked for"))?;
        let (head, body) = answer.into_parts();
        Ok(Streamed {
            status: head.status,
            headers: head.headers,
            body,
            _connection: connection,
        })
    }
}

/// Reads the rest of a refusal, for people.
async fn refusal(mut answer: Streamed) -> anyhow::Error {
    let mut text = format!("{}: ", answer.status);
    while let Ok(Some(bytes)) = answer.next().await {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", String::from_utf8_lossy(&bytes));
    }
    anyhow::Error::msg(text)
}
