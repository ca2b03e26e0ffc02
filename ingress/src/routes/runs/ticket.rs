//! `POST /v1/runs/{id}/events/ticket`: a ticket for the event stream of one run, for clients that
//! cannot send a header, such as a browser's `EventSource`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRef, FromRequestParts, State};
use axum::response::{IntoResponse as _, Response};
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::RunId;
use baton_service::SharedClock;
use baton_store::{Store, TicketMaker};
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::path::RunPath;
use crate::access::{Authenticator, Authorized, Caller, Credential, RunsRead, Scope as _};
use crate::error::{ApiError, Problem};
use crate::metrics::{self, AuthRefusal};
use crate::routes::query::QueryParams;

/// The time within which a client must connect.
const LIFE: Duration = Duration::from_mins(1);

/// A ticket for the event stream of one run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ticket {
    /// For `GET /v1/runs/{id}/events?ticket=`.
    ticket: String,
    /// The time until which a connection may be opened with it: a minute from now. A stream that is
    /// open by then continues.
    expires_at: DateTime<Utc>,
}

/// Creates a ticket for the events of this run. It opens only this run's stream, for a minute, as
/// often as the client connects. The stream ends with the credential that created the ticket.
#[utoipa::path(
    post,
    path = "/v1/runs/{id}/events/ticket",
    tag = "Runs",
    params(("id" = String, Path, description = "The run", format = Uuid)),
    responses(
        (status = 201, description = "The ticket", body = Ticket),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_ticket(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    authorized: Authorized<RunsRead>,
    RunPath(run): RunPath,
) -> Result<Response, ApiError> {
    let caller = authorized.caller;
    let maker = match &caller.credential {
        Credential::ApiKey(key) => TicketMaker::ApiKey(*key),
        Credential::Session { session, .. } => TicketMaker::Session(*session),
        Credential::Issuer { subject, role } => TicketMaker::Issuer {
            subject: subject.to_string(),
            role: *role,
            until: caller.expires_at.unwrap_or_else(|| clock.now()),
        },
    };
    let token = OpaqueToken::from_random(TokenKind::StreamTicket, rand::random());
    let mut tx = store.tenant(caller.tenant).await?;
    let expires_at = tx
        .create_stream_ticket(token.hash(), run, &maker, LIFE)
        .await?
        .ok_or_else(ApiError::no_such_run)?;
    tx.commit().await?;
    let ticket = Ticket {
        ticket: token.expose().to_owned(),
        expires_at,
    };
    Ok((
        StatusCode::CREATED,
        [(CACHE_CONTROL, "no-store")],
        Json(ticket),
    )
        .into_response())
}

/// A caller who may read the events of the run that the path names: with a credential that has the
/// scope, or with a ticket.
pub(super) struct EventReader {
    pub(super) run: RunId,
    pub(super) caller: Arc<Caller>,
}

#[derive(Deserialize)]
struct Param {
    ticket: Option<String>,
}

impl<S> FromRequestParts<S> for EventReader
where
    S: Send + Sync,
    Arc<Authenticator>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let QueryParams(Param { ticket }) = QueryParams::from_request_parts(parts, state).await?;
        let Some(ticket) = ticket else {
            let authorized = Authorized::<RunsRead>::from_request_parts(parts, state).await?;
            let RunPath(run) = RunPath::from_request_parts(parts, state).await?;
            return Ok(Self {
                run,
                caller: authorized.caller,
            });
        };
        if parts.headers.contains_key(AUTHORIZATION) || parts.headers.contains_key("x-api-key") {
            let message = "send a ticket or a credential, not both";
            return Err(
                ApiError::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
                    .param("ticket"),
            );
        }
        let refused = || {
            metrics::auth_refusal(AuthRefusal::Unknown);
            ApiError::invalid_token(
                "this ticket is not good for this run: it lives for a minute; make another with \
                 `POST /v1/runs/{id}/events/ticket`",
            )
        };
        let parsed = OpaqueToken::parse_as(TokenKind::StreamTicket, &ticket);
        let parsed = parsed.map_err(|_| refused())?;
        let authenticator = Arc::<Authenticator>::from_ref(state);
        let found = authenticator.credentials.find_ticket(&parsed).await?;
        let (run, caller) = found.ok_or_else(refused)?;
        caller.check_alive(authenticator.clock.now())?;
        authenticator.rates.limit_request(&caller, parts).await?;
        caller.check(RunsRead::NAME, authenticator.clock.now())?;
        match RunPath::from_request_parts(parts, state).await? {
            RunPath(named) if named == run => Ok(Self { run, caller }),
            RunPath(_) => Err(refused()),
        }
    }
}
