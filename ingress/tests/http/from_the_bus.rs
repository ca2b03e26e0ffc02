//! What programs say over the bus. They are played by a plain connection, which writes the header
//! that the server writes where programs have an account of their own.

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
    /// With a key that may do everything, but for what is said of it.
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

    /// What the server writes about its messages.
    pub(crate) fn stamp(&self) -> HeaderMap {
        let info = json!({"acc": "PROGRAMS", "user": self.key, "host": "192.0.2.7", "name": "p"});
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Request-Info", info.to_string().as_str());
        headers
    }

    /// Publishes with these headers, and waits on `replies` or `past` for the answer that repeats
    /// the request's id.
    async fn ask(&self, answers: &str, headers: HeaderMap, ask: Ask) -> Value {
        let mut answers = self.hear(format!("{answers}.{}.*", self.tenant)).await;
        let Ask {
            id,
            subject,
            payload,
        } = ask;
        let published = self
            .nats
            .publish_with_headers(subject, headers, payload.into());
        published.await.unwrap();
        loop {
            let answer = answers.next().await;
            if answer["request_id"] == id.as_str() {
                return answer;
            }
        }
    }

    /// Publishes a message to a lane, whatever it is; the answer.
    pub(crate) async fn publish(&self, lane: &str, payload: impl ToString) -> Value {
        self.publish_as(self.stamp(), lane, payload).await
    }

    /// With another word for who it is, or nobody's.
    pub(crate) async fn publish_as(
        &self,
        headers: HeaderMap,
        lane: &str,
        payload: impl ToString,
    ) -> Value {
        let id = Uuid::new_v4().to_string();
        let mut headers = headers;
        headers.insert("X-Request-Id", id.as_str());
        let ask = Ask {
            id,
            subject: format!("submit.{}.{lane}", self.tenant),
            payload: payload.to_string(),
        };
        self.ask("replies", headers, ask).await
    }

    /// Publishes a message to a lane, and waits for nothing.
    pub(crate) async fn send(&self, lane: &str, payload: impl ToString) {
        let subject = format!("submit.{}.{lane}", self.tenant);
        let payload = payload.to_string().into();
        let sent = self
            .nats
            .publish_with_headers(subject, self.stamp(), payload);
        sent.await.unwrap();
    }

    /// As an ingress sets a message aside that was published to a lane.
    pub(crate) async fn bury(&self, lane: &str, publisher: &str, payload: impl ToString) {
        let mut headers = HeaderMap::new();
        headers.insert("Baton-Reason", "unsupported_version: too new");
        headers.insert("Baton-Publisher", publisher);
        let dead = format!("dead.submit.{}.{lane}", self.tenant);
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
        self.control_as(self.stamp(), run, verb, payload).await
    }

    pub(crate) async fn control_as(
        &self,
        headers: HeaderMap,
        run: RunId,
        verb: &str,
        payload: Value,
    ) -> Value {
        let subject = format!("control.{}.{run}.{verb}", self.tenant);
        self.ask("replies", headers, Ask::new(subject, payload))
            .await
    }

    pub(crate) async fn history(&self, run: RunId, payload: Value) -> Value {
        self.history_as(self.stamp(), run, payload).await
    }

    pub(crate) async fn history_as(&self, headers: HeaderMap, run: RunId, payload: Value) -> Value {
        let subject = format!("history.{}.{run}", self.tenant);
        self.ask("past", headers, Ask::new(subject, payload)).await
    }

    /// What is said on a subject from now on.
    async fn hear(&self, subject: String) -> Replies {
        let replies = Replies(self.nats.subscribe(subject).await.unwrap());
        // The subscription is there once this has been round.
        let _nobody = self.nats.request("nobody.there", "".into()).await;
        replies
    }

    /// What is said about the run from now on.
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

/// The word for why it was refused.
pub(crate) fn refusal(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"]["code"].as_str().unwrap()
}
