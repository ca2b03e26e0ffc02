//! A program on the bus: it submits runs there, under ids that it draws itself.
//!
//! The broker of a chaos run has no accounts: a message is published under the subject that it would
//! have in the account of the roles.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions};
use baton_protocol::{ApiKeyId, RunId, TenantId};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long an answer may take before the submission is published again.
const ANSWER: Duration = Duration::from_secs(3);

/// A program's connection, around all proxies; made again for ever.
#[derive(Debug)]
pub struct Program {
    client: Client,
    tenant: TenantId,
    key: ApiKeyId,
}

impl Program {
    /// With the connection of this key's bearer.
    pub async fn connect(url: &str, tenant: TenantId, key: ApiKeyId) -> anyhow::Result<Self> {
        Ok(Self {
            client: ConnectOptions::new().connect(url).await?,
            tenant,
            key,
        })
    }

    /// Publishes a submission once; the answer, if there is one.
    pub async fn submit(&self, run: RunId, request: &Value) -> anyhow::Result<Value> {
        let (tenant, key, client) = (self.tenant, self.key, &self.client);
        let asking = async {
            let mut answers = client.subscribe(format!("replies.{tenant}.{run}")).await?;
            let message = json!({"v": 1, "kind": "submit", "run_id": run, "request": request});
            let subject = format!("submit.{tenant}.{key}.interactive");
            client.publish(subject, message.to_string().into()).await?;
            let answer = answers.next().await.context("the connection is closed")?;
            anyhow::Ok(serde_json::from_slice(&answer.payload)?)
        };
        timeout(ANSWER, asking).await.context("no answer")?
    }
}
