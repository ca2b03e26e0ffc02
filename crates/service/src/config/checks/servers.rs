//! The database and the broker.

use std::time::Duration;

use super::super::sections::NatsConfig;
use super::super::{Config, ConnectionUrl};
use super::demand::Checks;

pub(super) fn servers(checks: &mut Checks<'_>, config: &Config) {
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
    checks.demand(
        database.max_connections >= 3,
        &[("database", "max_connections")],
        format!(
            "database.max_connections is {}, and a role divides it between three pools",
            database.max_connections
        ),
        "write at least 3",
    );
    checks.positive("database", "acquire_timeout", &database.acquire_timeout);

    let nats = &config.nats;
    let url = nats.url.as_ref().map(ConnectionUrl::expose);
    checks.url("nats", "url", url, &["nats", "tls"]);
    checks.positive("nats", "connect_timeout", &nats.connect_timeout);
    checks.positive("nats", "event_retention", &nats.event_retention);
    checks.positive("nats", "jobs_max_bytes", &nats.jobs_max_bytes.as_u64());
    checks.demand(
        u64::from(nats.jobs_per_tenant) >= config.limits.queued_per_tenant.max(1),
        &[("nats", "jobs_per_tenant"), ("limits", "queued_per_tenant")],
        format!(
            "nats.jobs_per_tenant is {}, below limits.queued_per_tenant: accepted runs of a tenant \
             would wait for room in the job stream",
            nats.jobs_per_tenant
        ),
        "write at least limits.queued_per_tenant, and room for the runs that are under way",
    );
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
            "nats.replicas is {}: an even number of copies gains no majority, and 5 are the most",
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
    program_door(checks, nats);
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
}

/// Checks that the settings for programs are complete.
fn program_door(checks: &mut Checks<'_>, nats: &NatsConfig) {
    let given = [
        ("callout_seed", nats.callout_seed.is_some()),
        ("callout_user", nats.callout_user.is_some()),
        ("callout_password", nats.callout_password.is_some()),
        ("system_user", nats.system_user.is_some()),
        ("system_password", nats.system_password.is_some()),
        ("programs_user", nats.programs_user.is_some()),
        ("programs_password", nats.programs_password.is_some()),
    ];
    let named = |wanted: bool| {
        let keys = given.iter().filter(|(_, is)| *is == wanted);
        keys.map(|(key, _)| format!("nats.{key}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    // If an operator defines the users, programs can be read without a callout here.
    let callout = given[..5].iter().any(|(_, is)| *is);
    checks.demand(
        given.iter().all(|(_, is)| *is)
            || (!callout && nats.programs_user.is_some() == nats.programs_password.is_some()),
        &given.map(|(key, _)| ("nats", key)),
        format!(
            "{} is set, and {} is not: an ingress that lets programs in must be able to hear \
             them, and to close their connections",
            named(true),
            named(false)
        ),
        "set nats.callout_seed, and the users callout, programs and system of nats/accounts.conf with \
         their passwords; or none of them",
    );
    checks.demand(
        (1..=10_000).contains(&nats.callout_connections),
        &[("nats", "callout_connections")],
        "nats.callout_connections must be between 1 and 10000".to_owned(),
        "leave it out for the default",
    );
    checks.demand(
        nats.callout_seed
            .as_ref()
            .is_none_or(|seed| is_seed("SA", seed.expose())),
        &[("nats", "callout_seed")],
        "nats.callout_seed is no issuer's seed, which begins with SA and has 58 letters and digits"
            .to_owned(),
        "make one with: baton nats-issuer",
    );
    checks.demand(
        nats.callout_xkey_seed
            .as_ref()
            .is_none_or(|seed| is_seed("SX", seed.expose())),
        &[("nats", "callout_xkey_seed")],
        "nats.callout_xkey_seed is no curve key's seed, which begins with SX and has 58 letters and \
         digits"
            .to_owned(),
        "make one with: baton nats-issuer",
    );
    checks.demand(
        nats.callout_xkey_seed.is_none() || nats.callout_seed.is_some(),
        &[("nats", "callout_xkey_seed")],
        "nats.callout_xkey_seed is of no use without nats.callout_seed".to_owned(),
        "set both, or leave it out",
    );
    checks.demand(
        nats.callout_session >= Duration::from_mins(1)
            && nats.callout_session <= Duration::from_hours(24),
        &[("nats", "callout_session")],
        "nats.callout_session must be between 1m and 24h".to_owned(),
        "leave it out for the default",
    );
}

/// Checks only the form; the reader of the seed finds out whether it is valid.
fn is_seed(kind: &str, text: &str) -> bool {
    let text = text.trim();
    text.len() == 58
        && text.starts_with(kind)
        && text
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}
