//! `POST /v1/api-keys`.

use axum::Json;
use axum::extract::State;
use baton_identity::scopes::{ALL_SCOPES, SCOPES};
use baton_identity::{ApiKey, InvalidKeyRights, KeyRights, LONGEST_LIST};
use baton_protocol::ApiKeyId;
use baton_service::SharedClock;
use baton_store::{AuditEntry, NewApiKey, Store};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder};

use super::KeyEnvironment;
use super::path::no_such_key;
use super::view::{CreatedKey, Limits, Wish, check_within};
use crate::access::body::JsonBody;
use crate::access::{Authorized, KeysWrite, Origin};
use crate::error::{ApiError, Problem};
use crate::routes::sign_in::name;

/// The properties of the new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKey {
    /// The purpose of the key.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The permissions of the key; `*` means all.
    #[serde(default = "usual_scopes")]
    #[schema(schema_with = scopes_schema, required = false)]
    scopes: Vec<String>,
    /// The models that the key may name. Default: all.
    #[schema(schema_with = names_schema, required = false)]
    models: Option<Vec<String>>,
    /// The server-side tools that the key may use. Default: all.
    #[schema(schema_with = names_schema, required = false)]
    tools: Option<Vec<String>>,
    /// The time at which the key expires. Default: never.
    expires_at: Option<DateTime<Utc>>,
    /// The limits of the key.
    #[serde(default)]
    limits: Limits,
}

fn usual_scopes() -> Vec<String> {
    ["runs:write", "runs:read", "models:read"]
        .map(str::to_owned)
        .to_vec()
}

/// Describes a list of scopes.
fn scopes_schema() -> Array {
    let scope = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(SCOPES.iter().copied().chain([ALL_SCOPES])));
    ArrayBuilder::new()
        .items(scope)
        .max_items(Some(LONGEST_LIST))
        .default(Some(usual_scopes().into()))
        .description(Some("The permissions of the key; `*` means all."))
        .build()
}

/// Describes a list of the models or tools of a key.
fn names_schema() -> Array {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(200));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(name)
        .max_items(Some(LONGEST_LIST))
        .description(Some("The names that the key may use. Default: all."))
        .build()
}

/// Creates a key for the tenant. The key is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    tag = "Keys",
    request_body = CreateKey,
    responses(
        (status = 201, description = "The key", body = CreatedKey),
        (status = 403, description = "Lacks the scope, or would hand on more than it has", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn create_key(
    State(store): State<Store>,
    State(clock): State<SharedClock>,
    State(KeyEnvironment(usual)): State<KeyEnvironment>,
    authorized: Authorized<KeysWrite>,
    origin: Origin,
    JsonBody(request): JsonBody<CreateKey>,
) -> Result<(StatusCode, Json<CreatedKey>), ApiError> {
    let caller = authorized.caller;
    let Some(name) = name("name", Some(request.name))? else {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_name",
            "a key has a name",
        ));
    };
    let limits = &request.limits;
    let rights = KeyRights {
        scopes: &request.scopes,
        models: request.models.as_deref(),
        tools: request.tools.as_deref(),
        counts: [limits.per_minute, limits.per_day, limits.concurrent_runs],
        monthly: [limits.monthly_tokens, limits.monthly_cost_micros],
    };
    rights.check().map_err(|error| refused(&error))?;
    let now = clock.now();
    if request.expires_at.is_some_and(|at| at <= now) {
        let message = "`expires_at` is in the past";
        let error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_expiry", message);
        return Err(error.param("expires_at"));
    }
    let wish = Wish {
        scopes: &request.scopes,
        models: request.models.as_deref(),
        tools: request.tools.as_deref(),
        expires_at: request.expires_at,
    };
    check_within(&caller, &wish)?;
    let key =
        ApiKey::from_random(&usual, rand::random()).map_err(|error| ApiError::internal(&error))?;
    let new = NewApiKey {
        id: ApiKeyId::new(now),
        hash: key.hash(),
        name,
        prefix: key.hint().to_owned(),
        scopes: request.scopes,
        allowed_models: request.models,
        allowed_tools: request.tools,
        expires_at: request.expires_at,
        limits: request.limits.into(),
        created_by: Some(caller.actor().to_string()),
    };
    let entry = AuditEntry {
        target: Some(format!("key:{}", new.id)),
        detail: Some(new.scopes.join(" ")),
        ..origin.entry(caller.actor(), Some(caller.tenant), "key.created")
    };
    let mut tx = store.tenant(caller.tenant).await?;
    caller.hold(&mut tx).await?;
    tx.create_api_key(&new).await?;
    let record = tx.api_key(new.id).await?.ok_or_else(no_such_key)?;
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    let created = CreatedKey {
        key: key.expose().to_owned(),
        view: record.into(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

fn refused(error: &InvalidKeyRights) -> ApiError {
    let (code, param) = match error {
        InvalidKeyRights::UnknownScope(_) => ("unknown_scope", "scopes"),
        InvalidKeyRights::List(list) => ("invalid_list", *list),
        InvalidKeyRights::Limit => ("invalid_limit", "limits"),
    };
    ApiError::new(StatusCode::BAD_REQUEST, code, error.to_string()).param(param)
}
