//! The description of the API, made from its handlers.

use utoipa::openapi::RefOr;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// What no handler knows of the whole.
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
        (name = "Runs", description = "The native routes; errors are application/problem+json"),
    ),
    modifiers(&Credentials),
)]
pub(crate) struct ApiDescription;

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

/// Every route may answer that there were too many requests: in the shape of its other errors.
pub(crate) fn describe_rate_limits(openapi: &mut utoipa::openapi::OpenApi) {
    for item in openapi.paths.paths.values_mut() {
        for operation in [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ]
        .into_iter()
        .flatten()
        {
            let responses = &mut operation.responses.responses;
            let error = responses
                .iter()
                .find(|(status, _)| status.starts_with('4'))
                .map(|(_, response)| response.clone());
            let Some(RefOr::T(mut refused)) = error else {
                continue;
            };
            refused.description = "Too many requests; see `Retry-After`".into();
            responses
                .entry("429".to_owned())
                .or_insert(RefOr::T(refused));
        }
    }
}
