//! `GET /v1/runs/{id}/events`: a run's events as server-sent events, from any cursor, on any
//! server.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_nats::{EventFollower, FollowError, Followed};
use baton_protocol::{EventId, RunId};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;

use super::ticket::EventReader;
use crate::access::Caller;
use crate::access::stream_cap::StreamPlace;
use crate::error::{ApiError, Problem, run_header};
use crate::metrics::{StreamEnd, StreamGauge, Wire};
use crate::routes::query::QueryParams;
use crate::routes::sse::{self, PING_BETWEEN_IDS, ServerSentEvent};
use crate::run::attachments::{Attachment, OnClose};
use crate::run::event_source::{Source, Told, events_expired, tell_from};
use crate::run::followers::{EndsWith, Followers};
use crate::run::relay::{Heard, Relay};
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

/// A stream's client: its attachment to the run, and its place among the streams of its key. Both
/// end with the stream.
pub(super) struct Client {
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) attachment: Attachment,
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) place: StreamPlace,
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
    match tell_from(&followers.runs, tenant, run, after, source).await? {
        // Browsers' event sources reconnect forever, except after this status.
        Told::Nothing => Ok((StatusCode::NO_CONTENT, run_header(run)).into_response()),
        Told::Ledger(events) => {
            let mut out = BytesMut::new();
            for event in &events {
                write_event(&mut out, event);
            }
            Ok(sse::response(Some(run), Body::from(out.freeze())))
        }
        Told::Log(follower) => {
            let attachment = followers
                .attachments
                .attach(tenant, run, OnClose::LeaveRunning);
            let client = Client { attachment, place };
            let told = Vec::new();
            Ok(response(followers, caller, run, (told, *follower), client))
        }
        Told::Parked(told, follower) => {
            let attachment = followers
                .attachments
                .attach(tenant, run, OnClose::LeaveRunning);
            let client = Client { attachment, place };
            Ok(response(followers, caller, run, (told, *follower), client))
        }
    }
}

/// Returns the stream of `told`, events from another source, followed by the follower's.
pub(super) fn response(
    followers: &Followers,
    caller: &Caller,
    run: RunId,
    (told, follower): (Vec<Followed>, EventFollower),
    client: Client,
) -> Response {
    let mut out = BytesMut::new();
    for event in &told {
        write_event(&mut out, event);
    }
    let stream = NativeStream {
        relay: followers.relay(caller, run, follower, EndsWith::Native),
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
                // The event itself has asked the question.
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

    /// Continues from the ledger, which has the lost events if the run has ended.
    async fn go_on_from_ledger(&mut self) {
        let (tenant, run) = (self.relay.tenant(), self.relay.run());
        match from_ledger(&self.relay.runs().store, tenant, run, self.relay.last_id()).await {
            Ok(FromLedger::Events(events)) => {
                for event in &events {
                    write_event(&mut self.out, event);
                }
                self.end(StreamEnd::Finished);
            }
            Ok(FromLedger::CursorUnknown) => self.write_error(&lies_within_a_step(run)),
            // A client that reconnects gets the questions of a parked run.
            Ok(FromLedger::NotEnded | FromLedger::Parked(..)) => {
                self.write_error(&events_expired(run));
            }
            Err(error) => self.write_error(&error),
        }
    }

    /// Reports an error without an event id, so that the client's cursor stays.
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
