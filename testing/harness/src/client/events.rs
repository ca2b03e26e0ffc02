//! A run's native events in a client's view, and the rules that they must keep.

use anyhow::{Context as _, bail, ensure};
use baton_openai::SseDecoder;
use http::StatusCode;
use serde_json::Value;

use super::{Streamed, refusal};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    /// The `id:` of the frame.
    pub id: u64,
    /// The `event:` of the frame.
    pub kind: String,
    /// The event's JSON, with `prev`, `step` and `data`.
    pub event: Value,
}

impl RunEvent {
    /// Returns the attempt that wrote it.
    pub const fn attempt(&self) -> u64 {
        self.id >> 32
    }

    /// Returns whether nothing follows it.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "run.completed" | "run.failed" | "run.cancelled"
        )
    }

    /// Returns the text that it shows.
    pub fn text(&self) -> &str {
        match self.kind.as_str() {
            "text.delta" => self.event["data"]["text"].as_str().unwrap_or_default(),
            _ => "",
        }
    }
}

/// A run's events as they arrive.
#[derive(Debug)]
pub struct EventStream {
    answer: Streamed,
    decoder: SseDecoder,
    /// Everything seen so far.
    pub seen: Vec<RunEvent>,
    /// Whether the run ended with the event at the cursor, so that nothing follows.
    pub no_more: bool,
}

impl EventStream {
    pub(super) async fn new(answer: Streamed) -> anyhow::Result<Self> {
        let no_more = answer.status == StatusCode::NO_CONTENT;
        if answer.status != StatusCode::OK && !no_more {
            return Err(refusal(answer).await);
        }
        Ok(Self {
            answer,
            decoder: SseDecoder::new(16 << 20),
            seen: Vec::new(),
            no_more,
        })
    }

    /// Returns the next event; `None` at the end of the stream, whether or not the run has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<RunEvent>> {
        loop {
            while let Some(frame) = self.decoder.next_event()? {
                let kind = String::from_utf8(frame.name.to_vec())?;
                if kind == "error" {
                    bail!("the server ended the stream: {}", frame.text());
                }
                // A heartbeat names no type.
                if kind.is_empty() {
                    continue;
                }
                let id = frame.id.as_deref().context("an event without an id")?;
                let event = RunEvent {
                    id: std::str::from_utf8(id)?.parse()?,
                    kind,
                    event: serde_json::from_slice(&frame.data)?,
                };
                self.seen.push(event.clone());
                return Ok(Some(event));
            }
            match self.answer.next().await? {
                Some(bytes) => self.decoder.push(bytes),
                None => return Ok(None),
            }
        }
    }

    /// Reads until an event of this type, and returns it.
    pub async fn until(&mut self, kind: &str) -> anyhow::Result<RunEvent> {
        self.until_event(|event| event.kind == kind)
            .await
            .with_context(|| format!("waiting for {kind}"))
    }

    /// Reads until an event that meets the condition, and returns it.
    pub async fn until_event(
        &mut self,
        wanted: impl Fn(&RunEvent) -> bool,
    ) -> anyhow::Result<RunEvent> {
        while let Some(event) = self.next().await? {
            if wanted(&event) {
                return Ok(event);
            }
        }
        bail!("the stream ended before: {:#?}", self.seen)
    }

    /// Reads to the end of the stream; returns everything seen.
    pub async fn rest(mut self) -> anyhow::Result<Vec<RunEvent>> {
        while self.next().await?.is_some() {}
        Ok(self.seen)
    }
}

/// Checks the rules for the events of every ended run, whatever happened to it:
///
/// - ids strictly increase, and each event names its predecessor: nothing is missing, nothing is
///   repeated;
/// - there is one terminal event, and it is the last;
/// - every attempt but the first begins with a reset to an event of an earlier attempt; a reset within
///   an attempt withdraws a turn, and goes back, too.
pub fn check_log(events: &[RunEvent]) -> anyhow::Result<()> {
    let mut last = 0;
    for event in events {
        let prev = event.event["prev"].as_u64();
        ensure!(event.id > last, "{} comes behind {last}", event.id);
        ensure!(
            prev == Some(last),
            "{} names {prev:?}, not {last}",
            event.id
        );
        let new_attempt = last != 0 && event.attempt() != last >> 32;
        ensure!(
            !new_attempt || event.kind == "attempt.reset",
            "attempt {} begins with {}",
            event.attempt(),
            event.kind
        );
        if event.kind == "attempt.reset" {
            let back_to = event.event["data"]["resume_after"].as_u64();
            ensure!(
                back_to.is_some_and(|back_to| {
                    if new_attempt {
                        back_to >> 32 < event.attempt()
                    } else {
                        back_to < event.id
                    }
                }),
                "a reset to {back_to:?} by {}",
                event.id
            );
        }
        last = event.id;
    }
    let ends = events.iter().filter(|event| event.is_terminal()).count();
    ensure!(ends == 1, "{ends} terminal events");
    ensure!(
        events.last().is_some_and(RunEvent::is_terminal),
        "something follows the terminal event"
    );
    Ok(())
}

/// Returns the text that remains after all resets.
pub fn shown_text(events: &[RunEvent]) -> String {
    let mut shown: Vec<&RunEvent> = Vec::new();
    for event in events {
        if event.kind == "attempt.reset" && event.event["data"]["continues"] != true {
            let back_to = event.event["data"]["resume_after"].as_u64().unwrap_or(0);
            shown.retain(|event| event.id <= back_to);
        }
        shown.push(event);
    }
    shown.iter().map(|event| event.text()).collect()
}
