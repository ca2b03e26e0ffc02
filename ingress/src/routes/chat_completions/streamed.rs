//! Streams a chat's answer while the run is active.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use baton_nats::{FollowError, Followed};
use baton_protocol::EventData;
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::Chat;
use super::frames::{ChatFrames, shows, standing};
use crate::access::stream_cap::StreamPlace;
use crate::error::ApiError;
use crate::metrics::{self, StreamEnd, StreamGauge, Wire};
use crate::routes::sse::{self, PING};
use crate::run::attachments::Attachment;
use crate::run::ledger::Recorded;
use crate::run::relay::{Heard, Relay};

/// One streamed answer, pulled by the connection.
struct ChatStream {
    chat: Chat,
    relay: Relay,
    frames: ChatFrames,
    out: BytesMut,
    attachment: Attachment,
    /// Held for the life of the stream.
    _place: StreamPlace,
    gauge: StreamGauge,
    ended: bool,
}

impl Chat {
    fn frames(&self) -> ChatFrames {
        ChatFrames::new(self.run, &self.model, self.include_usage)
            .with_older_calls(self.older_calls)
    }

    /// Streams the run's events.
    pub(super) async fn stream(
        self,
        relay: Relay,
        attachment: Attachment,
        place: StreamPlace,
    ) -> Result<Response, ApiError> {
        let frames = self.frames();
        let run = self.run;
        let mut stream = ChatStream {
            chat: self,
            relay,
            frames,
            out: BytesMut::new(),
            attachment,
            _place: place,
            gauge: StreamGauge::open(Wire::Chat),
            ended: false,
        };
        stream.begin().await?;
        let body = stream::unfold(stream, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok::<_, Infallible>(frame), stream))
        });
        Ok(sse::response(Some(run), Body::from_stream(body)))
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

impl ChatStream {
    /// Waits for something to show. A run that ends before that is answered with a status.
    async fn begin(&mut self) -> Result<(), ApiError> {
        while !self.frames.began() {
            let error = match self.relay.next().await {
                Ok(Heard::Events(batch)) => {
                    let Some(error) = self.early_failure(&batch) else {
                        self.show(&batch);
                        continue;
                    };
                    error
                }
                // Send the head alone, so that no proxy takes the silence for the end.
                Ok(Heard::Quiet) => {
                    self.out.extend_from_slice(PING);
                    break;
                }
                Ok(Heard::LogLost) | Err(FollowError::Expired { .. }) => {
                    self.tell_from_ledger().await;
                    break;
                }
                Ok(Heard::Parked) => self.chat.parked(),
                Ok(Heard::Stopping) => self.chat.draining(),
                // The client counts as gone, so its run is cancelled: nobody may read it now.
                Ok(Heard::Revoked) => {
                    self.ended = true;
                    self.gauge.ends(StreamEnd::Revoked);
                    return Err(ApiError::credential_ended());
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a run was lost sight of"
                    );
                    self.chat.unfollowable()
                }
            };
            self.end(StreamEnd::Error);
            return Err(error);
        }
        let waited = self.relay.runs().clock.monotonic() - self.chat.begun;
        metrics::first_event(Wire::Chat, waited.as_secs_f64());
        Ok(())
    }

    /// Returns the failure of a run that has shown nothing, not in this batch either.
    fn early_failure(&self, batch: &[Followed]) -> Option<ApiError> {
        let events: Vec<_> = batch.iter().map(|followed| &followed.event).collect();
        for event in standing(&events) {
            match &event.data {
                EventData::RunFailed(end) => {
                    let worked = self.relay.has_worked();
                    return Some(ApiError::run_failed(self.chat.run, &end.error, worked));
                }
                EventData::RunCancelled(end) => return Some(self.chat.cancelled(&end.reason)),
                data if shows(data) => return None,
                _ => {}
            }
        }
        None
    }

    /// Returns the next bytes; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.ended {
            match self.relay.next().await {
                Ok(Heard::Events(batch)) => self.show(&batch),
                Ok(Heard::Quiet) => self.out.extend_from_slice(PING),
                Ok(Heard::LogLost) | Err(FollowError::Expired { .. }) => {
                    self.tell_from_ledger().await;
                }
                Ok(Heard::Parked) => {
                    let parked = self.chat.parked();
                    baton_openai::ChunkWriter::error(&mut self.out, &parked.to_openai());
                    self.end(StreamEnd::Parked);
                }
                Ok(Heard::Revoked) => {
                    let error = ApiError::credential_ended();
                    self.frames
                        .interrupted(&mut self.out, "credential_ended", &error.message);
                    // Not `end`: the client counts as gone, so its run is cancelled.
                    self.ended = true;
                    self.gauge.ends(StreamEnd::Revoked);
                }
                Ok(Heard::Stopping) => {
                    self.frames.interrupted(
                        &mut self.out,
                        "server_stopping",
                        "this server is stopping",
                    );
                    self.end(StreamEnd::Drained);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a run was lost sight of"
                    );
                    self.frames.interrupted(
                        &mut self.out,
                        "events_unavailable",
                        "the run's events cannot be read",
                    );
                    self.end(StreamEnd::Error);
                }
            }
        }
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    fn show(&mut self, batch: &[Followed]) {
        let events: Vec<_> = batch.iter().map(|followed| &followed.event).collect();
        for event in standing(&events) {
            if let Some(end) = self.frames.write(&mut self.out, event) {
                self.end(end);
                return;
            }
        }
    }

    /// Continues from the ledger after events were lost: it has the answer if the run has ended.
    async fn tell_from_ledger(&mut self) {
        let found =
            Recorded::find(&self.relay.runs().store, self.relay.tenant(), self.chat.run).await;
        let Ok(Some(recorded)) = found else {
            let why = "the run's events cannot be read";
            self.frames
                .interrupted(&mut self.out, "events_unavailable", why);
            self.end(StreamEnd::Error);
            return;
        };
        match self.chat.recorded_answer(&recorded) {
            Ok((answer, finish)) if !self.frames.began() => {
                self.frames
                    .write_whole(&mut self.out, &answer, finish, recorded.usage);
                self.end(StreamEnd::Finished);
            }
            Ok(_) => {
                self.frames.interrupted(
                    &mut self.out,
                    "events_lost",
                    "the rest of the answer was lost on its way and is recorded",
                );
                self.end(StreamEnd::Error);
            }
            Err(error) => {
                baton_openai::ChunkWriter::error(&mut self.out, &error.to_openai());
                self.end(StreamEnd::Error);
            }
        }
    }

    /// Ends the stream. From here on the client's leaving has no effect.
    fn end(&mut self, end: StreamEnd) {
        self.ended = true;
        self.attachment.detach();
        self.gauge.ends(end);
    }
}
