//! Streams a chat's answer while the run is active.

use axum::body::Body;
use axum::response::Response;
use baton_nats::Followed;
use baton_openai::ChunkWriter;
use baton_protocol::{EventData, RunId};
use baton_service::RequestTrace;
use bytes::BytesMut;

use super::Chat;
use super::frames::{ChatFrames, shows, standing};
use crate::error::ApiError;
use crate::metrics::{self, StreamEnd, Wire};
use crate::routes::run_stream::{Client, Frames, RunStream};
use crate::routes::sse::{self, PING};
use crate::run::ledger::Recorded;
use crate::run::relay::{Heard, Interruption, Relay};

impl Chat {
    fn frames(&self) -> ChatFrames {
        ChatFrames::new(self.run, &self.model, self.include_usage)
            .with_older_calls(self.older_calls)
    }

    /// Streams the run's events.
    pub(super) async fn stream(self, relay: Relay, client: Client) -> Result<Response, ApiError> {
        let frames = self.frames();
        let mut stream = RunStream::new(relay, Chunks { chat: self, frames }, client);
        stream.begin().await?;
        Ok(stream.into_response())
    }

    /// Streams the answer of a run that had already ended when the request was repeated.
    pub(super) fn stream_recorded(self, recorded: &Recorded) -> Result<Response, ApiError> {
        let (answer, finish) = self.recorded_answer(recorded)?;
        let mut out = BytesMut::new();
        self.frames()
            .write_whole(&mut out, &answer, finish, recorded.usage);
        Ok(sse::response(Some(self.run), Body::from(out.freeze())))
    }
}

/// A chat's answer as chunks.
struct Chunks {
    chat: Chat,
    frames: ChatFrames,
}

impl RunStream<Chunks> {
    /// Waits for something to show. A run that ends before that is answered with a status.
    async fn begin(&mut self) -> Result<(), ApiError> {
        while !self.frames.frames.began() {
            match self.relay.next().await {
                Ok(Heard::Events(batch)) => {
                    if let Some(error) = self.frames.early_failure(&self.relay, &batch) {
                        self.end(StreamEnd::Error);
                        return Err(error);
                    }
                    self.show(&batch).await;
                }
                // Send the head alone, so that no proxy takes the silence for the end.
                Ok(Heard::Quiet) => {
                    self.out.extend_from_slice(PING);
                    break;
                }
                Err(Interruption::Lost) => {
                    Box::pin(self.show_rest()).await;
                    break;
                }
                // The head names the run, so that the client can read the question.
                Err(Interruption::Parked) if self.frames.chat.waits_for_people => {
                    self.out.extend_from_slice(PING);
                    break;
                }
                Err(reason) => {
                    self.end(match reason {
                        Interruption::Revoked => StreamEnd::Revoked,
                        _ => StreamEnd::Error,
                    });
                    return Err(self.frames.chat.interrupted(reason));
                }
            }
        }
        let waited = self.relay.runs().clock.monotonic() - self.frames.chat.begun;
        metrics::first_event(Wire::Chat, &RequestTrace::current(), waited);
        Ok(())
    }
}

impl Chunks {
    /// Returns the failure of a run that has shown nothing, not in this batch either.
    fn early_failure(&self, relay: &Relay, batch: &[Followed]) -> Option<ApiError> {
        let events: Vec<_> = batch.iter().map(|followed| &followed.event).collect();
        for event in standing(&events) {
            match &event.data {
                EventData::RunFailed(end) => {
                    let worked = relay.has_worked();
                    return Some(ApiError::run_failed(self.chat.run, &end.error, worked));
                }
                EventData::RunCancelled(end) => return Some(self.chat.cancelled(&end.reason)),
                data if shows(data) => return None,
                _ => {}
            }
        }
        None
    }
}

impl Frames for Chunks {
    const WIRE: Wire = Wire::Chat;
    const PING: &'static [u8] = PING;

    async fn show(
        &mut self,
        out: &mut BytesMut,
        _: &Relay,
        events: &[Followed],
    ) -> Option<StreamEnd> {
        let events: Vec<_> = events.iter().map(|followed| &followed.event).collect();
        let mut standing = standing(&events);
        standing.find_map(|event| self.frames.write(out, event))
    }

    async fn show_rest(&mut self, out: &mut BytesMut, relay: &Relay) -> StreamEnd {
        let found = Recorded::find(&relay.runs().store, relay.tenant(), self.chat.run).await;
        let Ok(Some(recorded)) = found else {
            let why = "the run's events cannot be read";
            self.frames.interrupted(out, "events_unavailable", why);
            return StreamEnd::Error;
        };
        match self.chat.recorded_answer(&recorded) {
            Ok((answer, finish)) if !self.frames.began() => {
                self.frames
                    .write_whole(out, &answer, finish, recorded.usage);
                return StreamEnd::Finished;
            }
            Ok(_) => {
                let why = "the rest of the answer was lost on its way and is recorded";
                self.frames.interrupted(out, "events_lost", why);
            }
            Err(error) => ChunkWriter::error(out, &error.to_openai()),
        }
        StreamEnd::Error
    }

    fn interrupt(
        &mut self,
        out: &mut BytesMut,
        _: RunId,
        reason: Interruption,
    ) -> Option<StreamEnd> {
        Some(match reason {
            Interruption::Parked if self.chat.waits_for_people => {
                out.extend_from_slice(PING);
                return None;
            }
            Interruption::Parked => {
                ChunkWriter::error(out, &self.chat.interrupted(reason).to_openai());
                StreamEnd::Parked
            }
            Interruption::Revoked => {
                let error = ApiError::credential_ended();
                self.frames
                    .interrupted(out, "credential_ended", &error.message);
                StreamEnd::Revoked
            }
            Interruption::Stopping => {
                let why = "this server is stopping";
                self.frames.interrupted(out, "server_stopping", why);
                StreamEnd::Drained
            }
            Interruption::Lost | Interruption::Unreadable => {
                let why = "the run's events cannot be read";
                self.frames.interrupted(out, "events_unavailable", why);
                StreamEnd::Error
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size<A, F>(_: &impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_stream_holds_little_while_it_waits() {
        let next = size::<&'static mut RunStream<Chunks>, _>(&RunStream::next);
        assert!(next < 2 << 10);
    }
}
