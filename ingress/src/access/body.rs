//! Reads request bodies under their limits.

use axum::extract::{FromRef, FromRequest, Request};
use baton_admission::{check_shape, read_json};
use baton_service::accept::is_body_timeout;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::access::body_bytes::{BodyBytes, HeldBytes, Owner};
use crate::error::ApiError;

/// The limits of bodies.
#[derive(Clone)]
pub(crate) struct Bodies {
    /// The bytes of all bodies together.
    pub(crate) bytes: BodyBytes,
    /// The most bytes of one body.
    pub(crate) limit: u64,
}

/// A whole body of at most `http.body_limit` bytes. The accept loop enforces the time limit.
pub(crate) struct WholeBody {
    pub(crate) bytes: Bytes,
    /// Must be dropped with the last copy of the body's content.
    pub(crate) held: HeldBytes,
}

impl<S> FromRequest<S> for WholeBody
where
    S: Send + Sync,
    Bodies: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bodies = Bodies::from_ref(state);
        let limit = bodies.limit;
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok())
            .and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let (bytes, held) = read(request, limit, &bodies.bytes).await?;
        Ok(Self { bytes, held })
    }
}

/// A small JSON body of a native route. Unknown fields are refused.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// The limit of a [`JsonBody`] in bytes: no such route needs a longer one.
const JSON_LIMIT: u64 = 64 << 10;

impl<S, T: DeserializeOwned> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    Bodies: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bodies = Bodies::from_ref(state);
        let limit = bodies.limit.min(JSON_LIMIT);
        let (body, _held) = read(request, limit, &bodies.bytes).await?;
        check_shape(&body)?;
        Ok(Self(read_json(&body)?))
    }
}

async fn read(
    request: Request,
    limit: u64,
    bytes: &BodyBytes,
) -> Result<(Bytes, HeldBytes), ApiError> {
    check_encoding(request.headers())?;
    let mut held = bytes.begin(Owner::of(request.extensions()));
    let mut body = request.into_body();
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if is_body_timeout(&error) {
                let message = "the request body took too long to arrive";
                return ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message);
            }
            tracing::debug!(%error, "a request body broke off");
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "body_broken",
                "the request body broke off",
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = whole.len() + first.as_ref().map_or(0, Bytes::len);
        if (so_far + data.len()) as u64 > limit {
            return Err(too_large(limit));
        }
        held.grow(data.len() as u64).await?;
        // Nearly every body is one frame, which needs no copy.
        if first.is_none() && whole.is_empty() {
            if body.is_end_stream() {
                return Ok((data, held));
            }
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok((first.unwrap_or_else(|| whole.freeze()), held))
}

/// Refuses a compressed body, and names the accepted encoding.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.trim().eq_ignore_ascii_case("identity"))
    };
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let message = "a request body is taken uncompressed only: send it without `Content-Encoding`";
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_content_encoding",
        message,
    )
    .header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

fn too_large(limit: u64) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the request body may be at most {limit} bytes long"),
    )
}
