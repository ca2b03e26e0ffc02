//! Reads one answer while it arrives.

use std::sync::Arc;
use std::time::Duration;

use baton_openai::{
    AccumulateError, ChatAccumulator, ChatChunk, Delta, ErrorObject, FinishReason as EndOfAnswer,
    SseEvent,
};
use baton_protocol::{FinishReason, Usage};
use bytes::Bytes;
use futures_util::FutureExt as _;
use reqwest::Response;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::answer_decoder::{AnswerDecoder, Rest};
use super::quote::Quote;
use super::{ModelError, Wait};

/// The most bytes of the stream that are returned in one batch.
const MAX_BATCH: usize = 64 * 1024;

/// The deadlines of the parts of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) first_byte: Instant,
    pub(super) idle: Duration,
    pub(super) total: Instant,
}

/// A call that the model requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledTool {
    /// Its id, as the upstream gave it, or generated if it gave none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, JSON as the model wrote it.
    pub arguments: String,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct FinishedTurn {
    /// The assistant's message, an OpenAI chat object.
    pub message: Box<RawValue>,
    /// The calls that it requests.
    pub tool_calls: Vec<CalledTool>,
    /// The reason why the model stopped.
    pub finish_reason: FinishReason,
    /// The upstream's token counts; zero if it reported none.
    pub usage: Usage,
    /// Whether the upstream reported them.
    pub usage_told: bool,
    /// The part of the prompt tokens that the upstream reported as cached.
    pub cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
}

/// The received part of an answer that was broken off.
#[derive(Debug, Clone)]
pub struct PartialTurn {
    /// The assistant's message so far, an OpenAI chat object.
    pub message: Box<RawValue>,
    /// The token counts, if the upstream had already reported them.
    pub usage: Option<Usage>,
    /// The part of the prompt tokens that the upstream reported as cached.
    pub cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
    /// The bytes of its text and arguments.
    pub bytes: usize,
}

/// An answer that is arriving. Dropping it closes the connection, so that the upstream stops.
#[derive(Debug)]
pub struct TurnStream {
    /// `None` once the answer has ended.
    response: Option<Response>,
    decoder: AnswerDecoder,
    accumulator: ChatAccumulator,
    /// Read, but not yet returned.
    deltas: Vec<Delta>,
    /// The error after these deltas: returned once they have been.
    failed: Option<ModelError>,
    deadlines: Deadlines,
    last_read: Option<Instant>,
    quote: Arc<Quote>,
    draining: TaskTracker,
    /// The answer's place among the requests that the upstream may have at once.
    _place: Option<OwnedSemaphorePermit>,
}

impl TurnStream {
    pub(super) fn new(
        response: Response,
        decoder: AnswerDecoder,
        accumulator: ChatAccumulator,
        deadlines: Deadlines,
        quote: Arc<Quote>,
        draining: TaskTracker,
    ) -> Self {
        Self {
            response: Some(response),
            decoder,
            accumulator,
            deltas: Vec::new(),
            failed: None,
            deadlines,
            last_read: None,
            quote,
            draining,
            _place: None,
        }
    }

    /// Keeps a place at the upstream until the answer has ended.
    pub(super) fn holding(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            _place: place,
            ..self
        }
    }

    /// Reads until there is something to show, or until the answer has ended without.
    pub(super) async fn read_first(&mut self) -> Result<(), ModelError> {
        let has_begun = |deltas: &[Delta]| deltas.iter().any(Delta::is_answer);
        while !has_begun(&self.deltas) && self.response.is_some() {
            self.read().await?;
        }
        if has_begun(&self.deltas) {
            Ok(())
        } else {
            self.check()
        }
    }

    /// Returns the deltas since the last batch, and waits for some if necessary; `None` once the
    /// answer has ended. If an answer breaks off, returns its received part first, then the error.
    /// Cancel-safe: deltas that were read are returned by the next call, and the wait continues
    /// against the same deadline.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Delta>>, ModelError> {
        loop {
            if !self.deltas.is_empty() {
                return Ok(Some(std::mem::take(&mut self.deltas)));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.response.is_none() {
                return Ok(None);
            }
            self.failed = self.read().await.err();
        }
    }

    /// Returns the complete answer, after the last batch. Fails if the stream ended before the
    /// reason why the model stopped.
    pub fn finish(self) -> Result<FinishedTurn, ModelError> {
        self.check()?;
        let finished = self.accumulator.finish()?;
        let tool_calls: Vec<_> = finished
            .message
            .tool_calls
            .iter()
            .flatten()
            .map(|call| CalledTool {
                id: call.id.clone(),
                name: call.name().to_owned(),
                arguments: call.arguments().to_owned(),
            })
            .collect();
        let finish_reason = match finished.finish_reason {
            EndOfAnswer::Length => FinishReason::Length,
            EndOfAnswer::ContentFilter => FinishReason::ContentFilter,
            // Some upstreams send `stop` along with calls.
            _ if !tool_calls.is_empty() => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        let usage = finished.usage.as_ref().map(known_usage).unwrap_or_default();
        let cached_tokens = cached_tokens(finished.usage.as_ref());
        let message = to_raw_value(&finished.message).map_err(|source| ModelError::Invalid {
            what: "the answer cannot be written as JSON",
            source: Some(source),
        })?;
        Ok(FinishedTurn {
            message,
            tool_calls,
            finish_reason,
            usage,
            usage_told: finished.usage.is_some(),
            cached_tokens,
            model: finished.model,
        })
    }

    /// Returns the token counts, if the upstream has reported them.
    pub fn usage(&self) -> Option<Usage> {
        self.accumulator.usage().map(known_usage)
    }

    /// Returns the details of the token counts, once the answer has ended.
    pub fn usage_details(&self) -> Vec<Delta> {
        self.accumulator.usage_details()
    }

    /// Returns the model that answers, once the upstream has named it.
    pub fn model(&self) -> Option<&str> {
        self.accumulator.model()
    }

    /// Returns the bytes of text and arguments that have arrived.
    pub const fn bytes(&self) -> usize {
        self.accumulator.bytes()
    }

    /// Checks that the answer is complete. Called after the last batch, before
    /// [`TurnStream::finish`].
    pub fn check(&self) -> Result<(), ModelError> {
        self.accumulator.check().map_err(|error| self.error(error))
    }

    /// Breaks the answer off: closes the connection at once, so that the upstream stops. Returns
    /// the deltas that were read but not yet returned, and the whole received part, which includes
    /// them; `None` if it cannot be written as JSON.
    pub fn cut(self) -> (Vec<Delta>, Option<PartialTurn>) {
        drop(self.response);
        let usage = self.accumulator.usage().map(known_usage);
        let cached_tokens = cached_tokens(self.accumulator.usage());
        let bytes = self.accumulator.bytes();
        let model = self.accumulator.model().map(str::to_owned);
        let message = to_raw_value(&self.accumulator.into_partial()).ok();
        let partial = message.map(|message| PartialTurn {
            message,
            usage,
            cached_tokens,
            model,
            bytes,
        });
        (self.deltas, partial)
    }

    /// Waits for bytes, then takes all that are there without waiting again.
    async fn read(&mut self) -> Result<(), ModelError> {
        let (deadline, wait) = self.deadline();
        let Some(response) = &mut self.response else {
            return Ok(());
        };
        let Ok(mut chunk) = timeout_at(deadline, response.chunk()).await else {
            return self.broken(ModelError::TimedOut(wait));
        };
        self.last_read = Some(Instant::now());
        let mut read = 0;
        loop {
            match chunk {
                Ok(Some(bytes)) => {
                    read += bytes.len();
                    self.take(bytes)?;
                }
                Ok(None) => return self.ended(),
                Err(error) => {
                    let source = Some(error.without_url());
                    return self.broken(ModelError::Cut { source });
                }
            }
            let Some(response) = &mut self.response else {
                return Ok(());
            };
            if read >= MAX_BATCH {
                return Ok(());
            }
            match response.chunk().now_or_never() {
                Some(next) => chunk = next,
                None => return Ok(()),
            }
        }
    }

    fn deadline(&self) -> (Instant, Wait) {
        let (deadline, wait) = match self.last_read {
            None => (self.deadlines.first_byte, Wait::FirstByte),
            Some(last) => (last + self.deadlines.idle, Wait::NextByte),
        };
        if deadline < self.deadlines.total {
            (deadline, wait)
        } else {
            (self.deadlines.total, Wait::WholeAnswer)
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), ModelError> {
        self.decoder.push(bytes)?;
        while let Some(event) = self.decoder.next_event()? {
            for event in one_by_one(event) {
                if is_done(&event) {
                    self.release();
                    return Ok(());
                }
                self.take_event(&event)?;
            }
        }
        Ok(())
    }

    fn take_event(&mut self, event: &SseEvent) -> Result<(), ModelError> {
        if &event.name[..] == b"error" {
            return Err(ModelError::Reported(self.quote.apply(error_event(event))));
        }
        if event.data.trim_ascii().is_empty() {
            return Ok(());
        }
        self.take_chunk(&event.data)
    }

    fn take_chunk(&mut self, json: &[u8]) -> Result<(), ModelError> {
        let chunk: ChatChunk<'_> = match serde_json::from_slice(json) {
            Ok(chunk) => chunk,
            Err(source) => {
                return Err(match ErrorObject::of_body(json) {
                    Some(error) => ModelError::Reported(self.quote.apply(error)),
                    None => ModelError::Invalid {
                        what: "a chunk is not JSON of the expected shape",
                        source: Some(source),
                    },
                });
            }
        };
        self.accumulator
            .fold(chunk, &mut self.deltas)
            .map_err(|error| self.error(error))
    }

    /// Takes a body without a stream: an answer, an error, or one chunk per line.
    fn take_json(&mut self, body: &[u8]) -> Result<(), ModelError> {
        for value in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
            match value {
                Ok(value) => self.take_chunk(value.get().as_bytes())?,
                Err(error) if error.is_eof() => return Err(ModelError::Cut { source: None }),
                Err(source) => {
                    return Err(ModelError::Invalid {
                        what: "it answers with neither a stream nor JSON",
                        source: Some(source),
                    });
                }
            }
        }
        if self.deltas.is_empty() && !self.accumulator.is_complete() {
            return Err(ModelError::Invalid {
                what: "it answers with JSON that holds no answer",
                source: None,
            });
        }
        Ok(())
    }

    /// Converts an error; the upstream's words are truncated, and the key is removed from them.
    fn error(&self, error: AccumulateError) -> ModelError {
        match error {
            AccumulateError::Reported(error) => ModelError::Reported(self.quote.apply(error)),
            AccumulateError::BadEnd(reason) => ModelError::BadEnd {
                reason: self.quote.apply(ErrorObject::new("", "", reason)).message,
            },
            error => error.into(),
        }
    }

    /// Handles the end of the body. Some servers omit `[DONE]`, or the empty line after it: the
    /// answer is complete if the model gave the reason why it stopped.
    fn ended(&mut self) -> Result<(), ModelError> {
        self.response = None;
        let decoder = std::mem::replace(&mut self.decoder, AnswerDecoder::new(0));
        match decoder.finish() {
            Rest::Json(body) => self.take_json(&body),
            Rest::Event(event) => self.take_last(event),
            Rest::Nothing => Ok(()),
        }?;
        if self.accumulator.is_complete() {
            Ok(())
        } else {
            Err(ModelError::Cut { source: None })
        }
    }

    /// Takes the event that the stream broke off in: it may be complete, or half a chunk.
    fn take_last(&mut self, event: SseEvent) -> Result<(), ModelError> {
        for event in one_by_one(event) {
            if is_done(&event) {
                return Ok(());
            }
            match self.take_event(&event) {
                Err(ModelError::Invalid { .. }) if self.accumulator.is_surely_complete() => {}
                Err(ModelError::Invalid { .. }) => return Err(ModelError::Cut { source: None }),
                other => other?,
            }
        }
        Ok(())
    }

    /// Handles a broken or silent connection: no error if the answer was complete by then.
    fn broken(&mut self, error: ModelError) -> Result<(), ModelError> {
        self.response = None;
        if self.accumulator.is_surely_complete() {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Releases the connection of a complete answer. The end of the body has usually arrived with
    /// it; otherwise a background task waits for it, so that the connection can be reused.
    fn release(&mut self) {
        let Some(mut response) = self.response.take() else {
            return;
        };
        if !matches!(response.chunk().now_or_never(), Some(Ok(None) | Err(_))) {
            self.draining.spawn(drain(response));
        }
    }
}

const fn known_usage(usage: &baton_openai::Usage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.total_tokens,
        estimated: false,
    }
}

fn cached_tokens(usage: Option<&baton_openai::Usage>) -> u64 {
    usage.map_or(0, baton_openai::Usage::cached_tokens)
}

/// Returns the chunks of an event: some servers omit the empty line between two.
fn one_by_one(event: SseEvent) -> Vec<SseEvent> {
    let data = &event.data;
    if !data.contains(&b'\n') || serde_json::from_slice::<&RawValue>(data).is_ok() {
        return vec![event];
    }
    let lines = data.split(|byte| *byte == b'\n');
    lines
        .map(|line| SseEvent {
            data: data.slice_ref(line),
            ..event.clone()
        })
        .collect()
}

fn is_done(event: &SseEvent) -> bool {
    event.data.trim_ascii() == b"[DONE]"
}

fn error_event(event: &SseEvent) -> ErrorObject {
    ErrorObject::of_body(&event.data).unwrap_or_else(|| {
        let words = event.text();
        let words = if words.trim().is_empty() {
            "it does not say which"
        } else {
            words.trim()
        };
        ErrorObject::new("api_error", "error", words)
    })
}

/// Reads the rest of a finished answer, so that its connection can be reused.
async fn drain(mut response: Response) {
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOST: usize = 64 * 1024;
    let rest = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MOST {
                break;
            }
        }
    };
    // On a time-out the connection is closed, and nothing else is needed.
    let _ = timeout(PATIENCE, rest).await;
}
