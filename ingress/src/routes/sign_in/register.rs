//! `POST /v1/auth/register`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use baton_identity::{
    OpaqueToken, SELF_MADE, TenantName, TokenKind, USUAL_TENANT, check_new_password,
};
use baton_protocol::{TenantId, UserId};
use baton_service::SharedClock;
use baton_service::config::Registration;
use baton_store::{AuditEntry, AuditResult, NewUser, Registered, Store};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::tokens::Tokens;
use super::tries::Try;
use crate::access::body::JsonBody;
use crate::access::{Actor, Origin, SignIn, record_unchanged};
use crate::error::{ApiError, Problem};

/// The longest name of a person or a key, in characters.
const LONGEST_NAME: usize = 200;

/// The person who registers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterRequest {
    /// The address that they will sign in with.
    #[schema(example = "anna@example.org", format = "email", max_length = 254)]
    email: String,
    /// At least 10 characters.
    #[schema(min_length = 10, max_length = 1024, format = Password)]
    password: String,
    /// Their name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// An invite (`bi_…`), or the token of a server's first user (`bb_…`). Without one a tenant is
    /// created, if registration is open.
    #[schema(pattern = "^(bi|bb)_[0-9A-Za-z]+_[0-9A-Za-z]+$")]
    token: Option<String>,
    /// The name of the new tenant. Default: the e-mail address. It is stored in lower case after a
    /// `~`, and resembles no name that an operator gave.
    #[schema(min_length = 1, max_length = 190)]
    tenant: Option<String>,
}

/// Registers a person and signs them in.
#[utoipa::path(
    post,
    path = "/v1/auth/register",
    tag = "Sign-in",
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "Registered and signed in", body = Tokens),
        (status = 400, description = "The request is wrong, or the token not good", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Registration is not open to everybody here", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The address or the tenant's name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many tries; see `Retry-After`", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(sign_in): State<Arc<SignIn>>,
    origin: Origin,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<Response, ApiError> {
    sign_in.tokens()?;
    let email = email(&request.email)?;
    let name = name("name", request.name)?;
    let tenant_name = request.tenant.as_deref().map(tenant_name).transpose()?;
    check_new_password(&request.password, &email).map_err(|error| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "unacceptable_password",
            error.to_string(),
        )
        .param("password")
    })?;
    let token = request.token.as_deref().map(token_of).transpose()?;
    // The operator has created the bootstrap token, so it works whatever is configured.
    let permitted = match (&token, sign_in.registration) {
        (None, registration) => registration == Registration::Open,
        (Some(token), Registration::Closed) => token.kind() == TokenKind::Bootstrap,
        (Some(_), Registration::Open | Registration::Invited) => true,
    };
    if !permitted {
        let message = match sign_in.registration {
            Registration::Closed => "nobody can register here",
            Registration::Open | Registration::Invited => "registering here takes an invite",
        };
        return Err(ApiError::forbidden("registration_closed", message));
    }
    let counted = Try::count(&store, &email, &origin).await?;
    let user = NewUser {
        id: UserId::new(clock.now()),
        email,
        name,
        password_hash: sign_in.hash(request.password).await?,
    };
    let one = store.one_commit().await?;
    let system = one.system();
    let registered = if let Some(token) = &token {
        system.register_by_token(&user, &token.hash()).await?
    } else {
        let tenant = TenantId::new(clock.now());
        match name_of_new_tenant(&store, tenant_name, &user.email, tenant).await? {
            Some(name) => system.register_with_tenant(&user, tenant, &name).await?,
            None => Registered::TenantTaken,
        }
    };
    let refused = |code: &'static str, message, status| {
        let entry = AuditEntry {
            result: AuditResult::Refused,
            detail: Some(code.to_owned()),
            ..origin.entry(
                Actor::nobody(Some(user.email.clone())),
                None,
                "user.registered",
            )
        };
        (entry, ApiError::new(status, code, message))
    };
    let (tenant, role) = match registered {
        Registered::Joined(tenant, role) => (tenant, role),
        other => {
            one.rollback().await?;
            let (code, message, status) = match other {
                Registered::TokenRefused => {
                    ("token_refused", TOKEN_REFUSED, StatusCode::BAD_REQUEST)
                }
                // If a person registers twice, both are taken, and either may be found first.
                Registered::TenantTaken if !is_known(&store, &user.email).await? => {
                    let message = "there is a tenant of this name: name another in `tenant`";
                    ("tenant_taken", message, StatusCode::CONFLICT)
                }
                Registered::EmailTaken | Registered::TenantTaken | Registered::Joined(..) => {
                    let message = "somebody has registered with this address";
                    ("email_taken", message, StatusCode::CONFLICT)
                }
            };
            let (entry, error) = refused(code, message, status);
            record_unchanged(&store, origin.network, entry).await?;
            return Err(error);
        }
    };
    let entry = AuditEntry {
        target: Some(format!("user:{}", user.id)),
        detail: Some(match &token {
            Some(token) => format!("{role} by {}", kind_of(token)),
            None => format!("{role} of a new tenant"),
        }),
        ..origin.entry(Actor::user(user.id), Some(tenant), "user.registered")
    };
    system.record_audit(&entry).await?;
    let opened = sign_in
        .open_session(&clock, &one, (user.id, tenant), &origin)
        .await?;
    one.commit().await?;
    counted.succeeded(&store).await?;
    let Some((_, tokens)) = opened else {
        return Err(ApiError::forbidden("no_tenant", "you belong to no tenant"));
    };
    Ok((StatusCode::CREATED, Json(tokens)).into_response())
}

pub(super) const TOKEN_REFUSED: &str =
    "the token is used, expired, revoked, or meant for somebody else: ask for another";

fn tenant_name(given: &str) -> Result<TenantName, ApiError> {
    TenantName::parse(given).map_err(|error| {
        let status = StatusCode::BAD_REQUEST;
        ApiError::new(status, "invalid_name", error.to_string()).param("tenant")
    })
}

/// Returns the name of a tenant created by registering: the requested name, else the address, else
/// the tenant's id. `None` if the requested name resembles one that an operator gave, because
/// people would confuse the two.
async fn name_of_new_tenant(
    store: &Store,
    wish: Option<TenantName>,
    email: &str,
    tenant: TenantId,
) -> Result<Option<String>, ApiError> {
    let mut names = store.system().tenant_names(u32::MAX).await?;
    names.push(USUAL_TENANT.to_owned());
    let is_free = |name: &TenantName| !names.iter().any(|other| name.looks_like(other));
    if let Some(wish) = wish {
        return Ok(is_free(&wish).then(|| wish.self_made()));
    }
    let address = TenantName::parse(email).ok().filter(is_free);
    Ok(Some(address.map_or_else(
        || format!("{SELF_MADE}{tenant}"),
        |name| name.self_made(),
    )))
}

async fn is_known(store: &Store, email: &str) -> Result<bool, ApiError> {
    let user = store.system().user_by_email(email).await?;
    Ok(user.is_some())
}

fn kind_of(token: &OpaqueToken) -> &'static str {
    match token.kind() {
        TokenKind::Bootstrap => "bootstrap",
        _ => "invite",
    }
}

/// Parses a token that allows somebody to register.
fn token_of(given: &str) -> Result<OpaqueToken, ApiError> {
    OpaqueToken::parse(given.trim())
        .ok()
        .filter(|token| matches!(token.kind(), TokenKind::Invite | TokenKind::Bootstrap))
        .ok_or_else(|| {
            ApiError::new(StatusCode::BAD_REQUEST, "token_refused", TOKEN_REFUSED).param("token")
        })
}

/// Returns an address as it is stored and compared. Whether mail arrives there is not checked,
/// because none is sent.
pub(crate) fn email(given: &str) -> Result<String, ApiError> {
    let email = given.trim().to_lowercase();
    let plausible = email.len() <= 254
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
        && email.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !host.contains('@')
        });
    if plausible {
        Ok(email)
    } else {
        let message = "`email` is no e-mail address";
        Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_email", message).param("email"))
    }
}

/// Checks a display name: neither empty nor too long.
pub(crate) fn name(param: &'static str, given: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let name = given.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control)
    {
        let message = format!("`{param}` has 1 to {LONGEST_NAME} characters");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_name", message).param(param));
    }
    Ok(Some(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_stored_in_one_spelling() {
        assert_eq!(email(" Anna@Example.ORG ").unwrap(), "anna@example.org");
        for bad in [
            "",
            "anna",
            "@x",
            "anna@",
            "a b@c",
            "a@b@c",
            &"x".repeat(300),
        ] {
            assert_eq!(email(bad).unwrap_err().code, "invalid_email", "{bad}");
        }
    }
}
