//! Follows a run to its end, from server to server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use baton_openai::SseDecoder;
use baton_protocol::{EventId, RunId};
use http::{Method, StatusCode};
use rand::RngExt as _;
use serde_json::Value;
use tokio::time::timeout;

use super::guest::Guest;
use super::{AGAIN, HEAD, SILENCE, body, code_of, whole};
use crate::checker::What;

impl Guest {
    /// Polls a run until it has ended.
    pub(super) async fn read_to_end(&mut self, run: RunId) {
        let path = format!("/v1/runs/{run}");
        loop {
            match whole(self.server().send(Method::GET, &path, &[], None)).await {
                Ok((status, answer)) if status.is_success() => {
                    if self.told(run, &answer) {
                        return;
                    }
                }
                Ok((status, answer)) => self.refused(status, code_of(&answer)),
                Err(_) => self.unanswered(),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Follows a run to its end, over as many connections as it takes.
    pub(super) async fn follow(&mut self, run: RunId, slowly: bool) {
        let follower = self.load.next.fetch_add(1, Ordering::Relaxed);
        let mut after = EventId::ORIGIN;
        loop {
            self.note(What::Opened {
                follower,
                run,
                after,
            });
            match self.follow_once(follower, run, &mut after, slowly).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Handles the answer that the run is unknown or that its events are gone. The ledger then
    /// shows the run's outcome.
    pub(super) async fn lost(&mut self, follower: u64, run: RunId, status: u16, code: &str) {
        let code = code.to_owned();
        let unknown = status == StatusCode::NOT_FOUND.as_u16();
        self.note(What::Lost {
            follower,
            status,
            code,
        });
        if !unknown {
            self.read_to_end(run).await;
        }
    }

    /// Makes one connection; returns whether it saw the run's end.
    pub(super) async fn follow_once(
        &mut self,
        follower: u64,
        run: RunId,
        after: &mut EventId,
        slowly: bool,
    ) -> anyhow::Result<bool> {
        let path = format!("/v1/runs/{run}/events");
        let cursor = after.to_string();
        let mut headers = vec![("accept", "text/event-stream")];
        if *after != EventId::ORIGIN {
            headers.push(("last-event-id", &cursor));
        }
        let server = self.server();
        let asking = server.send(Method::GET, &path, &headers, None);
        let mut answer = timeout(HEAD, asking).await??;
        match answer.status.as_u16() {
            200 => {}
            204 => {
                self.note(What::NoMore { follower });
                return Ok(true);
            }
            status @ (404 | 410) => {
                let said = body(&mut answer).await?;
                self.lost(follower, run, status, code_of(&said)).await;
                return Ok(true);
            }
            _ => {
                let status = answer.status;
                let said = body(&mut answer).await?;
                self.refused(status, code_of(&said));
                bail!("refused");
            }
        }
        let mut decoder = SseDecoder::new(16 << 20);
        let mut ended = false;
        // Now and then the connection is dropped in the middle, as if the client moved to another
        // network.
        let mut patience = if self.random.random_bool(0.1) {
            5
        } else {
            u64::MAX
        };
        loop {
            while let Some(frame) = decoder.next_event()? {
                if &frame.name[..] == b"error" {
                    let said: Value = serde_json::from_slice(&frame.data)?;
                    let code = code_of(&said);
                    if is_lost(code) {
                        self.lost(follower, run, StatusCode::GONE.as_u16(), code)
                            .await;
                        return Ok(true);
                    }
                    self.refused(StatusCode::OK, code);
                    bail!("an error event");
                }
                let Some(id) = frame.id.as_deref() else {
                    continue;
                };
                let id: EventId = std::str::from_utf8(id)?.parse()?;
                let line = std::str::from_utf8(&frame.data)?.to_owned();
                self.note(What::Event { follower, line });
                *after = id;
                ended |= matches!(
                    &frame.name[..],
                    b"run.completed" | b"run.failed" | b"run.cancelled"
                );
                patience -= 1;
                if patience == 0 {
                    return Ok(ended);
                }
                if slowly {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            // Read on after the last event, because anything that follows it would be a breach.
            match timeout(SILENCE, answer.next()).await {
                Ok(Ok(Some(bytes))) => decoder.push(bytes),
                Ok(Ok(None)) => return Ok(ended),
                Ok(Err(_)) | Err(_) if ended => return Ok(true),
                Ok(Err(error)) => return Err(error),
                Err(silent) => return Err(silent.into()),
            }
        }
    }
}

/// Returns whether the code means that the events are gone for good.
pub(super) fn is_lost(code: &str) -> bool {
    matches!(code, "events_expired" | "events_lost" | "cursor_unknown")
}
