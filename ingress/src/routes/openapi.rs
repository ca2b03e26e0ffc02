//! The description of the API, generated from its handlers.

use baton_openai::ErrorBody;
use baton_protocol::event::description;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, Object};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, PathItem, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};

use crate::error::Shape;

/// The parts of the description that belong to no handler.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Baton",
        description = "Runs AI agents as a service. The OpenAI routes work with any OpenAI SDK; \
            the native routes show a run's whole life.",
    ),
    tags(
        (name = "OpenAI", description = "Compatible with the OpenAI API; errors are its error objects"),
        (name = "Sign-in", description = "People: their sign-in, sessions and tenants"),
        (name = "People", description = "The members of a tenant, and invites"),
        (name = "Keys", description = "API keys: machines' credentials"),
        (name = "Agents", description = "Named configurations of runs, and their versions"),
        (name = "Tools", description = "The tools of the server, and calls of them without a model"),
        (name = "Threads", description = "Stored conversations, and their messages"),
        (name = "Usage", description = "What was used up, and what it cost"),
        (name = "Runs", description = "The native routes; errors are application/problem+json"),
    ),
    modifiers(&Credentials, &Events),
)]
pub(crate) struct ApiDescription;

/// The errors of the OpenAI routes that run a model, where they are the same.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only the description reads it")]
pub(crate) enum AnswerErrors {
    /// The request is wrong, or the upstream refused it
    #[response(status = 400)]
    Wrong(ErrorBody),
    /// No API key, or a bad one
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The key may not do this, or not use this model
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The Idempotency-Key was used with another request
    #[response(status = 422)]
    KeyReused(ErrorBody),
    /// Too many queued runs, runs of this key, open streams, or bytes of bodies; see `Retry-After`
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// The run failed
    #[response(status = 500)]
    RunFailed(ErrorBody),
    /// The upstream failed
    #[response(status = 502)]
    UpstreamFailed(ErrorBody),
    #[response(
        status = 503,
        description = "The system is full, or a part of it away; see `Retry-After`. With \
            `answer_unavailable`, `events_unavailable` or `server_stopping` the run is accepted and goes \
            on: `X-Run-Id` names it, and the same request with its `Idempotency-Key` is attached to it"
    )]
    Unavailable(ErrorBody),
    /// The upstream took too long
    #[response(status = 504)]
    UpstreamSlow(ErrorBody),
}

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("bt_<environment>_<random>_<checksum>")
            .description(Some("An API key, made by `baton keys create`"))
            .build();
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "An access token, from `/v1/auth/login` or another issuer",
            ))
            .build();
        components.add_security_scheme("access_token", SecurityScheme::Http(token));
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("api_key_header", SecurityScheme::ApiKey(header));
    }
}

/// The schemas of a run's events, which travel as text inside server-sent events.
struct Events;

impl Modify for Events {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        components.schemas.extend(description::schemas());
    }
}

/// Adds to every operation the refusals that all operations of its kind share, unless its handler
/// describes them in more detail: a route that needs a credential may refuse it, and a route that
/// reads a body may refuse the body.
pub(crate) fn add_common_refusals(description: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut description.paths.paths {
        let shape = Shape::of(path);
        for operation in operations(item) {
            let secured = operation.security.is_some();
            let takes_body = operation.request_body.is_some();
            for (status, applies, text) in REFUSALS {
                let applies = match applies {
                    When::Always => true,
                    When::Secured => secured,
                    When::TakesBody => takes_body,
                };
                if applies {
                    operation
                        .responses
                        .responses
                        .entry((*status).to_owned())
                        .or_insert_with(|| RefOr::T(refusal(shape, text)));
                }
            }
        }
    }
}

/// Describes an object that contains the fields of a closed one as one closed object. With `allOf`
/// every answer would violate the closed half, which allows no other fields.
pub(crate) fn join_closed_objects(description: &mut utoipa::openapi::OpenApi) {
    let Some(components) = &mut description.components else {
        return;
    };
    let schemas = &components.schemas;
    let joined: Vec<_> = schemas
        .iter()
        .filter_map(|(name, schema)| {
            let RefOr::T(Schema::AllOf(all)) = schema else {
                return None;
            };
            let parts = all.items.iter().map(|part| match part {
                RefOr::T(Schema::Object(object)) => Some(object),
                RefOr::T(_) => None,
                RefOr::Ref(target) => {
                    let (_, target) = target.ref_location.rsplit_once('/')?;
                    match schemas.get(target)? {
                        RefOr::T(Schema::Object(object)) => Some(object),
                        _ => None,
                    }
                }
            });
            let parts: Vec<_> = parts.collect::<Option<_>>()?;
            let is_closed = |part: &&Object| {
                matches!(
                    part.additional_properties.as_deref(),
                    Some(AdditionalProperties::FreeForm(false))
                )
            };
            parts.iter().any(is_closed).then(|| {
                let mut whole = Object::new();
                whole.description.clone_from(&all.description);
                for part in parts {
                    whole.properties.extend(part.properties.clone());
                    whole.required.extend(part.required.iter().cloned());
                }
                whole.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
                (name.clone(), RefOr::T(Schema::Object(whole)))
            })
        })
        .collect();
    components.schemas.extend(joined);
}

#[derive(Clone, Copy)]
enum When {
    Always,
    Secured,
    TakesBody,
}

const REFUSALS: &[(&str, When, &str)] = &[
    ("400", When::TakesBody, "The request is wrong"),
    ("401", When::Secured, "No credential, or a bad one"),
    ("403", When::Secured, "The credential lacks the scope"),
    ("408", When::TakesBody, "The body took too long to arrive"),
    ("413", When::TakesBody, "The body is too large"),
    ("429", When::Always, "Too many requests; see `Retry-After`"),
    (
        "503",
        When::Always,
        "A part of the system is away; see `Retry-After`",
    ),
];

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        patch,
        ..
    } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn refusal(shape: Shape, text: &str) -> Response {
    let (media, schema) = match shape {
        Shape::OpenAi => ("application/json", "ErrorBody"),
        Shape::Problem => ("application/problem+json", "Problem"),
    };
    let schema = RefOr::Ref(Ref::from_schema_name(schema));
    ResponseBuilder::new()
        .description(text)
        .content(media, Content::new(Some(schema)))
        .build()
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(target) if name == "$ref" => found.push(target.to_owned()),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_events_are_described() {
        let description = serde_json::to_value(crate::openapi()).unwrap();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > 100);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{target}");
        }
        let agent = &description["components"]["schemas"]["AgentView"];
        assert_eq!(agent["additionalProperties"], false, "{agent:#}");
        for field in ["id", "version", "name", "instructions"] {
            assert!(agent["properties"][field].is_object(), "{field}: {agent:#}");
        }
        let event = &description["components"]["schemas"]["RunEvent"];
        assert!(event["oneOf"].as_array().unwrap().len() >= 13);
        assert!(event["discriminator"]["mapping"]["text.delta"].is_string());
    }
}
