//! Server-sent events: the head of a stream, and its heartbeat.

use axum::body::Body;
use axum::response::Response;
use baton_protocol::RunId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};

use crate::error::X_RUN_ID;

/// The heartbeat for OpenAI routes, whose frames have no ids: a comment and an empty line.
pub(crate) const PING: &[u8] = b": ping\n\n";
/// The heartbeat for streams with ids: only a comment, because after an empty line some decoders
/// emit an event with the last id and no data.
pub(crate) const PING_BETWEEN_IDS: &[u8] = b": ping\n";

/// Makes proxies such as nginx pass each frame on without buffering.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One event of a stream, for the description; comments are heartbeats.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "frames are written by hand")]
pub(crate) struct ServerSentEvent {
    /// The event's type; absent on OpenAI routes.
    event: Option<String>,
    /// The id for `Last-Event-ID`; absent on OpenAI routes.
    id: Option<String>,
    /// A JSON object: a `RunEvent` on run streams; a chunk, or `[DONE]` at the end, on chat
    /// streams.
    data: String,
}

/// Returns the answer that carries a stream.
pub(crate) fn response(run: Option<RunId>, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if let Some(Ok(run)) = run.map(|run| HeaderValue::try_from(run.to_string())) {
        headers.insert(X_RUN_ID, run);
    }
    response
}
