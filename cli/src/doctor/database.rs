//! PostgreSQL: version, user, migrations, row-level security, durability, connections, clock.

use std::error::Error as _;

use baton_devstack::POSTGRES_MINIMUM;
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{ConnectError, Diagnosis, diagnose};
use chrono::{DateTime, TimeDelta, Utc};

use super::report::Report;

/// The difference of clocks from which sessions and tokens end noticeably early or late.
const NOTICEABLE: TimeDelta = TimeDelta::seconds(2);
/// The difference of clocks from which new tokens are refused.
const GREATEST: TimeDelta = TimeDelta::seconds(30);

const CONNECTION: &str = "postgres.connection";

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(url) = &config.database.url else {
        return report.failed(CONNECTION, "no database is configured", "set DATABASE_URL");
    };
    let before = SystemClock.now();
    match diagnose(url.expose()).await {
        Ok(found) => {
            report.ok(CONNECTION, format!("as the user {}", found.user));
            check_server(&found, config, report);
            check_user(&found, report);
            check_clock(&found, before, SystemClock.now(), report);
        }
        Err(error @ ConnectError::Address(_)) => report.failed(
            CONNECTION,
            error.to_string(),
            "DATABASE_URL is postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %-escapes in the password",
        ),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            report.failed(
                CONNECTION,
                format!("{error}{}", cause.unwrap_or_default()),
                "start PostgreSQL, correct DATABASE_URL, or make the user with `baton migrate --bootstrap \
                 ADMIN_URL`",
            );
        }
    }
}

fn check_server(found: &Diagnosis, config: &Config, report: &mut Report) {
    const VERSION: &str = "postgres.version";
    const DURABILITY: &str = "postgres.durability";
    const CONNECTIONS: &str = "postgres.connections";
    if found.major < POSTGRES_MINIMUM.major {
        report.failed(
            VERSION,
            found.version.clone(),
            format!("install PostgreSQL {} or newer", POSTGRES_MINIMUM.major),
        );
    } else {
        report.ok(VERSION, found.version.clone());
    }
    if found.not_durable.is_empty() {
        report.ok(DURABILITY, "a committed run survives a crash");
    } else {
        let settings = found.not_durable.join(", ");
        report.failed(
            DURABILITY,
            format!("a crash can lose accepted runs: off is {settings}"),
            format!("set {settings} to on in postgresql.conf"),
        );
    }
    let free = found.max_connections.saturating_sub(found.connections);
    let wanted = config.database.max_connections;
    let detail = format!(
        "{} of {} are in use; a role opens up to {wanted}",
        found.connections, found.max_connections
    );
    if free < wanted {
        report.warning(
            CONNECTIONS,
            detail,
            "raise max_connections of PostgreSQL, or lower database.max_connections",
        );
    } else {
        report.ok(CONNECTIONS, detail);
    }
}

fn check_user(found: &Diagnosis, report: &mut Report) {
    const ISOLATION: &str = "postgres.isolation";
    const MIGRATIONS: &str = "postgres.migrations";
    if found.sees_everything {
        report.failed(
            ISOLATION,
            format!(
                "{} is a superuser or has BYPASSRLS: row-level security does not apply to it",
                found.user
            ),
            format!("ALTER ROLE \"{}\" NOSUPERUSER NOBYPASSRLS", found.user),
        );
    } else if found.unguarded.is_empty() {
        report.ok(ISOLATION, "row-level security guards each tenant's rows");
    } else {
        let tables = found.unguarded.join(", ");
        report.failed(
            ISOLATION,
            format!("row-level security does not guard {tables}"),
            "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY for each",
        );
    }
    if !found.missing_roles.is_empty() {
        let roles = found.missing_roles.join(" and ");
        report.failed(
            MIGRATIONS,
            format!("{} may not act as {roles}", found.user),
            "run `baton migrate`, which makes the roles and grants them",
        );
    } else if found.pending.is_empty() {
        report.ok(MIGRATIONS, "all are applied");
    } else {
        let names: Vec<_> = found.pending.iter().map(ToString::to_string).collect();
        report.failed(
            MIGRATIONS,
            format!("missing: {}", names.join(", ")),
            "run `baton migrate`",
        );
    }
}

fn check_clock(
    found: &Diagnosis,
    before: DateTime<Utc>,
    after: DateTime<Utc>,
    report: &mut Report,
) {
    const NAME: &str = "postgres.clock";
    // The database's clock was read between the two times.
    let difference = (before - found.now)
        .max(found.now - after)
        .max(TimeDelta::zero());
    let detail = format!(
        "this machine's clock and the database's differ by {:.1} s",
        difference.as_seconds_f64()
    );
    let remedy = "let both machines follow an NTP server (`timedatectl set-ntp true`)";
    if difference >= GREATEST {
        report.failed(NAME, detail, remedy);
    } else if difference >= NOTICEABLE {
        report.warning(NAME, detail, remedy);
    } else {
        report.ok(NAME, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Diagnosis {
        Diagnosis {
            version: "16.3".to_owned(),
            major: 16,
            user: "baton".to_owned(),
            sees_everything: false,
            missing_roles: Vec::new(),
            pending: Vec::new(),
            unguarded: Vec::new(),
            not_durable: Vec::new(),
            max_connections: 97,
            connections: 1,
            now: DateTime::UNIX_EPOCH,
        }
    }

    /// Returns the report's lines about one database.
    fn lines(found: &Diagnosis, at: DateTime<Utc>) -> String {
        let mut report = Report::default();
        check_server(found, &Config::default(), &mut report);
        check_user(found, &mut report);
        check_clock(found, at, at, &mut report);
        report.lines()
    }

    #[test]
    fn each_fault_is_found_and_a_healthy_database_has_none() {
        let now = DateTime::UNIX_EPOCH;
        let fine = lines(&healthy(), now);
        assert!(
            fine.ends_with("6 checks: 0 failed, 0 warnings, 0 skipped"),
            "{fine}"
        );
        let text = || vec!["runs".to_owned()];
        let faults = [
            (
                Diagnosis {
                    major: 14,
                    ..healthy()
                },
                "postgres.version",
            ),
            (
                Diagnosis {
                    not_durable: text(),
                    ..healthy()
                },
                "postgres.durability",
            ),
            (
                Diagnosis {
                    sees_everything: true,
                    ..healthy()
                },
                "postgres.isolation",
            ),
            (
                Diagnosis {
                    unguarded: text(),
                    ..healthy()
                },
                "postgres.isolation",
            ),
            (
                Diagnosis {
                    missing_roles: text(),
                    ..healthy()
                },
                "postgres.migrations",
            ),
        ];
        for (found, name) in faults {
            let lines = lines(&found, now);
            assert!(lines.contains(&format!("FAILED   {name}")), "{lines}");
            assert!(lines.contains(": 1 failed, 0 warnings"), "{lines}");
        }
        let crowded = Diagnosis {
            connections: 90,
            ..healthy()
        };
        assert!(lines(&crowded, now).contains("warning  postgres.connections"));
    }

    #[test]
    fn clocks_that_differ_are_found_in_both_directions() {
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        for (seconds, word) in [
            (1, "ok"),
            (-1, "ok"),
            (5, "warning"),
            (-5, "warning"),
            (60, "FAILED"),
            (-60, "FAILED"),
        ] {
            let lines = lines(&healthy(), at(seconds));
            assert!(
                lines.contains(&format!("{word:<8} postgres.clock")),
                "{seconds}: {lines}"
            );
        }
    }
}
