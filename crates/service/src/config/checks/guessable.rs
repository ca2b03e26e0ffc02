//! Passwords, tokens and keys that are easy to guess, and placeholders that nobody filled in.

use super::super::Config;
use super::super::auth::WELL_KNOWN;
use super::demand::Checks;

/// The shortest password or token: 12 random letters cannot be guessed over a network.
const SHORTEST: usize = 12;
/// The fewest different characters; fewer are a pattern.
const FEWEST: usize = 5;

/// Placeholders of documentation.
const UNFILLED: [&str; 8] = [
    "changeme",
    "change-me",
    "change_me",
    "replace",
    "your-",
    "your_",
    "placeholder",
    "xxxxxx",
];

pub(super) fn guessable(checks: &mut Checks<'_>, config: &Config) {
    for (key, role, url) in [
        ("url", "the application's role", &config.database.url),
        (
            "migrate_url",
            "the owner's role",
            &config.database.migrate_url,
        ),
    ] {
        let Some(url) = url else { continue };
        for (user, password) in credentials(url.expose()) {
            let flaw = password.and_then(|password| flaw(password, user));
            checks.demand(
                flaw.is_none(),
                &[("database", key)],
                format!(
                    "the password in database.{key} {}",
                    flaw.unwrap_or_default()
                ),
                &format!("give {role} another, made with: openssl rand -hex 24"),
            );
        }
    }
    let nats = &config.nats;
    for one in nats.url.iter().flat_map(|url| url.expose().split(',')) {
        for (user, password) in credentials(one) {
            // A name without a password is a token.
            let flaw = match password {
                Some(password) => flaw(password, user),
                None => user.and_then(|token| flaw(token, None)),
            };
            checks.demand(
                flaw.is_none(),
                &[("nats", "url")],
                format!(
                    "the password or token in nats.url {}",
                    flaw.unwrap_or_default()
                ),
                "give this process another in nats.conf, made with: openssl rand -hex 24",
            );
        }
    }
    for (key, secret, user) in [
        ("password", &nats.password, nats.user.as_deref()),
        ("token", &nats.token, None),
        (
            "callout_password",
            &nats.callout_password,
            nats.callout_user.as_deref(),
        ),
        (
            "programs_password",
            &nats.programs_password,
            nats.programs_user.as_deref(),
        ),
        (
            "system_password",
            &nats.system_password,
            nats.system_user.as_deref(),
        ),
    ] {
        let flaw = secret
            .as_ref()
            .and_then(|secret| flaw(secret.expose(), user));
        checks.demand(
            flaw.is_none(),
            &[("nats", key)],
            format!("nats.{key} {}", flaw.unwrap_or_default()),
            "give this process another in nats.conf, made with: openssl rand -hex 24",
        );
    }
    // Only placeholders are refused, because a self-hosted model may need no key, or accept any.
    checks.demand(
        !config
            .llm
            .api_key
            .as_ref()
            .is_some_and(|key| is_unfilled(key.expose())),
        &[("llm", "api_key")],
        "llm.api_key is a placeholder that nobody filled in".to_owned(),
        "write the upstream's key, or leave it out if the upstream wants none",
    );
    checks.demand(
        !config
            .web_search
            .api_key
            .as_ref()
            .is_some_and(|key| is_unfilled(key.expose())),
        &[("web_search", "api_key")],
        "web_search.api_key is a placeholder that nobody filled in".to_owned(),
        "write the key of the search API, or leave it out",
    );
    for upstream in &config.llm.upstreams {
        let keys = upstream.api_key.iter().chain(upstream.headers.values());
        checks.demand(
            !keys.into_iter().any(|key| is_unfilled(key.expose())),
            &[("llm", "upstreams")],
            format!(
                "the key or a header of upstream `{}` is a placeholder that nobody filled in",
                upstream.name
            ),
            "write its value, or leave it out",
        );
    }
    mcp_servers(checks, config);
    for tool in &config.tools.http {
        for (header, value) in &tool.headers {
            checks.demand(
                !is_unfilled(value.expose()),
                &[("tools", "http")],
                format!(
                    "the header `{header}` of tool `{}` is a placeholder",
                    tool.name
                ),
                "write its value, or leave it out",
            );
        }
    }
}

/// Refuses placeholders in the credentials of MCP servers.
fn mcp_servers(checks: &mut Checks<'_>, config: &Config) {
    for server in &config.mcp.servers {
        let secrets = server.token.iter().chain(server.headers.values());
        let client = server.auth.as_ref();
        let client = client.and_then(|auth| auth.client_secret.as_ref());
        let secrets = secrets.chain(server.env.values()).chain(client);
        checks.demand(
            !secrets
                .into_iter()
                .any(|secret| is_unfilled(secret.expose())),
            &[("mcp", "servers")],
            format!(
                "the token, a header or a variable of MCP server `{}`, or the secret of its client, is a \
                 placeholder that nobody filled in",
                server.name
            ),
            "write its value, or leave it out",
        );
    }
}

/// Returns the reason why a secret is easy to guess, if it is.
fn flaw(secret: &str, user: Option<&str>) -> Option<&'static str> {
    let lower = secret.to_lowercase();
    let mut bytes: Vec<u8> = secret.bytes().collect();
    bytes.sort_unstable();
    bytes.dedup();
    if secret.is_empty() {
        Some("is empty")
    } else if is_unfilled(secret) {
        Some("is a placeholder that nobody filled in")
    } else if user.is_some_and(|user| user.eq_ignore_ascii_case(secret)) {
        Some("is the user's name")
    } else if secret.len() < SHORTEST || bytes.len() < FEWEST {
        Some("is shorter than 12 bytes, or too plain")
    } else if WELL_KNOWN.iter().any(|word| lower.contains(word)) {
        Some("contains a word that stands in examples")
    } else {
        None
    }
}

/// Returns whether this is a placeholder of documentation or a template.
fn is_unfilled(secret: &str) -> bool {
    let lower = secret.to_lowercase();
    let last = lower.split_whitespace().last().unwrap_or_default();
    UNFILLED.iter().any(|word| lower.contains(word))
        || ["...", "…", "${", "{{"]
            .iter()
            .any(|mark| lower.contains(mark))
        || (last.starts_with('<') && last.ends_with('>'))
}

/// Returns the users and passwords in a URL: before its host, and in its query, as libpq reads
/// them.
fn credentials(url: &str) -> Vec<(Option<&str>, Option<&str>)> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let mut found = Vec::new();
    if let Some((before, _)) = authority.rsplit_once('@') {
        found.push(match before.split_once(':') {
            Some((user, password)) => (Some(user), Some(password)),
            None => (Some(before), None),
        });
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let of = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if let Some(password) = of("password") {
        found.push((of("user"), Some(password)));
    }
    found
}
