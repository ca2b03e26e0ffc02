//! A response's events as they are made, from any of them on.

use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use baton_nats::{EventFollower, Followed};
use baton_protocol::{EventData, EventId, RunId, TenantId};
use baton_responses::{ResponseHead, ResponseStream, SequenceNumber, StreamEnd as WireEnd};
use baton_store::Store;
use bytes::BytesMut;
use http::StatusCode;

use super::interrupted;
use super::record::ResponseRecord;
use crate::access::Caller;
use crate::error::ApiError;
use crate::metrics::{StreamEnd, Wire};
use crate::routes::run_stream::{Client, Frames, RunStream};
use crate::routes::sse::{self, PING};
use crate::run::event_source::{EventsAfter, Source, events_expired, find_events};
use crate::run::followers::{EndsWith, Followers};
use crate::run::reader::RunReader;
use crate::run::relay::{Interruption, Relay};
use crate::run::replay::{FromLedger, from_ledger};

/// The events of a response, as frames.
pub(super) struct ResponseFrames {
    writer: ResponseStream,
    /// The client has everything up to this.
    after: Option<SequenceNumber>,
    /// The first frames, if the stream begins in the middle of the log.
    midway: Option<BytesMut>,
    /// Whether the stream stays open while the run waits for a person.
    waits_for_people: bool,
}

impl ResponseFrames {
    pub(super) fn new(
        head: ResponseHead,
        after: Option<SequenceNumber>,
        waits_for_people: bool,
    ) -> Self {
        Self {
            writer: ResponseStream::new(head, after),
            after,
            midway: None,
            waits_for_people,
        }
    }

    /// Finds the cursor in the log of a run that has ended, if the record has everything before it:
    /// then the log is not read from its first event. `None` leaves it to [`Self::open`], which also
    /// says what is wrong.
    pub(super) async fn find_midway(
        &mut self,
        runs: &RunReader,
        tenant: TenantId,
        record: &ResponseRecord,
    ) -> Option<EventFollower> {
        let after = self
            .after
            .filter(|after| ResponseStream::may_begin_midway(*after))?;
        let run = record.run.id;
        record.run.ended()?;
        if !runs.bus.ends_unbroken(tenant, run).await.ok()? {
            return None;
        }
        let rebuilt = record.events().ok()?;
        let subscribed = runs.subscribe(tenant, run).await.ok()?;
        let (at, follower) = subscribed.resume_at(after.event).await.ok()?;
        let sealed = |step| record.sealed(step);
        self.midway = Some(self.writer.begin_midway(&at, &rebuilt, sealed)?);
        Some(follower)
    }

    /// Opens the events of a run that exists already.
    pub(super) async fn open(
        self,
        followers: &Followers,
        caller: &Caller,
        mut client: Client,
    ) -> Result<Response, ApiError> {
        let (store, run) = (&followers.runs.store, self.writer.run());
        // The frames are a function of the whole log, so it is read from its first event.
        let (from, source) = (EventId::ORIGIN, Source::Stream);
        match find_events(&followers.runs, caller.tenant, run, from, source).await? {
            EventsAfter::Nothing => Ok(sse::response(Some(run), Body::empty())),
            EventsAfter::Log(follower) => {
                Ok(self.follow(followers, caller, *follower, client, None))
            }
            EventsAfter::Parked(events, follower) => {
                let this = self.rebuilt(store, caller.tenant, &events).await?;
                let mut stream = this.stream(followers, caller, *follower, client);
                stream.show(&events).await;
                if stream.frames.writer.waits_for_answers() {
                    stream.frames.writer.park(&mut stream.out);
                    stream.end(StreamEnd::Parked);
                }
                Ok(stream.into_response())
            }
            EventsAfter::Ledger(events) => {
                client.attachment.detach();
                let mut this = self.rebuilt(store, caller.tenant, &events).await?;
                let mut out = BytesMut::new();
                this.writer.begin(&mut out);
                this.write(&mut out, store, caller.tenant, &events).await?;
                Ok(sse::response(Some(run), Body::from(out.freeze())))
            }
        }
    }

    /// Streams a run that is followed from its first event. `begun` is the time of its request, if
    /// the run is new.
    pub(super) fn follow(
        self,
        followers: &Followers,
        caller: &Caller,
        follower: EventFollower,
        client: Client,
        begun: Option<Instant>,
    ) -> Response {
        let mut stream = self.stream(followers, caller, follower, client);
        stream.begun = begun;
        stream.into_response()
    }

    fn stream(
        mut self,
        followers: &Followers,
        caller: &Caller,
        follower: EventFollower,
        client: Client,
    ) -> RunStream<Self> {
        // A client that may resume elsewhere is sent there early.
        let ends_with = if self.waits_for_people {
            EndsWith::Native
        } else {
            EndsWith::All
        };
        let relay = followers.relay(caller, self.writer.run(), follower, ends_with);
        let out = self.midway.take().unwrap_or_else(|| {
            let mut out = BytesMut::new();
            self.writer.begin(&mut out);
            out
        });
        let mut stream = RunStream::new(relay, self, client);
        stream.out = out;
        stream
    }

    /// Prepares for rebuilt events; refuses a cursor after which they do not go on exactly.
    async fn rebuilt(
        mut self,
        store: &Store,
        tenant: TenantId,
        events: &[Followed],
    ) -> Result<Self, ApiError> {
        let run = self.writer.run();
        if let Some(after) = self.after.filter(|after| after.event != EventId::ORIGIN) {
            let known = events
                .iter()
                .find(|followed| followed.event.id == after.event);
            let known = known.map(|followed| &followed.event.data);
            let goes_on = known.is_some() && ResponseStream::resumes_rebuilt(after, known);
            let is_exact = async || {
                let rest = from_ledger(store, tenant, run, after.event).await?;
                Ok::<_, ApiError>(!matches!(rest, FromLedger::CursorUnknown))
            };
            if !goes_on || !is_exact().await? {
                return Err(lies_within_a_text(run));
            }
        }
        self.writer = self.writer.rebuilt();
        Ok(self)
    }

    /// Writes events, with the run's record at its end if the frames need it.
    async fn write(
        &mut self,
        out: &mut BytesMut,
        store: &Store,
        tenant: TenantId,
        events: &[Followed],
    ) -> Result<Option<StreamEnd>, ApiError> {
        for followed in events {
            let event = &followed.event;
            if matches!(event.data, EventData::ContextCompacted(_)) {
                // Its commit precedes the event.
                let record = ResponseRecord::load(store, tenant, self.writer.run()).await?;
                if let Some(sealed) = record.sealed(event.step) {
                    self.writer.use_summary(sealed.to_owned());
                }
            }
            if event.data.is_terminal() && self.writer.needs_record(&event.data) {
                let record = ResponseRecord::load(store, tenant, self.writer.run()).await?;
                self.writer.use_record(record.output()?);
            }
            match self.writer.write(out, &followed.event) {
                None => {}
                Some(WireEnd::Finished) => return Ok(Some(StreamEnd::Finished)),
                Some(WireEnd::Error) => return Ok(Some(StreamEnd::Error)),
            }
        }
        Ok(None)
    }
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

impl Frames for ResponseFrames {
    const WIRE: Wire = Wire::Responses;
    const PING: &'static [u8] = PING;

    async fn show(
        &mut self,
        out: &mut BytesMut,
        relay: &Relay,
        events: &[Followed],
    ) -> Option<StreamEnd> {
        let store = &relay.runs().store;
        match self.write(out, store, relay.tenant(), events).await {
            Ok(end) => end,
            Err(error) => {
                self.writer.error(out, &error.to_openai());
                Some(StreamEnd::Error)
            }
        }
    }

    async fn show_rest(&mut self, out: &mut BytesMut, relay: &Relay) -> StreamEnd {
        let (tenant, run) = (relay.tenant(), relay.run());
        let error = match from_ledger(&relay.runs().store, tenant, run, relay.last_id()).await {
            Ok(FromLedger::Events(events)) => {
                let end = self.show(out, relay, &events).await;
                return end.unwrap_or(StreamEnd::Finished);
            }
            Ok(FromLedger::CursorUnknown) => lies_within_a_text(run),
            // A client that comes again is shown what a person is asked.
            Ok(FromLedger::NotEnded | FromLedger::Parked(..)) => events_expired(run),
            Err(error) => error,
        };
        self.writer.error(out, &error.to_openai());
        StreamEnd::Error
    }

    fn interrupt(
        &mut self,
        out: &mut BytesMut,
        run: RunId,
        reason: Interruption,
    ) -> Option<StreamEnd> {
        if reason == Interruption::Parked && self.writer.waits_for_answers() {
            self.writer.park(out);
            return Some(StreamEnd::Parked);
        }
        let end = match reason {
            Interruption::Parked if self.waits_for_people => return None,
            Interruption::Parked => StreamEnd::Parked,
            Interruption::Stopping => StreamEnd::Drained,
            Interruption::Revoked => StreamEnd::Revoked,
            Interruption::Lost | Interruption::Unreadable => StreamEnd::Error,
        };
        let error = interrupted(run, reason);
        self.writer.error(out, &error.to_openai());
        Some(end)
    }
}
