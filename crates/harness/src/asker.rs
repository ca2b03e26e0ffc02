//! A program that asks for things over the bus, with nothing but a NATS client.
//!
//! The broker of a stack has no accounts: what it would write there about a publisher is written here.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, HeaderMap, Subscriber};
use baton_protocol::{ApiKeyId, TenantId};
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::client::PATIENCE;

/// How long an answer may take before the question is asked again: it may have been lost.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A program that asks about one run.
#[derive(Debug)]
pub struct Asker {
    client: Client,
    tenant: TenantId,
    run: String,
    stamp: HeaderMap,
}

impl Asker {
    /// Connects to the broker, as the bearer of a key.
    pub async fn connect(
        url: &str,
        tenant: TenantId,
        key: ApiKeyId,
        run: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client: async_nats::connect(url).await?,
            tenant,
            run: run.to_owned(),
            stamp: stamp(key),
        })
    }

    /// Asks until there is an answer.
    pub async fn ask(&self, verb: &str, payload: &Value) -> anyhow::Result<Value> {
        let replies = format!("replies.{}.{}", self.tenant, self.run);
        let mut answers = self.client.subscribe(replies).await?;
        let subject = format!("control.{}.{}.{verb}", self.tenant, self.run);
        let asking = async {
            loop {
                let payload = serde_json::to_vec(payload)?;
                let stamp = self.stamp.clone();
                self.client
                    .publish_with_headers(subject.clone(), stamp, payload.into())
                    .await?;
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

/// What the broker writes about a message of this key's bearer.
pub(crate) fn stamp(key: ApiKeyId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let info = format!(r#"{{"acc":"PROGRAMS","user":"{key}","host":"127.0.0.1"}}"#);
    headers.insert("Nats-Request-Info", info.as_str());
    headers
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
