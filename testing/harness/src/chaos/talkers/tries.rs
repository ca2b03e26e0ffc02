//! Repeats a request until it is answered for good, over HTTP or NATS.

use std::time::Duration;

use baton_protocol::RunId;
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Talkers;
use crate::chaos::load::{HEAD, IN_DOUBT, body, code_of, whole};

/// The pause between two tries.
const AGAIN: Duration = Duration::from_millis(150);
/// The codes of refusals over NATS that a repetition does not change.
const FINAL: [&str; 5] = [
    "message_id_taken",
    "run_ended",
    "run_id_taken",
    "run_without_thread",
    "thread_busy",
];

/// A request that may be repeated: each names a key or an id.
pub(super) enum Request<'a> {
    /// Over HTTP, with the `Idempotency-Key` if there is one; the answer is its body.
    Http {
        method: Method,
        path: &'a str,
        key: Option<&'a str>,
        body: &'a Value,
    },
    /// A streamed chat; the answer is an object with the run's `id`.
    Chat { key: &'a str, body: &'a Value },
    /// A submission over NATS.
    Submit { run: RunId, request: &'a Value },
    /// A request of this kind about a run, over NATS.
    Control {
        verb: &'a str,
        run: RunId,
        message: &'a Value,
    },
}

/// The outcome of one try.
enum Try {
    /// It was accepted.
    Accepted(Value),
    /// It was refused, over HTTP with this status, and would be again.
    Refused(Option<StatusCode>),
    /// It is to be tried again.
    Again {
        /// Whether it may have been accepted.
        in_doubt: bool,
    },
}

/// The outcome of all tries.
pub(super) enum Final {
    /// The request was accepted.
    Accepted(Value),
    /// The request was refused.
    Refused {
        /// The status of an answer over HTTP.
        status: Option<StatusCode>,
        /// Whether an earlier try may have been accepted.
        in_doubt: bool,
    },
}

impl Talkers {
    /// Repeats a request until it is answered for good.
    pub(super) async fn insist(&self, random: &mut StdRng, request: &Request<'_>) -> Final {
        let mut doubted = false;
        loop {
            match self.once(random, request).await {
                Try::Accepted(answer) => return Final::Accepted(answer),
                Try::Refused(status) => {
                    return Final::Refused {
                        status,
                        in_doubt: doubted,
                    };
                }
                Try::Again { in_doubt } => doubted |= in_doubt,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends a request once, and ignores the answer.
    pub(super) async fn try_once(&self, random: &mut StdRng, request: &Request<'_>) {
        self.once(random, request).await;
    }

    async fn once(&self, random: &mut StdRng, request: &Request<'_>) -> Try {
        match request {
            Request::Http {
                method,
                path,
                key,
                body,
            } => {
                let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", *key)).collect();
                let body = Some(*body).filter(|body| !body.is_null());
                let server = self.server(random);
                match whole(server.send(method.clone(), path, &headers, body)).await {
                    Ok((status, answer)) if status.is_success() => Try::Accepted(answer),
                    Ok((status, answer)) => self.refusal(status, code_of(&answer)),
                    Err(_) => self.unanswered(),
                }
            }
            Request::Chat { key, body } => self.chat(random, key, body).await,
            Request::Submit { run, request } => {
                self.reply(self.program.submit(*run, request).await)
            }
            Request::Control { verb, run, message } => {
                let message = (*message).clone();
                self.reply(self.program.control(verb, *run, message).await)
            }
        }
    }

    async fn chat(&self, random: &mut StdRng, key: &str, request: &Value) -> Try {
        let server = self.server(random);
        let headers = [("idempotency-key", key)];
        let path = "/v1/chat/completions";
        let asking = server.send(Method::POST, path, &headers, Some(request));
        let Ok(Ok(mut answer)) = timeout(HEAD, asking).await else {
            return self.unanswered();
        };
        let run = answer.headers.get("x-run-id");
        let run = run.and_then(|run| Some(json!({"id": run.to_str().ok()?})));
        let status = answer.status;
        if status == StatusCode::OK {
            let Some(run) = run else {
                return self.unanswered();
            };
            self.readers
                .spawn(async move { while let Ok(Some(_)) = answer.next().await {} });
            return Try::Accepted(run);
        }
        let Ok(said) = body(&mut answer).await else {
            return self.unanswered();
        };
        match (run, code_of(&said)) {
            // Even an error names the run, if the run was accepted before it went wrong.
            (Some(run), code) if code != IN_DOUBT => {
                self.load.refused(status, code);
                Try::Accepted(run)
            }
            (_, code) => self.refusal(status, code),
        }
    }

    /// Returns what an error of an HTTP answer means.
    fn refusal(&self, status: StatusCode, code: &str) -> Try {
        self.load.refused(status, code);
        match status {
            StatusCode::TOO_MANY_REQUESTS => Try::Again { in_doubt: false },
            StatusCode::REQUEST_TIMEOUT => Try::Again { in_doubt: true },
            status if status.is_client_error() => Try::Refused(Some(status)),
            _ => Try::Again { in_doubt: true },
        }
    }

    /// Returns what the answer to a message over NATS means.
    fn reply(&self, answer: anyhow::Result<Value>) -> Try {
        match answer {
            Ok(answer) if answer["ok"] == true => Try::Accepted(answer),
            Ok(answer) => {
                let code = answer["error"]["code"].as_str().unwrap_or("?");
                self.load.refused(StatusCode::OK, code);
                if FINAL.contains(&code) {
                    Try::Refused(None)
                } else {
                    Try::Again { in_doubt: true }
                }
            }
            Err(_) => self.unanswered(),
        }
    }

    fn unanswered(&self) -> Try {
        self.load.unanswered();
        Try::Again { in_doubt: true }
    }
}
