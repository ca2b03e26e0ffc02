//! A streamed chat as a client of the OpenAI API sees it.

use anyhow::{Context as _, bail, ensure};
use baton_openai::SseDecoder;
use http::StatusCode;
use serde_json::Value;

use super::{Streamed, refusal};

/// A chat's answer as it arrives.
#[derive(Debug)]
pub struct ChatStream {
    answer: Streamed,
    decoder: SseDecoder,
    /// The run of the chat.
    pub run: String,
    /// The text so far.
    pub text: String,
    /// The reason why the model stopped, once it has.
    pub finish_reason: Option<String>,
    /// The error object that ended the stream, if one did.
    pub error: Option<Value>,
    /// Whether `[DONE]` has come.
    pub done: bool,
}

impl ChatStream {
    pub(super) async fn new(answer: Streamed) -> anyhow::Result<Self> {
        if answer.status != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        let run = answer.headers.get("x-run-id").context("no X-Run-Id")?;
        Ok(Self {
            run: run.to_str()?.to_owned(),
            answer,
            decoder: SseDecoder::new(16 << 20),
            text: String::new(),
            finish_reason: None,
            error: None,
            done: false,
        })
    }

    /// Reads the next frame; returns whether there was one.
    pub async fn next(&mut self) -> anyhow::Result<bool> {
        loop {
            if let Some(frame) = self.decoder.next_event()? {
                ensure!(!self.done, "something follows [DONE]: {}", frame.text());
                if &frame.data[..] == b"[DONE]" {
                    self.done = true;
                    return Ok(true);
                }
                let chunk: Value = serde_json::from_slice(&frame.data)?;
                if chunk.get("error").is_some() {
                    self.error = Some(chunk["error"].clone());
                    return Ok(true);
                }
                let choice = &chunk["choices"][0];
                if let Some(text) = choice["delta"]["content"].as_str() {
                    self.text.push_str(text);
                }
                if let Some(reason) = choice["finish_reason"].as_str() {
                    self.finish_reason = Some(reason.to_owned());
                }
                return Ok(true);
            }
            match self.answer.next().await? {
                Some(bytes) => self.decoder.push(bytes),
                None => return Ok(false),
            }
        }
    }

    /// Reads until the text ends with `end`.
    pub async fn until_text(&mut self, end: &str) -> anyhow::Result<()> {
        while !self.text.ends_with(end) {
            if !self.next().await? {
                bail!(
                    "the stream ended with {:?}, error {:?}",
                    self.text,
                    self.error
                );
            }
        }
        Ok(())
    }

    /// Reads to the end.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        while self.next().await? {}
        Ok(())
    }
}
