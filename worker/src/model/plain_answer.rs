//! Answers that are no stream: refusals, lists, and what an upstream says instead of streaming.

use baton_openai::{ErrorBody, ErrorObject};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{ModelError, Wait};

/// The most that is read of an answer that is no stream.
const MAX_PLAIN_BODY: usize = 1 << 20;

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().starts_with("application/json"))
}

pub(super) fn error_of(body: &[u8]) -> Option<ErrorObject> {
    serde_json::from_slice::<ErrorBody>(body)
        .ok()
        .map(|body| body.error)
}

pub(super) async fn read_plain(
    mut response: Response,
    deadline: Instant,
) -> Result<Bytes, ModelError> {
    let mut body = BytesMut::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Err(_) => return Err(ModelError::TimedOut(Wait::WholeAnswer)),
            Ok(Err(error)) => {
                return Err(ModelError::Cut {
                    source: Some(error.without_url()),
                });
            }
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Ok(Some(chunk))) => {
                if body.len() + chunk.len() > MAX_PLAIN_BODY {
                    let limit = MAX_PLAIN_BODY;
                    return Err(ModelError::TooLong {
                        of: "in one answer",
                        limit,
                    });
                }
                body.extend_from_slice(&chunk);
            }
        }
    }
}
