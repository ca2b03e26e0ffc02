//! `GET /v1/runs/{id}/events`: a run's events as server-sent events, from any cursor, on any server.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_nats::{EventFollower, FollowError, Followed, ResumeError};
use baton_protocol::{EventId, RunId, RunStatus, TenantId};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;

use super::path::RunPath;
use super::replay::{FromLedger, from_ledger, lies_within_a_step};
use crate::attachments::{Attachment, OnClose};
use crate::auth::{Authorized, Caller, RunsRead};
use crate::error::{ApiError, Problem, run_header};
use crate::ledger::find_run;
use crate::metrics::{StreamEnd, StreamGauge, Wire};
use crate::query::QueryParams;
use crate::relay::{Heard, Relay, tell_end};
use crate::sse::{self, PING_BETWEEN_IDS, ServerSentEvent};
use crate::state::AppState;
use crate::stream_cap::StreamPlace;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Params {
    after: Option<String>,
    rebuilt: Option<bool>,
}

/// Where the events of a run that has ended come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stream, as long as it has them all.
    Stream,
    /// The ledger, whatever the stream has: in fewer pieces.
    Ledger,
}

/// A run's events: those stored, then those to come, each exactly once and in order.
///
/// `id` is the event's id, `event` its type, `data` the event as JSON. The stream ends behind the
/// run's last event. `attempt.reset` withdraws what lies beyond its `resume_after`. When a stream
/// ends without a last event, ask again with `Last-Event-ID`, on whatever server.
///
/// The events of a run that has ended are rebuilt from its record when they are no longer stored:
/// the same text, calls and end, with the same ids, in fewer pieces. A cursor in the middle of a
/// step, for which nobody can tell any more how much of it was seen, is refused.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/events",
    tag = "Runs",
    params(
        ("id" = String, Path, description = "The run"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on behind this event"),
        ("after" = Option<u64>, Query, description = "The same, for clients that cannot set headers; the header wins"),
        ("rebuilt" = Option<bool>, Query, description = "Of a run that has ended: take its record's word, whatever is stored"),
    ),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = ServerSentEvent),
        (status = 204, description = "The cursor is the run's last event: there is no more to come"),
        (status = 400, description = "The cursor is no event id, or a parameter cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "`cursor_unknown`: not an event of this run; `events_expired`: no longer stored, and it lies within a step, or the run goes on and waits for nobody", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The caller has too many streams open; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn run_events(
    State(state): State<AppState>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
    headers: HeaderMap,
    QueryParams(params): QueryParams<Params>,
) -> Result<Response, ApiError> {
    let after = cursor(&headers, params.after)?;
    let place = state.streams.take(&authorized.caller)?;
    let source = match params.rebuilt {
        Some(true) => Source::Ledger,
        Some(false) | None => Source::Stream,
    };
    open_from(&state, &authorized.caller, run, after, source, place).await
}

/// A reconnecting client repeats its first URL; what it has seen since is in the header.
fn cursor(headers: &HeaderMap, query: Option<String>) -> Result<EventId, ApiError> {
    let header = headers
        .get(LAST_EVENT_ID)
        .map(|value| value.to_str().unwrap_or("?").to_owned());
    match header.filter(|header| !header.is_empty()).or(query) {
        None => Ok(EventId::ORIGIN),
        Some(given) => given
            .parse()
            .map_err(|error: baton_protocol::InvalidEventId| {
                ApiError::new(StatusCode::BAD_REQUEST, "invalid_cursor", error.to_string())
            }),
    }
}

/// A stream's client: its interest in the run, and its place among the streams of its key. Both end
/// with the stream.
pub(super) struct Client {
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) attachment: Attachment,
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) place: StreamPlace,
}

/// The run's events behind a cursor.
pub(super) async fn open_from(
    state: &AppState,
    caller: &Caller,
    run: RunId,
    after: EventId,
    source: Source,
    place: StreamPlace,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant;
    match tell_from(state, tenant, run, after, source).await? {
        // Browsers' event sources ask again for ever, except after this.
        Told::Nothing => Ok((StatusCode::NO_CONTENT, run_header(run)).into_response()),
        Told::Ledger(events) => {
            let mut out = BytesMut::new();
            for event in &events {
                write_event(&mut out, event);
            }
            Ok(sse::response(Some(run), Body::from(out.freeze())))
        }
        Told::Log(follower) => {
            let attachment = state.attachments.attach(tenant, run, OnClose::LeaveRunning);
            let client = Client { attachment, place };
            let told = Vec::new();
            Ok(response(state, caller, run, (told, *follower), client))
        }
        Told::Parked(told, follower) => {
            let attachment = state.attachments.attach(tenant, run, OnClose::LeaveRunning);
            let client = Client { attachment, place };
            Ok(response(state, caller, run, (told, *follower), client))
        }
    }
}

/// What there is to tell behind a cursor, and by whom.
pub(crate) enum Told {
    /// The cursor is the run's last event.
    Nothing,
    /// Of a run that has ended: all of it.
    Ledger(Vec<Followed>),
    /// Of a run that waits for a person: what it has shown, and what comes.
    Parked(Vec<Followed>, Box<EventFollower>),
    /// What is stored, and what comes.
    Log(Box<EventFollower>),
}

/// Finds a run's events behind a cursor.
pub(crate) async fn tell_from(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    after: EventId,
    source: Source,
) -> Result<Told, ApiError> {
    // Before the row is read: what ends the run in between is heard.
    let subscribed = EventFollower::subscribe(&state.bus, tenant, run).await?;
    let record = find_run(state, tenant, run)
        .await?
        .ok_or_else(ApiError::no_such_run)?;
    let ended = record.ended();
    let parked = record.status == RunStatus::AwaitingApproval;
    // Without any event in the stream the ledger alone has them: they aged out, or were lost, or
    // there was only the end of a run that never began. An unknown tip is read again below.
    let from_ledger = source == Source::Ledger
        || (ended.is_some() || parked) && {
            let tip = state.bus.event_tip_direct(tenant, run).await;
            tip.is_ok_and(|tip| tip.is_none())
        };
    if parked && from_ledger {
        return told_parked(state, tenant, run, after).await;
    }
    if let Some(ended) = &ended {
        if after == ended.last_event_id {
            return Ok(Told::Nothing);
        }
        if after > ended.last_event_id {
            return Err(cursor_unknown(run));
        }
        if from_ledger {
            return replayed(state, tenant, run, after, lies_within_a_step).await;
        }
        // It may have lost its end all the same, and then nobody else will come to append it.
        tell_end(state, tenant, run, ended).await;
    }
    match subscribed.resume(after).await {
        Ok(follower) => Ok(Told::Log(Box::new(follower))),
        // What the log lost, the ledger has. A log that begins with the run's first event may have
        // lost others behind it.
        Err(ResumeError::Expired) if ended.is_some() => {
            replayed(state, tenant, run, after, lies_within_a_step).await
        }
        Err(ResumeError::Expired) if parked => told_parked(state, tenant, run, after).await,
        Err(ResumeError::CursorUnknown) if ended.is_some() => {
            replayed(state, tenant, run, after, cursor_unknown).await
        }
        Err(ResumeError::CursorUnknown) => Err(cursor_unknown(run)),
        Err(ResumeError::Expired) => Err(events_expired(run)),
        Err(ResumeError::Unreadable(error)) => Err(ApiError::internal(&error)),
        Err(ResumeError::Bus(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the event log cannot be read"
            );
            let message = "the events cannot be read: try again";
            Err(ApiError::unavailable("broker_unavailable", message))
        }
    }
}

/// The events of a run that has ended, which are the ledger's to tell.
async fn replayed(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    after: EventId,
    unknown: fn(RunId) -> ApiError,
) -> Result<Told, ApiError> {
    match from_ledger(state, tenant, run, after).await? {
        FromLedger::Events(events) => Ok(Told::Ledger(events)),
        FromLedger::CursorUnknown => Err(unknown(run)),
        FromLedger::NotEnded | FromLedger::Parked(..) => Err(events_expired(run)),
    }
}

/// The events of a run that waits for a person: what it has shown from the ledger, what comes from
/// the stream.
async fn told_parked(
    state: &AppState,
    tenant: TenantId,
    run: RunId,
    after: EventId,
) -> Result<Told, ApiError> {
    // Before the ledger is read: what follows a decision in between is heard.
    let subscribed = EventFollower::subscribe(&state.bus, tenant, run).await?;
    match from_ledger(state, tenant, run, after).await? {
        FromLedger::Parked(events, last) => {
            Ok(Told::Parked(events, Box::new(subscribed.behind(last))))
        }
        FromLedger::Events(events) => Ok(Told::Ledger(events)),
        FromLedger::CursorUnknown => Err(lies_within_a_step(run)),
        FromLedger::NotEnded => Err(events_expired(run)),
    }
}

fn cursor_unknown(run: RunId) -> ApiError {
    let message = "the cursor is not an event of this run: begin without one";
    ApiError::new(StatusCode::GONE, "cursor_unknown", message).of_run(run)
}

/// Of a run that goes on: once it has ended, the ledger has them.
fn events_expired(run: RunId) -> ApiError {
    let message = format!(
        "events behind the cursor are no longer stored, and the run goes on: when it has ended, \
         GET /v1/runs/{run} and its events from the beginning have the whole"
    );
    ApiError::new(StatusCode::GONE, "events_expired", message).of_run(run)
}

/// The answer that a follower's events become, behind those that were told from elsewhere.
pub(super) fn response(
    state: &AppState,
    caller: &Caller,
    run: RunId,
    (told, follower): (Vec<Followed>, EventFollower),
    client: Client,
) -> Response {
    let stop = state.stopping.native.clone();
    let mut out = BytesMut::new();
    for event in &told {
        write_event(&mut out, event);
    }
    let stream = NativeStream {
        relay: Relay::new(
            state.clone(),
            caller.tenant,
            run,
            follower,
            stop,
            state.watch.guard(caller),
        ),
        out,
        _client: client,
        gauge: StreamGauge::open(Wire::Native),
        ended: false,
    };
    let body = stream::unfold(stream, |mut stream| async move {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    sse::response(Some(run), Body::from_stream(body))
}

/// One native stream, pulled by the connection.
struct NativeStream {
    relay: Relay,
    out: BytesMut,
    _client: Client,
    gauge: StreamGauge,
    ended: bool,
}

impl NativeStream {
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.ended {
            match self.relay.next().await {
                Ok(Heard::Events(batch)) => {
                    for followed in &batch {
                        write_event(&mut self.out, followed);
                        if followed.event.data.is_terminal() {
                            self.end(StreamEnd::Finished);
                            break;
                        }
                    }
                }
                // Whoever follows was asked by the event itself.
                Ok(Heard::Parked) => {}
                Ok(Heard::Quiet) => self.out.extend_from_slice(PING_BETWEEN_IDS),
                // Between two events: the client resumes elsewhere.
                Ok(Heard::Stopping) => self.end(StreamEnd::Drained),
                Ok(Heard::Revoked) => {
                    self.write_error(&ApiError::credential_ended());
                    self.end(StreamEnd::Revoked);
                }
                Ok(Heard::LogLost) | Err(FollowError::Expired { .. }) => {
                    self.go_on_from_ledger().await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a run was lost sight of"
                    );
                    let message = "the events cannot be read: resume";
                    self.write_error(&ApiError::unavailable("broker_unavailable", message));
                }
            }
        }
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// The stream has lost what follows. If the run has ended, the ledger has it.
    async fn go_on_from_ledger(&mut self) {
        let (tenant, run) = (self.relay.tenant(), self.relay.run());
        match from_ledger(self.relay.state(), tenant, run, self.relay.last_id()).await {
            Ok(FromLedger::Events(events)) => {
                for event in &events {
                    write_event(&mut self.out, event);
                }
                self.end(StreamEnd::Finished);
            }
            Ok(FromLedger::CursorUnknown) => self.write_error(&lies_within_a_step(run)),
            // A client that comes again is told what a person is asked.
            Ok(FromLedger::NotEnded | FromLedger::Parked(..)) => {
                self.write_error(&events_expired(run));
            }
            Err(error) => self.write_error(&error),
        }
    }

    /// What cannot be honoured is said. Without an id, so that the client's cursor stays.
    fn write_error(&mut self, error: &ApiError) {
        let problem = serde_json::json!({
            "type": "about:blank", "title": "Stream ended", "status": error.status.as_u16(),
            "code": error.code, "detail": error.message,
        });
        self.out.extend_from_slice(b"event: error\ndata: ");
        self.out.extend_from_slice(problem.to_string().as_bytes());
        self.out.extend_from_slice(b"\n\n");
        self.end(StreamEnd::Error);
    }

    fn end(&mut self, end: StreamEnd) {
        self.ended = true;
        self.gauge.ends(end);
    }
}

fn write_event(out: &mut BytesMut, followed: &Followed) {
    use std::fmt::Write as _;

    let kind = followed.event.data.kind();
    out.reserve(followed.line.len() + kind.len() + 64);
    // Writing to a buffer that grows cannot fail.
    let _ = write!(out, "id: {}\nevent: {kind}\ndata: ", followed.event.id);
    out.extend_from_slice(&followed.line);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use baton_protocol::Event;
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_event_is_framed_with_its_id_and_type_and_its_json_as_it_is() {
        let line = r#"{"v":1,"id":4294967298,"prev":4294967297,"type":"text.delta","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"step":1,"at":"2026-01-01T00:00:00.000Z","data":{"text":"hi"}}"#;
        let event = Event::decode(line.as_bytes()).unwrap();
        let mut out = BytesMut::new();
        write_event(
            &mut out,
            &Followed {
                event,
                line: Bytes::from_static(line.as_bytes()),
            },
        );
        assert_eq!(
            String::from_utf8(out.to_vec()).unwrap(),
            format!("id: 4294967298\nevent: text.delta\ndata: {line}\n\n")
        );
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let mut headers = HeaderMap::new();
        assert_eq!(cursor(&headers, None).unwrap(), EventId::ORIGIN);
        assert_eq!(
            cursor(&headers, Some("7".into())).unwrap(),
            EventId::from_u64(7)
        );
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("9"));
        assert_eq!(
            cursor(&headers, Some("7".into())).unwrap(),
            EventId::from_u64(9)
        );
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("nine"));
        assert_eq!(cursor(&headers, None).unwrap_err().status, 400);
    }
}
