//! A response's events as they are made, from any of them on.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use baton_nats::{EventFollower, FollowError, Followed};
use baton_protocol::{EventId, RunId};
use baton_responses::{ResponseHead, ResponseStream, SequenceNumber, StreamEnd as WireEnd};
use baton_store::Store;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::StatusCode;

use super::record::ResponseRecord;
use super::{events_unavailable, parked, stopping};
use crate::access::Caller;
use crate::access::stream_cap::StreamPlace;
use crate::error::ApiError;
use crate::metrics::{self, StreamEnd, StreamGauge, Wire};
use crate::routes::sse::{self, PING};
use crate::run::attachments::Attachment;
use crate::run::event_source::{Source, Told, events_expired, tell_from};
use crate::run::followers::{EndsWith, Followers};
use crate::run::relay::{Heard, Relay};
use crate::run::replay::{FromLedger, from_ledger};

/// The client of a stream.
pub(super) struct Client {
    pub(super) attachment: Attachment,
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) place: StreamPlace,
    /// Whether the stream stays open while the run waits for a person.
    pub(super) waits_for_people: bool,
}

/// Opens the events after `after` of a run that exists already.
pub(super) async fn open(
    followers: &Followers,
    caller: &Caller,
    head: ResponseHead,
    after: Option<SequenceNumber>,
    mut client: Client,
) -> Result<Response, ApiError> {
    let (tenant, run) = (caller.tenant, head.run);
    // The frames are a function of the whole log, so it is read from its first event.
    let told = tell_from(
        &followers.runs,
        tenant,
        run,
        EventId::ORIGIN,
        Source::Stream,
    )
    .await?;
    let writer = ResponseStream::new(head, after);
    match told {
        Told::Nothing => Ok(sse::response(Some(run), Body::empty())),
        Told::Log(follower) => Ok(follow(followers, caller, writer, *follower, client, None)),
        Told::Parked(events, follower) => {
            let writer =
                rebuilt(&followers.runs.store, caller, writer, run, after, &events).await?;
            let mut stream = ResponseEvents::new(followers, caller, writer, *follower, client);
            stream.show(&events).await;
            Ok(stream.into_response())
        }
        Told::Ledger(events) => {
            client.attachment.detach();
            let mut writer =
                rebuilt(&followers.runs.store, caller, writer, run, after, &events).await?;
            let mut out = BytesMut::new();
            writer.begin(&mut out);
            for followed in &events {
                if followed.event.data.is_terminal() && writer.needs_record() {
                    let record = ResponseRecord::load(&followers.runs.store, tenant, run).await?;
                    writer.use_record(record.output()?);
                }
                writer.write(&mut out, &followed.event);
            }
            Ok(sse::response(Some(run), Body::from(out.freeze())))
        }
    }
}

/// Streams a run that is followed from its first event. `begun` is the time of its request, if the
/// run is new.
pub(super) fn follow(
    followers: &Followers,
    caller: &Caller,
    writer: ResponseStream,
    follower: EventFollower,
    client: Client,
    begun: Option<Instant>,
) -> Response {
    let mut stream = ResponseEvents::new(followers, caller, writer, follower, client);
    stream.begun = begun;
    stream.into_response()
}

/// Prepares a stream of rebuilt events; refuses a cursor after which they do not go on exactly.
async fn rebuilt(
    store: &Store,
    caller: &Caller,
    writer: ResponseStream,
    run: RunId,
    after: Option<SequenceNumber>,
    events: &[Followed],
) -> Result<ResponseStream, ApiError> {
    if let Some(after) = after.filter(|after| after.event != EventId::ORIGIN) {
        let known = events
            .iter()
            .find(|followed| followed.event.id == after.event);
        let known = known.map(|followed| &followed.event.data);
        let goes_on = known.is_some() && ResponseStream::resumes_rebuilt(after, known);
        let is_exact = async || {
            let rest = from_ledger(store, caller.tenant, run, after.event).await?;
            Ok::<_, ApiError>(!matches!(rest, FromLedger::CursorUnknown))
        };
        if !goes_on || !is_exact().await? {
            return Err(lies_within_a_text(run));
        }
    }
    Ok(writer.rebuilt())
}

/// The stream has lost what follows, and the ledger knows only where texts end.
fn lies_within_a_text(run: RunId) -> ApiError {
    let message = format!(
        "the events after `starting_after` are no longer stored, and it lies within a text: begin \
         again without it, or read the response, GET /v1/responses/resp_{run}"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message)
        .param("starting_after")
        .of_run(run)
}

/// One stream, pulled by the connection.
struct ResponseEvents {
    relay: Relay,
    writer: ResponseStream,
    out: BytesMut,
    client: Client,
    gauge: StreamGauge,
    begun: Option<Instant>,
    ended: bool,
}

impl ResponseEvents {
    fn new(
        followers: &Followers,
        caller: &Caller,
        mut writer: ResponseStream,
        follower: EventFollower,
        client: Client,
    ) -> Self {
        let run = writer.run();
        // A client that may resume elsewhere is sent there early.
        let ends_with = if client.waits_for_people {
            EndsWith::Native
        } else {
            EndsWith::All
        };
        let mut out = BytesMut::new();
        writer.begin(&mut out);
        Self {
            relay: followers.relay(caller, run, follower, ends_with),
            writer,
            out,
            client,
            gauge: StreamGauge::open(Wire::Responses),
            begun: None,
            ended: false,
        }
    }

    fn into_response(self) -> Response {
        let run = self.relay.run();
        let body = stream::unfold(self, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok::<_, Infallible>(frame), stream))
        });
        sse::response(Some(run), Body::from_stream(body))
    }

    /// The next bytes; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.ended {
            match self.relay.next().await {
                Ok(Heard::Events(batch)) => {
                    self.show(&batch).await;
                    if let Some(begun) = self.begun.take_if(|_| !self.out.is_empty()) {
                        let waited = self.relay.runs().clock.monotonic() - begun;
                        metrics::first_event(Wire::Responses, waited.as_secs_f64());
                    }
                }
                Ok(Heard::Quiet) => self.out.extend_from_slice(PING),
                Ok(Heard::Parked) if self.client.waits_for_people => {}
                Ok(Heard::Parked) => self.fail(&parked(self.relay.run()), StreamEnd::Parked),
                Ok(Heard::LogLost) | Err(FollowError::Expired { .. }) => {
                    self.go_on_from_ledger().await;
                }
                Ok(Heard::Stopping) => {
                    self.fail(&stopping(self.relay.run()), StreamEnd::Drained);
                }
                Ok(Heard::Revoked) => {
                    self.writer
                        .error(&mut self.out, &ApiError::credential_ended().to_openai());
                    // Without `detach`: the client counts as gone, and a foreground run with it.
                    self.ended = true;
                    self.gauge.ends(StreamEnd::Revoked);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a run was lost sight of"
                    );
                    self.fail(&events_unavailable(self.relay.run()), StreamEnd::Error);
                }
            }
        }
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    async fn show(&mut self, batch: &[Followed]) {
        for followed in batch {
            if followed.event.data.is_terminal() && self.writer.needs_record() {
                let (tenant, run) = (self.relay.tenant(), self.relay.run());
                let record = ResponseRecord::load(&self.relay.runs().store, tenant, run).await;
                match record.and_then(|record| record.output()) {
                    Ok(items) => self.writer.use_record(items),
                    Err(error) => return self.fail(&error, StreamEnd::Error),
                }
            }
            match self.writer.write(&mut self.out, &followed.event) {
                None => {}
                Some(WireEnd::Finished) => return self.end(StreamEnd::Finished),
                Some(WireEnd::Error) => return self.end(StreamEnd::Error),
            }
        }
    }

    /// Events are lost. If the run has ended, the ledger has the rest.
    async fn go_on_from_ledger(&mut self) {
        let (tenant, run) = (self.relay.tenant(), self.relay.run());
        match from_ledger(&self.relay.runs().store, tenant, run, self.relay.last_id()).await {
            Ok(FromLedger::Events(events)) => self.show(&events).await,
            Ok(FromLedger::CursorUnknown) => {
                self.fail(&lies_within_a_text(run), StreamEnd::Error);
            }
            // A client that comes again is shown what a person is asked.
            Ok(FromLedger::NotEnded | FromLedger::Parked(..)) => {
                self.fail(&events_expired(run), StreamEnd::Error);
            }
            Err(error) => self.fail(&error, StreamEnd::Error),
        }
    }

    /// Ends the stream although the response goes on.
    fn fail(&mut self, error: &ApiError, end: StreamEnd) {
        self.writer.error(&mut self.out, &error.to_openai());
        self.end(end);
    }

    /// Nothing more is to come, and the client's leaving means nothing from here on.
    fn end(&mut self, end: StreamEnd) {
        self.ended = true;
        self.client.attachment.detach();
        self.gauge.ends(end);
    }
}
