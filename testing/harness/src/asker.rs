//! A program that sends requests over the bus, with nothing but a NATS client.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, Subscriber};
use baton_protocol::{ApiKeyId, TenantId};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::client::PATIENCE;

/// The time after which a request is sent again, because it or its answer may have been lost.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A program that sends requests about one run.
#[derive(Debug)]
pub struct Asker {
    client: Client,
    tenant: TenantId,
    key: ApiKeyId,
    run: String,
}

impl Asker {
    /// Connects to the broker with an API key and its id.
    pub async fn connect(
        url: &str,
        (api_key, key): (&str, ApiKeyId),
        tenant: TenantId,
        run: &str,
    ) -> anyhow::Result<Self> {
        let client = async_nats::ConnectOptions::with_token(api_key.to_owned())
            .custom_inbox_prefix(format!("_INBOX_{tenant}"))
            .connect(url)
            .await?;
        Ok(Self {
            client,
            tenant,
            key,
            run: run.to_owned(),
        })
    }

    /// Repeats the request until there is an answer.
    pub async fn ask(&self, verb: &str, payload: &Value) -> anyhow::Result<Value> {
        let subject = format!("control.{}.{}.{verb}", self.tenant, self.key);
        let mut payload = payload.clone();
        payload["v"] = 1.into();
        payload["run_id"] = self.run.as_str().into();
        self.until_answered(subject, verb, &payload).await
    }

    /// Publishes a submission of the run, and waits only until it is written to the connection.
    pub async fn submit_unheard(&self, request: &Value) -> anyhow::Result<()> {
        let (subject, message) = self.submission(request);
        let payload = serde_json::to_vec(&message)?;
        self.client.publish(subject, payload.into()).await?;
        Ok(self.client.flush().await?)
    }

    /// Publishes a submission of the run repeatedly until there is an answer.
    pub async fn submit(&self, request: &Value) -> anyhow::Result<Value> {
        let (subject, message) = self.submission(request);
        self.until_answered(subject, "submit", &message).await
    }

    fn submission(&self, request: &Value) -> (String, Value) {
        let message = json!({"v": 1, "kind": "submit", "run_id": self.run, "request": request});
        let subject = format!("jobs.{}.{}.interactive", self.tenant, self.key);
        (subject, message)
    }

    async fn until_answered(
        &self,
        subject: String,
        verb: &str,
        payload: &Value,
    ) -> anyhow::Result<Value> {
        let replies = format!("replies.{}.{}", self.tenant, self.run);
        let mut answers = self.client.subscribe(replies).await?;
        let asking = async {
            loop {
                let payload = serde_json::to_vec(payload)?;
                self.client.publish(subject.clone(), payload.into()).await?;
                let answer = tokio::time::timeout(AGAIN_AFTER, next(&mut answers, verb));
                if let Ok(answer) = answer.await {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .with_context(|| format!("no answer on {subject}"))?
    }
}

async fn next(answers: &mut Subscriber, verb: &str) -> anyhow::Result<Value> {
    loop {
        let message = answers.next().await.context("the connection was closed")?;
        let answer: Value = serde_json::from_slice(&message.payload)?;
        if answer["verb"] == verb {
            return Ok(answer);
        }
    }
}
