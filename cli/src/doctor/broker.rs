//! NATS: the connection, its version, the streams and consumers, and the door for programs.

use baton_devstack::{NATS_MINIMUM, Version};
use baton_nats::accounts::ROLES;
use baton_nats::{Bus, inspect};
use baton_service::Config;

use super::report::Report;
use crate::role;

/// The user of operators' commands.
const OPERATOR: &str = "operator";

const CONNECTION: &str = "nats.connection";
const STREAMS: &str = "nats.streams";

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(_) = &config.nats.url else {
        return report.failed(CONNECTION, "no broker is configured", "set NATS_URL");
    };
    // Each user may subscribe to replies below its own prefix only.
    let user = config.nats.user.as_deref();
    let user = user.filter(|user| ROLES.contains(user)).unwrap_or(OPERATOR);
    let bus = match Bus::connect(role::broker(user, config)).await {
        Ok(bus) => bus,
        Err(error) => {
            return report.failed(
                CONNECTION,
                error.to_string(),
                "start nats-server, correct NATS_URL, or the user and password (BATON_NATS__USER, \
                 BATON_NATS__PASSWORD_FILE)",
            );
        }
    };
    check_server(&bus, report).await;
    check_streams(&bus, config, user, report).await;
    bus.close().await;
    check_door(config, report).await;
}

async fn check_server(bus: &Bus, report: &mut Report) {
    const VERSION: &str = "nats.version";
    match bus.ping().await {
        Ok(took) => report.ok(
            CONNECTION,
            format!("JetStream answers in {:.1} ms", took.as_secs_f64() * 1e3),
        ),
        Err(error) => report.failed(
            CONNECTION,
            error.to_string(),
            "start nats-server with JetStream, and with the accounts of nats/accounts.conf",
        ),
    }
    let version = bus.server_version();
    if Version::find(&version).is_some_and(|version| version >= NATS_MINIMUM) {
        report.ok(VERSION, version);
    } else {
        let remedy = format!("install nats-server {NATS_MINIMUM} or newer");
        report.failed(VERSION, version, remedy);
    }
}

async fn check_streams(bus: &Bus, config: &Config, user: &str, report: &mut Report) {
    let found = match inspect(bus, &role::stream_options(config)).await {
        Ok(found) => found,
        // The server does not answer a request that the user may not make.
        Err(error) if matches!(user, "ingress" | "worker") => {
            return report.skipped(
                STREAMS,
                format!("the user {user} may not look at them, use {OPERATOR}: {error}"),
            );
        }
        Err(error) => {
            return report.failed(STREAMS, error.to_string(), "run `baton migrate`");
        }
    };
    if !found.missing.is_empty() {
        let missing = found.missing.join(", ");
        report.failed(
            STREAMS,
            format!("missing: {missing}"),
            "run `baton migrate`",
        );
    } else if found.differences.is_empty() {
        report.ok(
            STREAMS,
            "streams and consumers are as this version needs them",
        );
    } else {
        let lines: Vec<_> = found.differences.iter().map(ToString::to_string).collect();
        report.failed(
            STREAMS,
            lines.join("; "),
            "change the settings under [nats], or the streams with `nats stream edit`",
        );
    }
}

/// Checks the connections with which an ingress admits programs.
async fn check_door(config: &Config, report: &mut Report) {
    const NAME: &str = "nats.programs";
    if config.nats.callout_seed.is_none() {
        return report.skipped(NAME, "no issuer is configured, so programs cannot connect");
    }
    match role::door_buses(config).await {
        Ok(_) => report.ok(NAME, "an ingress can admit programs"),
        Err(error) => report.failed(
            NAME,
            format!("{error:#}"),
            "set the users and passwords of `system` and `callout` as in nats/accounts.conf",
        ),
    }
}
