//! One answer while it arrives.

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
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::answer_decoder::{AnswerDecoder, Rest};
use super::quote::Quote;
use super::{ModelError, Wait};

/// What has arrived already is handed out together, up to this many bytes of the stream.
const MAX_BATCH: usize = 64 * 1024;

/// Until when to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) first_byte: Instant,
    pub(super) idle: Duration,
    pub(super) total: Instant,
}

/// A call that the model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledTool {
    /// Its id, as the upstream gave it, or made up if it gave none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, JSON as the model wrote it.
    pub arguments: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct FinishedTurn {
    /// The assistant's message, an OpenAI chat object.
    pub message: Box<RawValue>,
    /// What it calls.
    pub tool_calls: Vec<CalledTool>,
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// Tokens, as the upstream counted them; zero if it did not.
    pub usage: Usage,
    /// Whether it did.
    pub usage_told: bool,
    /// Tokens of the prompt that the upstream says it had read before.
    pub cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
}

/// What had arrived of an answer that was broken off.
#[derive(Debug, Clone)]
pub struct PartialTurn {
    /// The assistant's message so far, an OpenAI chat object.
    pub message: Box<RawValue>,
    /// Tokens, if the upstream had told them already.
    pub usage: Option<Usage>,
    /// Tokens of the prompt that the upstream says it had read before.
    pub cached_tokens: u64,
    /// The model that answered, if the upstream named it.
    pub model: Option<String>,
    /// How many bytes of text and arguments it is.
    pub bytes: usize,
}

/// An answer that arrives. Dropping it closes the connection, and with it the upstream's work.
#[derive(Debug)]
pub struct TurnStream {
    /// Nothing once the answer has ended.
    response: Option<Response>,
    decoder: AnswerDecoder,
    accumulator: ChatAccumulator,
    /// Read, and not yet handed out.
    deltas: Vec<Delta>,
    /// What broke behind them: told once they have been.
    failed: Option<ModelError>,
    deadlines: Deadlines,
    last_read: Option<Instant>,
    quote: Arc<Quote>,
    draining: TaskTracker,
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
        }
    }

    /// Reads until something can be shown, or until the answer has ended without.
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

    /// What has arrived since the last batch, waiting for it if need be; nothing once the answer
    /// has ended. An answer that breaks is handed out as far as it came, then the error. Cancel-safe: what was read is handed out by the next call, and waiting goes on
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

    /// The whole answer, after the last batch. A stream that ended before the model said why it
    /// stopped is an error.
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
            // Some upstreams say `stop` with calls.
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

    /// The token counts, if the upstream has told them.
    pub fn usage(&self) -> Option<Usage> {
        self.accumulator.usage().map(known_usage)
    }

    /// The details of the token counts, once the answer has ended.
    pub fn usage_details(&self) -> Vec<Delta> {
        self.accumulator.usage_details()
    }

    /// The model that answers, once the upstream has named it.
    pub fn model(&self) -> Option<&str> {
        self.accumulator.model()
    }

    /// How many bytes of text and arguments have arrived.
    pub const fn bytes(&self) -> usize {
        self.accumulator.bytes()
    }

    /// Whether the answer is whole: to be asked after the last batch, before [`TurnStream::finish`].
    pub fn check(&self) -> Result<(), ModelError> {
        self.accumulator.check().map_err(|error| self.error(error))
    }

    /// Breaks the answer off: the connection is closed at once, and with it the upstream's work.
    /// Yields what was read and not yet handed out, and the whole of what had arrived, that
    /// included; nothing if it cannot be written as JSON.
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

    /// A body without a stream: an answer, an error, or a chunk a line.
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

    /// The upstream's words in an error are cut, and cleared of the key.
    fn error(&self, error: AccumulateError) -> ModelError {
        match error {
            AccumulateError::Reported(error) => ModelError::Reported(self.quote.apply(error)),
            AccumulateError::BadEnd(reason) => ModelError::BadEnd {
                reason: self.quote.apply(ErrorObject::new("", "", reason)).message,
            },
            error => error.into(),
        }
    }

    /// The body has ended. Some servers leave out `[DONE]`, or the empty line behind it: what
    /// counts is whether the model said why it stopped.
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

    /// The event that the stream ended in the middle of: it may be whole, or half a chunk.
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

    /// The connection broke or fell silent: no harm if the answer was whole by then.
    fn broken(&mut self, error: ModelError) -> Result<(), ModelError> {
        self.response = None;
        if self.accumulator.is_surely_complete() {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// The answer is whole. Nearly always the end of the body has arrived with it; else it is
    /// waited for aside, so that the connection can be used again.
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

/// The chunks of an event: some servers leave out the empty line between two.
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

/// Reads what is left of a finished answer, so that its connection can be used again.
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
    // Given up on, the connection is closed: that is all there is to do.
    let _ = timeout(PATIENCE, rest).await;
}
