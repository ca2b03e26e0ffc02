//! `GET /v1/runs/{id}/events`: a run's events as server-sent events, from any cursor, on any
//! server.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_admission::OnClose;
use baton_nats::{EventFollower, Followed};
use baton_protocol::{EventId, RunId};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;

use super::ticket::EventReader;
use crate::access::Caller;
use crate::access::stream_cap::StreamPlace;
use crate::error::{ApiError, Problem, run_header};
use crate::metrics::{StreamEnd, Wire};
use crate::routes::query::QueryParams;
use crate::routes::run_stream::{Client, Frames, RunStream};
use crate::routes::sse::{self, PING_BETWEEN_IDS, ServerSentEvent};
use crate::run::event_source::{EventsAfter, Source, events_expired, find_events};
use crate::run::followers::{EndsWith, Followers};
use crate::run::relay::{Interruption, Relay};
use crate::run::replay::{FromLedger, from_ledger, lies_within_a_step};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Params {
    after: Option<String>,
    rebuilt: Option<bool>,
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

/// Streams a run's events: the stored ones, then the live ones, each exactly once and in order.
///
/// `id` is the event's id, `event` its type, `data` the event as JSON. The stream ends after the
/// run's last event. `attempt.reset` withdraws the events after its `resume_after`. If a stream
/// ends without a last event, reconnect with `Last-Event-ID`, to any server.
///
/// The events of a run that has ended are rebuilt from its record if they are no longer stored: the
/// same text, calls and end, with the same ids, in fewer pieces. So are the events of a run that
/// waits for a person, up to the question; then the stream continues live. A cursor in the middle
/// of a step is refused in that case, because nobody knows how much of the step the client has
/// seen.
#[utoipa::path(
    get,
    path = "/v1/runs/{id}/events",
    tag = "Runs",
    params(
        ("id" = String, Path, description = "The run", format = Uuid),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on behind this event"),
        ("after" = Option<u64>, Query, description = "The same, for clients that cannot set headers; the header wins"),
        ("ticket" = Option<String>, Query, description = "A ticket for this run, in place of a credential", pattern = "^bs_[0-9A-Za-z]+_[0-9A-Za-z]+$"),
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
    State(followers): State<Arc<Followers>>,
    EventReader { run, caller }: EventReader,
    headers: HeaderMap,
    QueryParams(params): QueryParams<Params>,
) -> Result<Response, ApiError> {
    let after = cursor(&headers, params.after)?;
    let place = followers.streams.take(&caller)?;
    let source = match params.rebuilt {
        Some(true) => Source::Ledger,
        Some(false) | None => Source::Stream,
    };
    open_from(&followers, &caller, run, after, source, place).await
}

/// Reads the cursor. A reconnecting client repeats its first URL, so the header is the newer one.
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

/// Returns the run's events after a cursor.
pub(super) async fn open_from(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    after: EventId,
    source: Source,
    place: StreamPlace,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant;
    let stream = |past, follower| {
        let attachment = followers
            .attachments
            .attach(tenant, run, OnClose::LeaveRunning);
        let client = Client { attachment, place };
        response(followers, caller, run, (past, follower), client)
    };
    match find_events(&followers.runs, tenant, run, after, source).await? {
        // Browsers' event sources reconnect forever, except after this status.
        EventsAfter::Nothing => Ok((StatusCode::NO_CONTENT, run_header(run)).into_response()),
        EventsAfter::Ledger(events) => {
            let mut out = BytesMut::new();
            for event in &events {
                write_event(&mut out, event);
            }
            Ok(sse::response(Some(run), Body::from(out.freeze())))
        }
        EventsAfter::Log(follower) => Ok(stream(Vec::new(), *follower)),
        EventsAfter::Parked(past, follower) => Ok(stream(past, *follower)),
    }
}

/// Returns the stream of `past`, events from another source, followed by the follower's.
pub(super) fn response(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    (past, follower): (Vec<Followed>, EventFollower),
    client: Client,
) -> Response {
    let relay = followers.relay(caller, run, follower, EndsWith::Native);
    let mut stream = RunStream::new(relay, NativeFrames, client);
    for event in &past {
        write_event(&mut stream.out, event);
    }
    stream.into_response()
}

/// The frames of the native protocol: each event with its id, its type and its JSON.
struct NativeFrames;

impl Frames for NativeFrames {
    const WIRE: Wire = Wire::Native;
    const PING: &'static [u8] = PING_BETWEEN_IDS;

    async fn show(
        &mut self,
        out: &mut BytesMut,
        _: &Relay,
        events: &[Followed],
    ) -> Option<StreamEnd> {
        for followed in events {
            write_event(out, followed);
            if followed.event.data.is_terminal() {
                return Some(StreamEnd::Finished);
            }
        }
        None
    }

    async fn show_rest(&mut self, out: &mut BytesMut, relay: &Relay) -> StreamEnd {
        let (tenant, run) = (relay.tenant(), relay.run());
        let error = match from_ledger(&relay.runs().store, tenant, run, relay.last_id()).await {
            Ok(FromLedger::Events(events)) => {
                for event in &events {
                    write_event(out, event);
                }
                return StreamEnd::Finished;
            }
            Ok(FromLedger::CursorUnknown) => lies_within_a_step(run),
            // A client that reconnects gets the questions of a parked run.
            Ok(FromLedger::NotEnded | FromLedger::Parked(..)) => events_expired(run),
            Err(error) => error,
        };
        write_error(out, &error);
        StreamEnd::Error
    }

    fn interrupt(
        &mut self,
        out: &mut BytesMut,
        _: RunId,
        reason: Interruption,
    ) -> Option<StreamEnd> {
        match reason {
            // The event itself has asked the question.
            Interruption::Parked => None,
            // Between two events: the client resumes elsewhere.
            Interruption::Stopping => Some(StreamEnd::Drained),
            Interruption::Revoked => {
                write_error(out, &ApiError::credential_ended());
                Some(StreamEnd::Revoked)
            }
            Interruption::Lost | Interruption::Unreadable => {
                let message = "the events cannot be read: resume";
                write_error(out, &ApiError::unavailable("broker_unavailable", message));
                Some(StreamEnd::Error)
            }
        }
    }
}

/// Writes an error without an event id, so that the client's cursor stays.
fn write_error(out: &mut BytesMut, error: &ApiError) {
    let problem = serde_json::json!({
        "type": "about:blank", "title": "Stream ended", "status": error.status.as_u16(),
        "code": error.code, "detail": error.message,
    });
    out.extend_from_slice(b"event: error\ndata: ");
    out.extend_from_slice(problem.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
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
    use bytes::Bytes;
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
