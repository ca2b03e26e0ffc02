//! Programs' messages on the bus. A plain connection plays the programs: it publishes to the
//! subject to which the server would let a program publish if programs had an account of their own.

mod asking;
mod quarantine;
mod submitting;

use async_nats::HeaderMap;
use baton_protocol::{RunId, TenantId};
use baton_service::{Clock as _, SystemClock};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{Fixture, soon};

/// A program with a key.
pub(crate) struct Program {
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
    nats: async_nats::Client,
}

impl Program {
    /// Creates a program with a key that has all scopes, except for the fields in `key`.
    pub(crate) async fn new(f: &Fixture, key: Value) -> Self {
        let mut wish = json!({"name": "program", "scopes": ["*"]});
        for (name, value) in key.as_object().unwrap() {
            wish[name] = value.clone();
        }
        let (status, made) = f.ask(&f.key, "POST", "/v1/api-keys", wish).await;
        assert_eq!(status, 201, "{made}");
        Self::with_id(f, made["id"].as_str().unwrap()).await
    }

    pub(crate) async fn with_id(f: &Fixture, key: &str) -> Self {
        Self {
            tenant: f.tenant,
            key: key.to_owned(),
            nats: async_nats::connect(f.nats.url()).await.unwrap(),
        }
    }

    /// Publishes, and waits on `replies` or `past` for the answer that repeats the request's id.
    async fn ask(&self, answers: &str, ask: Ask) -> Value {
        let mut answers = self.hear(format!("{answers}.{}.*", self.tenant)).await;
        let Ask {
            id,
            subject,
            payload,
        } = ask;
        let published = self.nats.publish(subject, payload.into());
        published.await.unwrap();
        loop {
            let answer = answers.next().await;
            if answer["request_id"] == id.as_str() {
                return answer;
            }
        }
    }

    /// Publishes a submission to a lane with a new request id; returns the answer.
    pub(crate) async fn publish(&self, lane: &str, submission: Value) -> Value {
        let subject = self.subject("submit", &format!(".{lane}"));
        self.ask("replies", Ask::new(subject, submission)).await
    }

    /// Publishes any payload to a lane; returns the next answer, whatever run it is about.
    pub(crate) async fn publish_bytes(&self, lane: &str, payload: &str) -> Value {
        let mut answers = self.hear(format!("replies.{}.*", self.tenant)).await;
        self.send(lane, payload).await;
        answers.next().await
    }

    fn subject(&self, first: &str, rest: &str) -> String {
        format!("{first}.{}.{}{rest}", self.tenant, self.key)
    }

    /// Publishes a message to a lane without waiting.
    pub(crate) async fn send(&self, lane: &str, payload: impl ToString) {
        let subject = self.subject("submit", &format!(".{lane}"));
        let payload = payload.to_string().into();
        self.nats.publish(subject, payload).await.unwrap();
    }

    /// Sets aside a message to a lane, as an ingress does.
    pub(crate) async fn bury(&self, lane: &str, payload: impl ToString) {
        let dead = format!("dead.{}", self.subject("submit", &format!(".{lane}")));
        self.bury_at(dead, payload).await;
    }

    pub(crate) async fn bury_at(&self, dead: String, payload: impl ToString) {
        let mut headers = HeaderMap::new();
        headers.insert("Baton-Reason", "unsupported_version: too new");
        let stored = self
            .nats
            .request_with_headers(dead, headers, payload.to_string().into());
        soon(stored).await.unwrap();
    }

    /// Submits a request under an id.
    pub(crate) async fn submit(&self, run: RunId, request: Value) -> Value {
        self.publish("interactive", submission(run, request)).await
    }

    pub(crate) async fn control(&self, run: RunId, verb: &str, payload: Value) -> Value {
        let subject = self.subject("control", &format!(".{verb}"));
        self.ask("replies", Ask::about(run, subject, payload)).await
    }

    pub(crate) async fn history(&self, run: RunId, payload: Value) -> Value {
        let subject = self.subject("history", "");
        self.ask("past", Ask::about(run, subject, payload)).await
    }

    /// Subscribes to a subject from now on.
    async fn hear(&self, subject: String) -> Replies {
        let replies = Replies(self.nats.subscribe(subject).await.unwrap());
        // A round trip later, the subscription is active.
        let _nobody = self.nats.request("nobody.there", "".into()).await;
        replies
    }

    /// Subscribes to the replies about the run from now on.
    pub(crate) async fn replies(&self, run: RunId) -> Replies {
        self.hear(format!("replies.{}.{run}", self.tenant)).await
    }
}

/// A request with an id of its own.
struct Ask {
    id: String,
    subject: String,
    payload: String,
}

impl Ask {
    fn about(run: RunId, subject: String, payload: Value) -> Self {
        let mut payload = payload;
        payload["v"] = 1.into();
        payload["run_id"] = json!(run);
        Self::new(subject, payload)
    }

    fn new(subject: String, payload: Value) -> Self {
        let mut payload = payload;
        let id = Uuid::new_v4().to_string();
        payload["request_id"] = id.as_str().into();
        Self {
            id,
            subject,
            payload: payload.to_string(),
        }
    }
}

pub(crate) struct Replies(async_nats::Subscriber);

impl Replies {
    pub(crate) async fn next(&mut self) -> Value {
        let message = soon(self.0.next()).await.unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    }
}

pub(crate) fn submission(run: RunId, request: Value) -> Value {
    let mut message = json!({"v": 1, "kind": "submit", "run_id": run});
    message["request"] = request;
    message
}

pub(crate) fn question() -> Value {
    json!({"model": "m", "input": "hello"})
}

pub(crate) fn fresh() -> RunId {
    RunId::new(SystemClock.now())
}

/// Returns the code of a refusal.
pub(crate) fn refusal(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"]["code"].as_str().unwrap()
}
