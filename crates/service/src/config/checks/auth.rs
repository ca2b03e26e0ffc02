//! Sign-in: keys, lifetimes of tokens, and other issuers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::Config;
use super::super::auth::{SigningAlgorithm, weakness};
use super::demand::Checks;
use super::urls::{names_a_user, trustworthy};

pub(super) fn auth(checks: &mut Checks<'_>, config: &Config) {
    let auth = &config.auth;
    if let Some(weakness) = auth
        .jwt_secret
        .as_ref()
        .and_then(|secret| weakness(secret.expose()))
    {
        checks.demand(
            false,
            &[("auth", "jwt_secret")],
            format!("auth.jwt_secret {weakness}"),
            "make one with: openssl rand -base64 48",
        );
    }
    let mut names = BTreeSet::new();
    for key in &auth.keys {
        let kid = &key.kid;
        checks.demand(
            !kid.is_empty() && names.insert(kid.as_str()),
            &[("auth", "keys")],
            format!("the name `{kid}` does not tell one key of auth.keys from the others"),
            "give each its own kid",
        );
        checks.demand(
            key.secret.is_some() != key.secret_file.is_some(),
            &[("auth", "keys")],
            format!("the key `{kid}` needs one of secret and secret_file"),
            "write for example secret_file = \"/run/secrets/signing-key.pem\"",
        );
        let weak = match (key.algorithm, &key.secret) {
            (SigningAlgorithm::Hs256, Some(secret)) => weakness(secret.expose()),
            _ => None,
        };
        checks.demand(
            weak.is_none(),
            &[("auth", "keys")],
            format!("the secret of the key `{kid}` {}", weak.unwrap_or_default()),
            "make one with: openssl rand -base64 48",
        );
    }
    for (key, value, most) in [
        (
            "access_token_life",
            auth.access_token_life,
            Duration::from_mins(15),
        ),
        (
            "refresh_token_life",
            auth.refresh_token_life,
            Duration::from_hours(24 * 366),
        ),
        (
            "invite_life",
            auth.invite_life,
            Duration::from_hours(24 * 366),
        ),
    ] {
        checks.demand(
            value >= Duration::from_secs(1) && value <= most,
            &[("auth", key)],
            format!(
                "auth.{key} must be between 1s and {}",
                humantime::format_duration(most)
            ),
            "leave it out for the default",
        );
    }
    checks.demand(
        auth.leeway <= Duration::from_mins(1),
        &[("auth", "leeway")],
        "auth.leeway is more than 1m, but maintained clocks differ by less".to_owned(),
        "write for example 30s",
    );
    let environment = &auth.key_environment;
    checks.demand(
        (1..=16).contains(&environment.len())
            && environment
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
        &[("auth", "key_environment")],
        format!("auth.key_environment is `{environment}`, which cannot be part of a key"),
        "use 1 to 16 lower-case letters and digits, such as live or staging",
    );
    checks.positive("auth", "password_parallelism", &auth.password_parallelism);
    for (key, value) in [("issuer", &auth.issuer), ("audience", &auth.audience)] {
        checks.demand(
            !value.is_empty(),
            &[("auth", key)],
            format!("auth.{key} is empty"),
            "leave it out for the default",
        );
    }
    issuers(checks, config);
}

fn issuers(checks: &mut Checks<'_>, config: &Config) {
    let key = [("auth", "issuers")];
    let mut names = BTreeSet::from([config.auth.issuer.as_str()]);
    for issuer in &config.auth.issuers {
        let name = &issuer.issuer;
        checks.demand(
            names.insert(name),
            &key,
            format!("two issuers are named `{name}`"),
            "name each once, and auth.issuer otherwise",
        );
        let urls = [Some(name), issuer.jwks_url.as_ref()];
        checks.demand(
            urls.into_iter().flatten().all(|url| trustworthy(url)),
            &key,
            format!("the issuer `{name}` or its jwks_url is not an https URL"),
            "keys that come unprotected prove nothing: write https://…",
        );
        checks.demand(
            !urls.into_iter().flatten().any(|url| names_a_user(url)),
            &key,
            "the URL of an issuer holds a user name or a password, which would be shown".to_owned(),
            "keys for checking are public: write the URL without them",
        );
        checks.demand(
            issuer.tenant.is_some() != issuer.tenant_claim.is_some(),
            &key,
            format!("the issuer `{name}` needs one of tenant and tenant_claim"),
            "write for example tenant = \"acme\"",
        );
        checks.demand(
            ["viewer", "member", "admin"].contains(&issuer.default_role.as_str()),
            &key,
            format!(
                "the default_role of the issuer `{name}` is `{}`",
                issuer.default_role
            ),
            "write viewer, member or admin",
        );
        checks.demand(
            !issuer.audience.is_empty(),
            &key,
            format!("the audience of the issuer `{name}` is empty"),
            "write what its tokens for this server say as aud",
        );
    }
}
