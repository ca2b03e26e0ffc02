//! Answers one request as the script demands.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use baton_openai::{
    ChatAccumulator, ChatChunk, ChatCompletion, ChunkWriter, Model, ModelList, SseDecoder,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;

use super::by_model::NAMES;
use super::piece::{CREATED, render, write};
use super::reply::{Refusal, Start};
use super::state::State;
use super::{Counts, Piece, Recorded};

type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(super) async fn respond(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => models(),
        (&Method::POST, "/v1/chat/completions") => complete(state, request).await,
        _ => plain(StatusCode::NOT_FOUND, "no such route"),
    };
    Ok(answer)
}

fn models() -> Response<Body> {
    let list = ModelList::new(NAMES.map(|name| Model::new(name, CREATED, "script")).into());
    json(
        StatusCode::OK,
        serde_json::to_vec(&list).unwrap_or_default().into(),
    )
}

async fn complete(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return plain(StatusCode::BAD_REQUEST, "the request broke off");
    };
    let bytes = body.to_bytes();
    let Ok(body) = serde_json::from_slice::<Value>(&bytes) else {
        return plain(StatusCode::BAD_REQUEST, "the request is not JSON");
    };
    let request = state.record(parts.headers, body, bytes);
    let reply = state.choose(&request);
    let mut under_way = UnderWay::begin(state);
    match reply.start {
        Start::HangBeforeHeaders => std::future::pending().await,
        Start::Refuse(refusal) => {
            under_way.finished = true;
            refuse(refusal)
        }
        Start::Answer if request.is_stream() => stream_answer(&request, reply.pieces, under_way),
        Start::Answer => whole_answer(&request, reply.pieces, under_way).await,
    }
}

/// An answer that was begun. When it is dropped, it is counted as finished or as disconnected.
struct UnderWay {
    state: Arc<State>,
    finished: bool,
}

impl UnderWay {
    fn begin(state: Arc<State>) -> Self {
        state.counts.send_modify(|counts: &mut Counts| {
            counts.requests += 1;
            counts.open += 1;
        });
        Self {
            state,
            finished: false,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.state.counts.send_modify(|counts| {
            counts.open -= 1;
            if self.finished {
                counts.finished += 1;
            } else {
                counts.disconnected += 1;
            }
        });
    }
}

fn writer(request: &Recorded) -> (ChunkWriter, bool) {
    let include_usage = request.body["stream_options"]["include_usage"] == true;
    let id = format!("chatcmpl-script-{}", request.index);
    (
        ChunkWriter::new(&id, CREATED, &request.model, include_usage),
        include_usage,
    )
}

fn stream_answer(request: &Recorded, pieces: Vec<Piece>, under_way: UnderWay) -> Response<Body> {
    let (writer, include_usage) = writer(request);
    let answer = Answer {
        writer,
        include_usage,
        pieces: pieces.into_iter(),
        begun: false,
        under_way,
    };
    let frames = stream::unfold(answer, async |mut answer| {
        let frame = answer.next().await?;
        Some((frame.map(Frame::data), answer))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("text/event-stream"),
    );
    response
}

struct Answer {
    writer: ChunkWriter,
    include_usage: bool,
    pieces: std::vec::IntoIter<Piece>,
    begun: bool,
    under_way: UnderWay,
}

impl Answer {
    /// Returns the next bytes to write: those of one piece.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let piece = self.pieces.next()?;
            // Marked as finished with its last piece, because a later disconnect does not matter.
            self.under_way.finished =
                self.pieces.as_slice().is_empty() && !matches!(piece, Piece::Hang);
            match piece {
                Piece::Pause(pause) if pause.is_zero() => {}
                Piece::Pause(pause) => tokio::time::sleep(pause).await,
                Piece::Wait(gate) => gate.passed().await,
                Piece::Hang => std::future::pending().await,
                Piece::Cut => return Some(Err(cut_after_flush().await)),
                piece => {
                    let mut out = BytesMut::new();
                    if !self.begun {
                        self.begun = true;
                        if !matches!(piece, Piece::Raw(_)) {
                            self.writer.role(&mut out);
                        }
                    }
                    write(&mut out, &self.writer, piece, self.include_usage);
                    if !out.is_empty() {
                        return Some(Ok(out.freeze()));
                    }
                }
            }
        }
    }
}

/// Waits until the bytes before a cut are on their way, or the client would see less than scripted.
async fn cut_after_flush() -> io::Error {
    tokio::time::sleep(Duration::from_millis(5)).await;
    io::Error::other("scripted cut")
}

async fn whole_answer(
    request: &Recorded,
    pieces: Vec<Piece>,
    mut under_way: UnderWay,
) -> Response<Body> {
    for piece in &pieces {
        match piece {
            Piece::Pause(pause) => tokio::time::sleep(*pause).await,
            Piece::Hang => std::future::pending().await,
            Piece::Cut => {
                under_way.finished = true;
                let broken = stream::iter([Err(io::Error::other("scripted cut"))]);
                return Response::new(StreamBody::new(broken).boxed_unsync());
            }
            Piece::Error(error) => {
                under_way.finished = true;
                let body = baton_openai::ErrorBody {
                    error: error.clone(),
                };
                let body = serde_json::to_vec(&body).unwrap_or_default();
                return json(StatusCode::INTERNAL_SERVER_ERROR, body.into());
            }
            _ => {}
        }
    }
    under_way.finished = true;
    match put_together(request, &pieces) {
        Some(completion) => json(
            StatusCode::OK,
            serde_json::to_vec(&completion).unwrap_or_default().into(),
        ),
        None => json(StatusCode::OK, Bytes::from_static(b"{\"choices\": oops}")),
    }
}

fn put_together(request: &Recorded, pieces: &[Piece]) -> Option<ChatCompletion> {
    let stream = render(pieces, &request.model);
    let mut decoder = SseDecoder::new(usize::MAX);
    let mut accumulator = ChatAccumulator::new("call_", usize::MAX);
    let mut deltas = Vec::new();
    decoder.push(stream);
    while let Some(event) = decoder.next_event().ok()? {
        if &event.data[..] != b"[DONE]" {
            let chunk: ChatChunk<'_> = serde_json::from_slice(&event.data).ok()?;
            accumulator.fold(chunk, &mut deltas).ok()?;
        }
    }
    let finished = accumulator.finish().ok()?;
    let id = format!("chatcmpl-script-{}", request.index);
    let (message, reason) = (finished.message, finished.finish_reason.as_str());
    Some(ChatCompletion::new(
        id,
        CREATED,
        &request.model,
        message,
        reason,
        finished.usage,
    ))
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let mut response = plain(refusal.status, refusal.body);
    for (name, value) in refusal.headers {
        let pair = (
            http::HeaderName::try_from(name),
            http::HeaderValue::try_from(value),
        );
        if let (Ok(name), Ok(value)) = pair {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = plain(status, body);
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
