//! `baton config check|print` and `baton version`.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use baton_nats::{CurveKey, Issuer};
use baton_service::{Config, Secret, Sources};
use clap::Subcommand;

use crate::args::ConfigArgs;
use crate::visible::visible_lines;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every mistake at once
    Check,
    /// Print the configuration in force, secrets hidden
    Print,
}

/// Loads the configuration, or fails with every mistake in it.
pub(crate) fn load(args: &ConfigArgs) -> anyhow::Result<Config> {
    let sources = Sources::from_process(args.file.as_deref())?;
    Ok(Config::load(&sources)?)
}

/// As [`load`], for private servers on this machine.
pub(crate) fn load_for_development(args: &ConfigArgs) -> anyhow::Result<Config> {
    let sources = Sources::from_process(args.file.as_deref())?;
    Ok(Config::load(&sources.for_development())?)
}

/// As [`load`], and tries everything that a role builds before it connects: tools, seeds, keys,
/// files and the receiver of spans.
pub(crate) fn load_for_roles(args: &ConfigArgs) -> anyhow::Result<Config> {
    let config = load(args)?;
    try_out(&config)?;
    Ok(config)
}

/// Builds what the roles build from a configuration, and reports everything that fails.
pub(crate) fn try_out(config: &Config) -> anyhow::Result<()> {
    let nats = &config.nats;
    let found = [
        ("the tools", baton_worker::check(config)),
        ("the ingress", baton_ingress::check(config)),
        (
            "the traces",
            baton_traces::check().map_err(|error| error.to_string()),
        ),
        (
            "nats.callout_seed",
            try_seed(nats.callout_seed.as_ref(), Issuer::from_seed),
        ),
        (
            "nats.callout_xkey_seed",
            try_seed(nats.callout_xkey_seed.as_ref(), CurveKey::from_seed),
        ),
        ("nats.creds_file", try_file(nats.creds_file.as_deref())),
        ("nats.tls_ca", try_file(nats.tls_ca.as_deref())),
        ("nats.tls_cert", try_file(nats.tls_cert.as_deref())),
        ("nats.tls_key", try_file(nats.tls_key.as_deref())),
    ];
    let mistakes: Vec<_> = found
        .into_iter()
        .filter_map(|(what, result)| Some(format!("  {what}: {}", result.err()?)))
        .collect();
    anyhow::ensure!(
        mistakes.is_empty(),
        "the configuration cannot be used:\n{}",
        mistakes.join("\n")
    );
    Ok(())
}

fn try_seed<T, E: Display>(
    seed: Option<&Secret<String>>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<(), String> {
    let read = seed.map(|seed| read(seed.expose()));
    read.transpose()
        .map(drop)
        .map_err(|error| error.to_string())
}

fn try_file(path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    std::fs::read(path)
        .map(drop)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Warns about environment variables that look like settings and are not read.
pub(crate) fn warn_of_unread_variables(args: &ConfigArgs) -> anyhow::Result<()> {
    for unread in Sources::from_process(args.file.as_deref())?.unread_variables() {
        tracing::warn!("{unread}");
    }
    Ok(())
}

pub(crate) fn run(command: &ConfigCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = load_for_roles(args)?;
    for unread in Sources::from_process(args.file.as_deref())?.unread_variables() {
        let line = format!("warning: {unread}");
        writeln!(std::io::stderr(), "{}", visible_lines(&line))
            .context("standard error is closed")?;
    }
    match command {
        ConfigCommand::Check => print("the configuration is in order"),
        ConfigCommand::Print => print(
            &config
                .print()
                .context("the configuration has no TOML form")?,
        ),
    }
}

pub(crate) fn version() -> anyhow::Result<()> {
    let build = baton_service::build::info();
    print(&serde_json::to_string(&build)?)
}

/// Prints the output of a command, with escapes for all control characters except line breaks. A
/// field from a stranger must go through [`visible`](crate::visible::visible) first. A closed pipe
/// causes no panic.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", visible_lines(text.trim_end())).context("standard output is closed")
}
