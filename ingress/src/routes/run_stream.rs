//! Streams a run's events to one client as server-sent events, in the frames of a protocol.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use baton_nats::Followed;
use baton_protocol::RunId;
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::sse;
use crate::access::stream_cap::StreamPlace;
use crate::metrics::{self, StreamEnd, StreamGauge, Wire};
use crate::run::attachments::Attachment;
use crate::run::relay::{Heard, Interruption, Relay};

/// A stream's client: its attachment to the run, and its place among the streams of its key. Both
/// end with the stream.
pub(crate) struct Client {
    pub(crate) attachment: Attachment,
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(crate) place: StreamPlace,
}

/// The frames of one protocol.
pub(crate) trait Frames: Send + 'static {
    const WIRE: Wire;
    /// The frame for one heartbeat interval without an event.
    const PING: &'static [u8];

    /// Writes events. Returns the end of the stream if they have it.
    fn show(
        &mut self,
        out: &mut BytesMut,
        relay: &Relay,
        events: &[Followed],
    ) -> impl Future<Output = Option<StreamEnd>> + Send;

    /// Writes the rest of a run after its events were lost: from the ledger, which has it if the run has
    /// ended.
    fn show_rest(
        &mut self,
        out: &mut BytesMut,
        relay: &Relay,
    ) -> impl Future<Output = StreamEnd> + Send;

    /// Writes the reason for which the stream ends before its run. Returns `None` if it stays open.
    fn interrupt(
        &mut self,
        out: &mut BytesMut,
        run: RunId,
        reason: Interruption,
    ) -> Option<StreamEnd>;
}

/// One stream, pulled by the connection.
pub(crate) struct RunStream<F> {
    pub(crate) relay: Relay,
    pub(crate) frames: F,
    pub(crate) out: BytesMut,
    client: Client,
    gauge: StreamGauge,
    /// The time of the request, until its first event is shown, if that is measured here.
    pub(crate) begun: Option<Instant>,
    ended: bool,
}

impl<F: Frames> RunStream<F> {
    pub(crate) fn new(relay: Relay, frames: F, client: Client) -> Self {
        Self {
            relay,
            frames,
            out: BytesMut::new(),
            client,
            gauge: StreamGauge::open(F::WIRE),
            begun: None,
            ended: false,
        }
    }

    /// Returns the answer that carries the stream.
    pub(crate) fn into_response(self) -> Response {
        let run = self.relay.run();
        let body = stream::unfold(self, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok::<_, Infallible>(frame), stream))
        });
        sse::response(Some(run), Body::from_stream(body))
    }

    /// Returns the next bytes; `None` after the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.ended {
            match self.relay.next().await {
                Ok(Heard::Events(batch)) => self.show(&batch).await,
                Ok(Heard::Quiet) => self.out.extend_from_slice(F::PING),
                // Rare, and so not kept room for in each stream.
                Err(Interruption::Lost) => Box::pin(self.show_rest()).await,
                Err(reason) => {
                    let run = self.relay.run();
                    if let Some(end) = self.frames.interrupt(&mut self.out, run, reason) {
                        self.end(end);
                    }
                }
            }
        }
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// Writes events.
    pub(crate) async fn show(&mut self, events: &[Followed]) {
        let end = self.frames.show(&mut self.out, &self.relay, events).await;
        if let Some(begun) = self.begun.take_if(|_| !self.out.is_empty()) {
            let waited = self.relay.runs().clock.monotonic() - begun;
            metrics::first_event(F::WIRE, self.gauge.trace(), waited);
        }
        if let Some(end) = end {
            self.end(end);
        }
    }

    /// Writes the rest of a run after its events were lost.
    pub(crate) async fn show_rest(&mut self) {
        let end = self.frames.show_rest(&mut self.out, &self.relay).await;
        self.end(end);
    }

    /// Ends the stream. From here on the client's leaving has no effect, unless its credential has
    /// ended: then it counts as gone.
    pub(crate) fn end(&mut self, end: StreamEnd) {
        self.ended = true;
        self.gauge.ends(end);
        if end != StreamEnd::Revoked {
            self.client.attachment.detach();
        }
    }
}
