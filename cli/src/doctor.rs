//! `baton doctor`: checks everything that a role needs, and says how to mend what fails.

mod broker;
mod database;
mod machine;
mod mcp;
mod models;
mod report;

use std::process::ExitCode;

use clap::Args;

use self::report::Report;
use crate::args::ConfigArgs;
use crate::config_command::{self, print};
use crate::visible::visible_json;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the checks as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask no model server for an answer, only for its list of models
    #[arg(long)]
    pub(crate) no_turn: bool,
}

const CONFIGURATION: &str = "configuration";

pub(crate) async fn run(options: &DoctorArgs, args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match config_command::load_for_roles(args) {
        Ok(config) => {
            report.ok(CONFIGURATION, "every setting can be used");
            machine::check(&config, &mut report);
            database::check(&config, &mut report).await;
            broker::check(&config, &mut report).await;
            models::check(&config, !options.no_turn, &mut report).await;
            mcp::check(&config, &mut report).await;
        }
        Err(error) => report.failed(
            CONFIGURATION,
            format!("{error:#}"),
            "correct what `baton config check` lists",
        ),
    }
    if options.json {
        print(&visible_json(&serde_json::to_value(&report)?))?;
    } else {
        print(&report.lines())?;
    }
    Ok(if report.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
