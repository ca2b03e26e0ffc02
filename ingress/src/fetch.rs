//! Fetches documents from servers that the operator configured, bounded in time and size.

use std::time::Duration;

use baton_outbound::{SetupError, client_builder};
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};

/// The time limit for fetching a document.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the server cannot be asked")]
    Ask(#[from] reqwest::Error),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the answer broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Returns a client for the servers that the operator configured.
pub(crate) fn client(connect_timeout: Duration) -> Result<reqwest::Client, SetupError> {
    let client = client_builder()?.connect_timeout(connect_timeout);
    Ok(client.build()?)
}

/// Returns the document at a URL, of at most `longest` bytes.
pub(crate) async fn get(
    client: &reqwest::Client,
    url: &str,
    longest: usize,
) -> Result<Vec<u8>, FetchError> {
    let response = client.get(url).timeout(TIMEOUT).send().await?;
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status()));
    }
    let body = reqwest::Body::from(response);
    let whole = Limited::new(body, longest)
        .collect()
        .await
        .map_err(FetchError::Body)?;
    Ok(whole.to_bytes().to_vec())
}
