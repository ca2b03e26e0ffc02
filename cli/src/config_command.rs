//! `baton config check|print` and `baton version`.

use std::io::Write as _;

use anyhow::Context as _;
use baton_service::{Config, Sources};

use crate::args::{ConfigArgs, ConfigCommand};
use crate::visible::visible_lines;

/// The configuration in force, or every mistake in it.
pub(crate) fn load(args: &ConfigArgs) -> anyhow::Result<Config> {
    let sources = Sources::from_process(args.file.as_deref())?;
    Ok(Config::load(&sources)?)
}

/// As [`load`], for servers on this machine that nobody depends on.
pub(crate) fn load_for_development(args: &ConfigArgs) -> anyhow::Result<Config> {
    let sources = Sources::from_process(args.file.as_deref())?;
    Ok(Config::load(&sources.for_development())?)
}

pub(crate) fn run(command: &ConfigCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = load(args)?;
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

/// Prints what a command answers, with escapes for all that a terminal would obey but line breaks:
/// a field that a stranger wrote goes through [`visible`](crate::visible::visible) before. A closed
/// pipe is not worth a panic.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", visible_lines(text.trim_end())).context("standard output is closed")
}
