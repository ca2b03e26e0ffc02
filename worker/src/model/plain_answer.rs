//! Answers that are not a stream: refusals, lists, and the answers of upstreams that do not stream.

use baton_openai::ErrorObject;
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{ModelError, Wait};

/// The longest part of such an answer that is read, in bytes.
const MAX_PLAIN_BODY: usize = 1 << 20;

/// Returns the error in a body: an object of any shape, or a few words.
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
