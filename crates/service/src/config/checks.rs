//! Checks that serde cannot make: ranges, forms, and keys that must agree.

mod guessable;

use std::collections::BTreeSet;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::auth::{SigningAlgorithm, weakness};
use super::load::Origins;
use super::mistake::{Mistake, Origin};
use super::{Config, ConnectionUrl};

struct Checks<'a> {
    origins: &'a Origins,
    refused: &'a BTreeSet<(String, String)>,
    mistakes: Vec<Mistake>,
}

impl Checks<'_> {
    /// Blames the first of `keys` that someone set, unless one of them was refused already, in which
    /// case the value compared is a default that nobody chose.
    fn demand(&mut self, holds: bool, keys: &[(&str, &str)], message: String, instead: &str) {
        let owned = |(section, key): &(&str, &str)| ((*section).to_owned(), (*key).to_owned());
        if holds || keys.iter().any(|key| self.refused.contains(&owned(key))) {
            return;
        }
        let origin = keys.iter().find_map(|key| self.origins.get(&owned(key)));
        self.mistakes.push(Mistake {
            origin: origin.cloned().unwrap_or(Origin::Default),
            message,
            instead: Some(instead.to_owned()),
        });
    }

    fn positive<T: PartialOrd + Default>(&mut self, section: &str, key: &str, value: &T) {
        let message = format!("{section}.{key} must be more than 0");
        self.demand(
            *value > T::default(),
            &[(section, key)],
            message,
            "write a positive value",
        );
    }

    fn url(&mut self, section: &str, key: &str, value: Option<&str>, schemes: &[&str]) {
        let Some(value) = value else { return };
        // NATS takes several, with commas between.
        let holds = value.split(',').all(|url| {
            let parts = url.trim().split_once("://");
            parts.is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
        });
        let message = format!(
            "{section}.{key} is not a URL that begins with {}://",
            schemes[0]
        );
        let instead = format!("write for example {}://localhost", schemes[0]);
        self.demand(holds, &[(section, key)], message, &instead);
    }
}

pub(super) fn check(
    config: &Config,
    origins: &Origins,
    refused: &BTreeSet<(String, String)>,
    development: bool,
) -> Vec<Mistake> {
    let mut checks = Checks {
        origins,
        refused,
        mistakes: Vec::new(),
    };
    http(&mut checks, config);
    servers(&mut checks, config);
    auth(&mut checks, config);
    worker(&mut checks, config);
    rest(&mut checks, config);
    prices(&mut checks, config);
    tools(&mut checks, config);
    if !development {
        guessable::guessable(&mut checks, config);
    }
    checks.mistakes
}

fn http(checks: &mut Checks<'_>, config: &Config) {
    let http = &config.http;
    checks.positive("http", "max_connections", &http.max_connections);
    checks.positive("http", "body_limit", &http.body_limit.as_u64());
    for (key, value) in [
        ("header_timeout", http.header_timeout),
        ("body_timeout", http.body_timeout),
        ("write_timeout", http.write_timeout),
        ("keep_alive", http.keep_alive),
        ("heartbeat", http.heartbeat),
    ] {
        checks.positive("http", key, &value);
    }
    checks.demand(
        http.heartbeat < Duration::from_mins(1),
        &[("http", "heartbeat")],
        "http.heartbeat must be below 60s, where common proxies cut a silent stream".to_owned(),
        "write for example 15s",
    );
    for origin in &http.cors_origins {
        checks.demand(
            is_origin(origin),
            &[("http", "cors_origins")],
            format!(
                "`{origin}` is not an origin: a scheme, a host in lower case and, where it is not \
                 the usual one, a port"
            ),
            "write for example cors_origins = [\"https://app.example\"]",
        );
    }
    let admin = config.admin.ingress;
    checks.demand(
        admin.port() == 0 || admin.port() != http.listen.port(),
        &[("admin", "ingress"), ("http", "listen")],
        format!(
            "admin.ingress and http.listen both use port {}",
            admin.port()
        ),
        "give each its own port",
    );
}

/// As browsers write it in `Origin`: it is compared byte for byte. No wildcard, and no `null`, which
/// every sandboxed page sends.
fn is_origin(text: &str) -> bool {
    let usual = |scheme, port| matches!((scheme, port), ("https", "443") | ("http", "80"));
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return false;
    };
    // A bracketed IPv6 address has colons of its own.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._[]:".contains(c);
    !host.is_empty()
        && host.chars().all(of_host)
        && port.is_none_or(|port| {
            port.parse::<u16>()
                .is_ok_and(|number| number.to_string() == port)
                && !usual(scheme, port)
        })
}

fn servers(checks: &mut Checks<'_>, config: &Config) {
    let database = &config.database;
    let postgres = ["postgres", "postgresql"];
    checks.url(
        "database",
        "url",
        database.url.as_ref().map(ConnectionUrl::expose),
        &postgres,
    );
    let owner = database.migrate_url.as_ref().map(ConnectionUrl::expose);
    checks.url("database", "migrate_url", owner, &postgres);
    checks.positive("database", "max_connections", &database.max_connections);
    checks.positive("database", "acquire_timeout", &database.acquire_timeout);

    let nats = &config.nats;
    let url = nats.url.as_ref().map(ConnectionUrl::expose);
    checks.url("nats", "url", url, &["nats", "tls", "ws", "wss"]);
    checks.positive("nats", "connect_timeout", &nats.connect_timeout);
    checks.positive("nats", "event_retention", &nats.event_retention);
    checks.positive("nats", "jobs_max_bytes", &nats.jobs_max_bytes.as_u64());
    checks.positive("nats", "events_max_bytes", &nats.events_max_bytes.as_u64());
    checks.demand(
        nats.events_per_run >= 100,
        &[("nats", "events_per_run")],
        format!(
            "nats.events_per_run is {}, too few for a run to end in order",
            nats.events_per_run
        ),
        "write at least 100",
    );
    checks.positive("nats", "dead_max_bytes", &nats.dead_max_bytes.as_u64());
    checks.demand(
        [1, 3, 5].contains(&nats.replicas),
        &[("nats", "replicas")],
        format!(
            "nats.replicas is {}, which no majority can be counted in",
            nats.replicas
        ),
        "write 1, 3 or 5",
    );
    let user = nats.user.is_some();
    checks.demand(
        user == nats.password.is_some(),
        &[("nats", "user"), ("nats", "password")],
        "nats.user and nats.password go together".to_owned(),
        "set both or neither",
    );
    let door = [
        nats.callout_seed.is_some(),
        nats.system_user.is_some(),
        nats.system_password.is_some(),
    ];
    checks.demand(
        door == [true; 3] || door == [false; 3],
        &[
            ("nats", "callout_seed"),
            ("nats", "system_user"),
            ("nats", "system_password"),
        ],
        "nats.callout_seed, nats.system_user and nats.system_password go together: who lets \
         programs in must be able to put them out"
            .to_owned(),
        "set all three or none",
    );
    checks.demand(
        nats.callout_seed
            .as_ref()
            .is_none_or(|seed| is_issuer_seed(seed.expose())),
        &[("nats", "callout_seed")],
        "nats.callout_seed is no issuer's seed, which begins with SA and has 58 letters and digits"
            .to_owned(),
        "make one with: baton nats-issuer",
    );
    checks.demand(
        nats.callout_session >= Duration::from_mins(1)
            && nats.callout_session <= Duration::from_hours(24),
        &[("nats", "callout_session")],
        "nats.callout_session must be between 1m and 24h".to_owned(),
        "leave it out for the default",
    );
    checks.demand(
        nats.tls_cert.is_some() == nats.tls_key.is_some(),
        &[("nats", "tls_cert"), ("nats", "tls_key")],
        "nats.tls_cert and nats.tls_key go together".to_owned(),
        "set both or neither",
    );
    let ways = [user, nats.token.is_some(), nats.creds_file.is_some()];
    checks.demand(
        ways.into_iter().filter(|set| *set).count() <= 1,
        &[("nats", "creds_file"), ("nats", "token"), ("nats", "user")],
        "more than one way to sign in to NATS is set".to_owned(),
        "keep one of nats.user with nats.password, nats.token, nats.creds_file",
    );

    let llm = &config.llm;
    checks.url(
        "llm",
        "base_url",
        llm.base_url.as_deref(),
        &["https", "http"],
    );
    checks.demand(
        !llm.base_url.as_deref().is_some_and(names_a_user),
        &[("llm", "base_url")],
        "llm.base_url holds a user name or a password, which would be shown".to_owned(),
        "put the key into llm.api_key",
    );
    for (key, value) in [
        ("connect_timeout", llm.connect_timeout),
        ("first_byte_timeout", llm.first_byte_timeout),
        ("idle_timeout", llm.idle_timeout),
    ] {
        checks.positive("llm", key, &value);
        checks.demand(
            value <= llm.total_timeout,
            &[("llm", key), ("llm", "total_timeout")],
            format!("llm.{key} exceeds llm.total_timeout and could never strike"),
            "raise llm.total_timeout, or lower the other",
        );
    }
}

/// By its form alone: whose it is, its reader finds out.
fn is_issuer_seed(text: &str) -> bool {
    let text = text.trim();
    text.len() == 58
        && text.starts_with("SA")
        && text
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

fn auth(checks: &mut Checks<'_>, config: &Config) {
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
        "auth.leeway is more than 1m, by which no clock that is looked after is wrong".to_owned(),
        "write for example 30s",
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

/// Whether a URL has credentials before its host, in a place that does not count as secret.
fn names_a_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

/// Whether what comes from this URL comes over TLS, or without leaving the machine.
pub fn trustworthy(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        host == *name
            || host
                .strip_prefix(name)
                .is_some_and(|port| port.starts_with(':'))
    });
    !host.is_empty() && (scheme == "https" || (scheme == "http" && local))
}

fn worker(checks: &mut Checks<'_>, config: &Config) {
    let worker = &config.worker;
    checks.positive("worker", "slots", &worker.slots);
    checks.positive("worker", "lease", &worker.lease);
    checks.positive("worker", "renew_every", &worker.renew_every);
    checks.positive("worker", "max_turns", &worker.max_turns);
    checks.positive("worker", "max_failures", &worker.max_failures);
    checks.positive("worker", "tool_parallelism", &worker.tool_parallelism);
    checks.positive("worker", "tool_timeout", &worker.tool_timeout);
    checks.demand(
        worker.interactive_slots <= worker.slots,
        &[("worker", "interactive_slots"), ("worker", "slots")],
        format!(
            "worker.interactive_slots ({}) is a part of worker.slots ({}) and cannot exceed it",
            worker.interactive_slots, worker.slots
        ),
        "lower worker.interactive_slots or raise worker.slots",
    );
    checks.positive("worker", "approval_expiry", &worker.approval_expiry);
    checks.demand(
        worker.renew_every < worker.lease / 2,
        &[("worker", "renew_every"), ("worker", "lease")],
        format!(
            "worker.renew_every ({}) must be below half of worker.lease ({}), so that one lost \
             renewal does not lose the run",
            humantime::format_duration(worker.renew_every),
            humantime::format_duration(worker.lease)
        ),
        "write for example renew_every = \"5s\" with lease = \"20s\"",
    );
}

fn rest(checks: &mut Checks<'_>, config: &Config) {
    checks.positive("scheduler", "sweep_every", &config.scheduler.sweep_every);
    checks.positive(
        "scheduler",
        "publish_timeout",
        &config.scheduler.publish_timeout,
    );
    let limits = &config.limits;
    checks.positive("limits", "queued_per_tenant", &limits.queued_per_tenant);
    checks.positive("limits", "streams_per_key", &limits.streams_per_key);
    checks.positive(
        "limits",
        "budget_answer_tokens",
        &limits.budget_answer_tokens,
    );
    checks.demand(
        limits.queued_per_tenant <= limits.queued_total,
        &[("limits", "queued_per_tenant"), ("limits", "queued_total")],
        "limits.queued_per_tenant exceeds limits.queued_total".to_owned(),
        "lower the one or raise the other",
    );
    if let Err(error) = EnvFilter::try_new(&config.log.filter) {
        checks.demand(
            false,
            &[("log", "filter")],
            format!("`{}` is not a log filter: {error}", config.log.filter),
            "write a level such as info, or directives such as info,baton_worker=debug",
        );
    }
}

fn prices(checks: &mut Checks<'_>, config: &Config) {
    let key = [("llm", "prices")];
    let mut models = BTreeSet::new();
    for price in &config.llm.prices {
        let model = &price.model;
        checks.demand(
            !model.is_empty(),
            &key,
            "a price has no model".to_owned(),
            "write the upstream's name of the model, such as gpt-4o",
        );
        checks.demand(
            models.insert(model.as_str()),
            &key,
            format!("the model `{model}` has two prices"),
            "give each model one",
        );
        checks.demand(
            price
                .cached_input_per_million
                .is_none_or(|cached| cached <= price.input_per_million),
            &key,
            format!("of the model `{model}`, cached input costs more than other input"),
            "leave cached_input_per_million out, or lower it",
        );
    }
}

fn tools(checks: &mut Checks<'_>, config: &Config) {
    let key = [("tools", "http")];
    let mut names = BTreeSet::new();
    for tool in &config.tools.http {
        let name = &tool.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        checks.demand(
            (1..=64).contains(&name.len()) && name.chars().all(plain),
            &key,
            format!("tool name `{name}` cannot be offered to a model"),
            "use 1 to 64 letters, digits, `_` and `-`",
        );
        checks.demand(
            names.insert(name.as_str()),
            &key,
            format!("two tools are named `{name}`"),
            "give each its own name",
        );
        checks.demand(
            tool.url.starts_with("https://") || tool.url.starts_with("http://"),
            &key,
            format!("the url of tool `{name}` is not an HTTP URL"),
            "write for example https://tools.example/weather",
        );
        checks.demand(
            !names_a_user(&tool.url),
            &key,
            format!("the url of tool `{name}` holds a user name or a password"),
            "put it into headers, whose values are never shown: authorization = \"Basic …\"",
        );
        checks.demand(
            ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&tool.method.as_str()),
            &key,
            format!("tool `{name}` has the method `{}`", tool.method),
            "write GET, POST, PUT, PATCH or DELETE",
        );
        checks.demand(
            !tool.timeout.is_zero(),
            &key,
            format!("the timeout of tool `{name}` must be more than 0"),
            "write for example 30s",
        );
    }
}
