//! Answers that are no stream: refusals, lists, and what an upstream says instead of streaming.

use baton_openai::ErrorObject;
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{ModelError, Wait};

/// The most that is read of an answer that is no stream.
const MAX_PLAIN_BODY: usize = 1 << 20;

/// The error that a body tells of: an object of whatever shape, or a few words.
pub(super) fn error_of(body: &[u8]) -> Option<ErrorObject> {
    ErrorObject::of_body(body).or_else(|| {
        let words = std::str::from_utf8(body).ok()?.trim();
        let is_markup = words.starts_with(['<', '{', '[']);
        let is_said = !words.is_empty() && !is_markup;
        is_said.then(|| ErrorObject::new("api_error", "upstream_rejected", words))
    })
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
