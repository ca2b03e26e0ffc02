//! Chats, with or without an idempotency key.

use anyhow::bail;
use baton_openai::SseDecoder;
use baton_protocol::RunId;
use http::{Method, StatusCode};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::follow::is_lost;
use super::guest::Guest;
use super::{AGAIN, HEAD, Habit, IN_DOUBT, SILENCE, body, code_of};
use crate::chaos::outside::Prompt;
use crate::checker::What;
use crate::client::Streamed;

impl Guest {
    pub(super) async fn chat(&mut self) {
        let prompt = self.prompt(Habit::Chat);
        let key = self
            .random
            .random_bool(0.5)
            .then(|| format!("chat-{}", prompt.id));
        loop {
            let done = self.chat_once(&prompt, key.as_deref()).await;
            // Without a key, a repetition would be another run.
            if key.is_none() || matches!(done, Ok(true)) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends one request; returns whether repeating it is pointless.
    pub(super) async fn chat_once(
        &mut self,
        prompt: &Prompt,
        key: Option<&str>,
    ) -> anyhow::Result<bool> {
        let request = json!({
            "model": "chaos", "stream": true,
            "messages": [{"role": "user", "content": prompt.text()}],
        });
        let headers: Vec<_> = key
            .map(|key| ("idempotency-key", key))
            .into_iter()
            .collect();
        let server = self.server();
        self.note(What::Tried { prompt: prompt.id });
        let asking = server.send(
            Method::POST,
            "/v1/chat/completions",
            &headers,
            Some(&request),
        );
        let Ok(Ok(mut answer)) = timeout(HEAD, asking).await else {
            self.unanswered();
            bail!("no answer");
        };
        let run: Option<RunId> = answer
            .headers
            .get("x-run-id")
            .and_then(|run| run.to_str().ok()?.parse().ok());
        let expected = prompt.expected();
        let refusal = match answer.status {
            StatusCode::OK => None,
            status => Some((status, body(&mut answer).await?)),
        };
        let code = refusal.as_ref().map(|(_, said)| code_of(said));
        if let Some(run) = run
            && code != Some(IN_DOUBT)
        {
            // Even an error names the run, if the run was accepted before it went wrong.
            self.note(What::Accepted {
                run,
                key: key.map(str::to_owned),
                expected: expected.clone(),
            });
        }
        if let Some((status, said)) = &refusal {
            let code = code_of(said);
            match run {
                Some(_) => self.refused(*status, code),
                None => self.load.refused_run(prompt.id, *status, code),
            }
            return Ok(self.is_over(run, code).await);
        }
        let mut text = String::new();
        let end = read_chat(&mut answer, &mut text)
            .await
            .unwrap_or_else(|_| "cut".to_owned());
        let over = end == "done" || self.is_over(run, &end).await;
        self.note(What::Chat {
            run,
            expected,
            text,
            end,
        });
        Ok(over)
    }

    /// Returns whether a chat that ended with this code must not be repeated: its run has failed,
    /// or its events are gone, and its key will not make another run.
    pub(super) async fn is_over(&mut self, run: Option<RunId>, code: &str) -> bool {
        if let (Some(run), true) = (run, is_lost(code)) {
            self.read_to_end(run).await;
            return true;
        }
        run.is_some() && code.starts_with("upstream")
    }
}

/// Reads a chat to its end, and returns the kind of end.
async fn read_chat(answer: &mut Streamed, text: &mut String) -> anyhow::Result<String> {
    let mut decoder = SseDecoder::new(16 << 20);
    loop {
        while let Some(frame) = decoder.next_event()? {
            if &frame.data[..] == b"[DONE]" {
                return Ok("done".to_owned());
            }
            let chunk: Value = serde_json::from_slice(&frame.data)?;
            if chunk.get("error").is_some() {
                return Ok(code_of(&chunk).to_owned());
            }
            if let Some(delta) = chunk["choices"][0]["delta"]["content"].as_str() {
                text.push_str(delta);
            }
        }
        match timeout(SILENCE, answer.next()).await?? {
            Some(bytes) => decoder.push(bytes),
            None => bail!("cut"),
        }
    }
}
