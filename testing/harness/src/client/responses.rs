//! A response's events in a client's view.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use baton_openai::SseDecoder;
use http::{Method, StatusCode};
use serde_json::Value;

use super::{Client, Streamed, refusal};

/// One event of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseEvent {
    /// The `event:` of the frame.
    pub kind: String,
    /// The frame's JSON.
    pub data: Value,
}

impl ResponseEvent {
    /// Returns its `sequence_number`.
    pub fn number(&self) -> anyhow::Result<u64> {
        let number = self.data["sequence_number"].as_u64();
        number.with_context(|| format!("no sequence number: {self:?}"))
    }
}

/// A response's events as they arrive.
#[derive(Debug)]
pub struct ResponseEvents {
    answer: Streamed,
    decoder: SseDecoder,
    /// Everything seen so far.
    pub seen: Vec<ResponseEvent>,
}

impl Client {
    /// Begins a streamed response.
    pub async fn response(&self, body: &Value) -> anyhow::Result<ResponseEvents> {
        let answer = self.send(Method::POST, "/v1/responses", &[], Some(body));
        ResponseEvents::new(answer.await?).await
    }

    /// Follows a response after the event with this `sequence_number`, or from its first event.
    pub async fn follow_response(
        &self,
        id: &str,
        after: Option<u64>,
    ) -> anyhow::Result<ResponseEvents> {
        let mut path = format!("/v1/responses/{id}?stream=true");
        if let Some(after) = after {
            let _infallible = write!(path, "&starting_after={after}");
        }
        let answer = self.send(Method::GET, &path, &[], None);
        ResponseEvents::new(answer.await?).await
    }
}

impl ResponseEvents {
    async fn new(answer: Streamed) -> anyhow::Result<Self> {
        if answer.status != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        Ok(Self {
            answer,
            decoder: SseDecoder::new(16 << 20),
            seen: Vec::new(),
        })
    }

    /// Returns the next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<ResponseEvent>> {
        loop {
            while let Some(frame) = self.decoder.next_event()? {
                let kind = String::from_utf8(frame.name.to_vec())?;
                // A heartbeat names no type.
                if kind.is_empty() {
                    continue;
                }
                let data = serde_json::from_slice(&frame.data)?;
                let event = ResponseEvent { kind, data };
                self.seen.push(event.clone());
                return Ok(Some(event));
            }
            match self.answer.next().await? {
                Some(bytes) => self.decoder.push(bytes),
                None => return Ok(None),
            }
        }
    }

    /// Reads until a text delta that ends with `text`.
    pub async fn until_text(&mut self, text: &str) -> anyhow::Result<()> {
        while let Some(event) = self.next().await? {
            let delta = event.data["delta"].as_str().unwrap_or_default();
            if event.kind == "response.output_text.delta" && delta.ends_with(text) {
                return Ok(());
            }
        }
        bail!("the stream ended before {text}: {:#?}", self.seen)
    }

    /// Reads to the end of the stream; returns everything seen.
    pub async fn rest(mut self) -> anyhow::Result<Vec<ResponseEvent>> {
        while self.next().await?.is_some() {}
        Ok(self.seen)
    }
}
