//! This machine: the limit of open files, and the access to files with secrets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use baton_service::Config;
use baton_service::open_files::{fit_connections, raise_limit};

use super::report::Report;

/// The beginnings of the names of variables that a role reads.
const OURS: [&str; 5] = ["BATON_", "DATABASE_", "JWT_", "LLM_", "NATS_"];
/// Readable for everybody on the machine.
const FOR_ALL: u32 = 0o004;

pub(super) fn check(config: &Config, report: &mut Report) {
    check_open_files(config, report);
    check_secrets(config, report);
}

fn check_open_files(config: &Config, report: &mut Report) {
    const NAME: &str = "machine.open_files";
    let Some(limit) = raise_limit() else {
        return report.skipped(NAME, "the limit of open files cannot be read");
    };
    let mut http = config.http.clone();
    match fit_connections(&mut http, config.database.max_connections, limit) {
        Ok(()) => report.ok(
            NAME,
            format!(
                "{limit}: room for {} connections of clients",
                http.connections()
            ),
        ),
        Err(error) => report.failed(
            NAME,
            error.to_string(),
            "raise LimitNOFILE= of the unit, or `ulimits: nofile` of the container",
        ),
    }
}

/// Checks the files with secrets that the configuration and the environment name.
fn check_secrets(config: &Config, report: &mut Report) {
    const NAME: &str = "machine.secrets";
    let named = [config.nats.creds_file.clone(), config.nats.tls_key.clone()];
    let of_upstreams = config.llm.upstreams.iter();
    let of_upstreams = of_upstreams.filter_map(|upstream| upstream.api_key_file.clone());
    let of_environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_suffix("_FILE")?;
        let is_ours = OURS.iter().any(|prefix| name.starts_with(prefix));
        is_ours.then(|| PathBuf::from(value))
    });
    let mut files: Vec<PathBuf> = named.into_iter().flatten().collect();
    files.extend(of_upstreams);
    files.extend(of_environment);
    files.sort();
    files.dedup();
    let open: Vec<String> = files
        .iter()
        .filter(|file| is_open_to_all(file))
        .map(|file| file.display().to_string())
        .collect();
    if open.is_empty() {
        report.ok(NAME, "no file of the configuration is open to everybody");
    } else {
        report.warning(
            NAME,
            format!("everybody on this machine can read {}", open.join(", ")),
            format!("chmod o-r {}", open.join(" ")),
        );
    }
}

fn is_open_to_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|about| about.permissions().mode() & FOR_ALL != 0)
}
