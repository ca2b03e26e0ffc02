//! What programs say over the bus. They are played by a plain connection, which writes the header
//! that the server writes where programs have an account of their own.

mod asking;
mod quarantine;
mod submitting;

use baton_protocol::{RunId, TenantId};
use baton_service::{Clock as _, SystemClock};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

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
    fn stamp(&self) -> async_nats::HeaderMap {
        let info = json!({"acc": "PROGRAMS", "user": self.key, "host": "192.0.2.7", "name": "p"});
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Request-Info", info.to_string().as_str());
        headers
    }

    /// A request, and its answer.
    pub(crate) async fn request(&self, subject: String, payload: impl ToString) -> Value {
        self.request_with(self.stamp(), subject, payload).await
    }

    /// Without anybody's word for who it is.
    pub(crate) async fn request_with(
        &self,
        headers: async_nats::HeaderMap,
        subject: String,
        payload: impl ToString,
    ) -> Value {
        let payload = payload.to_string().into();
        let asked = self
            .nats
            .request_with_headers(subject.clone(), headers, payload);
        let answer = soon(asked)
            .await
            .unwrap_or_else(|error| panic!("{subject}: {error}"));
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Publishes a message to a lane, whatever it is; the answer in the inbox.
    pub(crate) async fn publish(&self, lane: &str, payload: impl ToString) -> Value {
        self.request(format!("submit.{}.{lane}", self.tenant), payload)
            .await
    }

    /// Submits a request under an id.
    pub(crate) async fn submit(&self, run: RunId, request: Value) -> Value {
        self.publish("interactive", submission(run, request)).await
    }

    pub(crate) async fn control(&self, run: RunId, verb: &str, payload: Value) -> Value {
        let subject = format!("control.{}.{run}.{verb}", self.tenant);
        self.request(subject, payload).await
    }

    pub(crate) async fn history(&self, run: RunId, payload: Value) -> Value {
        self.request(format!("history.{}.{run}", self.tenant), payload)
            .await
    }

    /// What is said on the run's own subject from now on.
    pub(crate) async fn replies(&self, run: RunId) -> Replies {
        let subject = format!("replies.{}.{run}", self.tenant);
        let replies = Replies(self.nats.subscribe(subject).await.unwrap());
        // The subscription is there once this has been round.
        self.nats.flush().await.unwrap();
        let _nobody = self.nats.request("nobody.there", "".into()).await;
        replies
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
pub(crate) fn refusal(answer: &Value) -> (&str, u64) {
    assert_eq!(answer["ok"], false, "{answer}");
    let code = answer["refusal"]["code"].as_str().unwrap();
    let said = answer["error"]["description"].as_str().unwrap();
    assert!(said.starts_with(code), "{answer}");
    (code, answer["error"]["code"].as_u64().unwrap())
}
