//! The body of a response that a tool gets, up to a limit.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use super::ToolError;

/// Reads at most `limit` bytes; the rest is not read.
pub(super) async fn read(mut response: Response, limit: usize) -> Result<Bytes, ToolError> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                let room = limit - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() == limit {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "a tool's answer broke off");
                return Err(ToolError::Failed(
                    "the tool's server broke off its answer; the call may have taken effect"
                        .to_owned(),
                ));
            }
        }
    }
    Ok(body.freeze())
}

/// As [`read`], with a replacement character for each byte that is no text.
pub(super) async fn read_text(response: Response, limit: usize) -> Result<String, ToolError> {
    let body = read(response, limit).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
