//! A program on the bus: it submits runs under ids that it draws itself, as the README of `nats`
//! says.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions};
use baton_protocol::{ApiKeyId, RunId, TenantId};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The time for an answer before the submission is published again.
const ANSWER: Duration = Duration::from_secs(3);

/// A bearer of an API key at the broker.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// The tenant.
    pub tenant: TenantId,
    /// The key's id.
    pub key: ApiKeyId,
    /// The key.
    pub secret: String,
}

impl Bearer {
    /// Returns the subject and the payload of a submission.
    pub fn submission(&self, run: RunId, request: &Value) -> (String, Vec<u8>) {
        let message = json!({"v": 1, "kind": "submit", "run_id": run, "request": request});
        (self.jobs(), message.to_string().into_bytes())
    }

    fn jobs(&self) -> String {
        format!("jobs.{}.{}.interactive", self.tenant, self.key)
    }

    /// Returns prefixes of subjects on which an ingress might listen to the key's bearer, without
    /// the part that a program may choose.
    pub fn doors(&self) -> [String; 6] {
        let (tenant, key) = (self.tenant, self.key);
        [
            format!("jobs.{tenant}."),
            format!("history.{tenant}."),
            format!("control.{tenant}.x."),
            format!("jobs.{tenant}.{key}."),
            format!("history.{tenant}.{key}"),
            format!("control.{tenant}.{key}."),
        ]
    }
}

/// A program's connection around all proxies; it reconnects for ever.
#[derive(Debug)]
pub struct Program {
    url: String,
    bearer: Bearer,
    client: Mutex<Option<Client>>,
}

impl Program {
    /// Makes a program with this key. It connects with its first message.
    pub fn new(url: &str, bearer: Bearer) -> Self {
        Self {
            url: url.to_owned(),
            bearer,
            client: Mutex::new(None),
        }
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client
            && client.connection_state() == State::Connected
        {
            return Ok(client.clone());
        }
        let fresh = ConnectOptions::with_token(self.bearer.secret.clone())
            .custom_inbox_prefix(format!("_INBOX_{}", self.bearer.tenant))
            .connect(&self.url)
            .await?;
        Ok(client.insert(fresh).clone())
    }

    /// Publishes a submission once; returns the answer, if there is one.
    pub async fn submit(&self, run: RunId, request: &Value) -> anyhow::Result<Value> {
        let message = json!({"v": 1, "kind": "submit", "run_id": run, "request": request});
        self.exchange(self.bearer.jobs(), run, message).await
    }

    /// Publishes a request about a run once; returns the answer, if there is one.
    pub async fn control(&self, verb: &str, run: RunId, message: Value) -> anyhow::Result<Value> {
        let (tenant, key) = (self.bearer.tenant, self.bearer.key);
        let subject = format!("control.{tenant}.{key}.{verb}");
        self.exchange(subject, run, message).await
    }

    async fn exchange(
        &self,
        subject: String,
        run: RunId,
        mut message: Value,
    ) -> anyhow::Result<Value> {
        // Answers to others about the same run arrive on the same subject.
        let id = uuid::Uuid::new_v4().to_string();
        message["request_id"] = json!(id);
        let asking = async {
            let client = self.client().await?;
            let replies = format!("replies.{}.{run}", self.bearer.tenant);
            let mut answers = client.subscribe(replies).await?;
            client
                .publish(subject, message.to_string().into_bytes().into())
                .await?;
            loop {
                let answer = answers.next().await.context("the connection is closed")?;
                let answer: Value = serde_json::from_slice(&answer.payload)?;
                if answer["request_id"] == *id {
                    return anyhow::Ok(answer);
                }
            }
        };
        timeout(ANSWER, asking).await.context("no answer")?
    }
}
