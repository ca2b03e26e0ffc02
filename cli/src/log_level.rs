//! `baton log-level`: changes the log filter of running roles over NATS; and the roles' side of it.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_nats::{Bus, LogLevelRequest};
use baton_protocol::{LogLevelAnswer, LogLevelChange};
use baton_service::config::Required;
use baton_service::telemetry::{Telemetry, check_filter, parse_filter_time};
use clap::Args;
use futures_util::future::join_all;

use crate::args::ConfigArgs;
use crate::config_command::{self, print};
use crate::role::{self, Kind};
use crate::visible::visible;

#[derive(Debug, Args)]
pub(crate) struct LogLevelArgs {
    /// A level such as debug, or directives such as info,baton_worker=debug
    #[arg(value_name = "LEVEL")]
    pub(crate) filter: String,
    /// The time after which the filter before returns, from 1s to 24h; without it, the change stays until the
    /// process ends or its configuration is reloaded
    #[arg(long = "for", value_name = "TIME", value_parser = parse_filter_time)]
    pub(crate) time: Option<Duration>,
    /// Only this role
    #[arg(long, value_enum)]
    pub(crate) role: Option<Kind>,
}

/// The longest pause between two answers: all processes answer at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before a role that cannot subscribe tries again.
const AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(options: LogLevelArgs, args: &ConfigArgs) -> anyhow::Result<()> {
    check_filter(&options.filter)?;
    let config = config_command::load(args)?;
    config.require(&[Required::Nats])?;
    let change = LogLevelChange {
        filter: options.filter,
        for_seconds: options.time.map(|time| time.as_secs()),
    };
    let kinds = options
        .role
        .map_or_else(|| Kind::ALL.to_vec(), |role| vec![role]);
    let bus = Bus::connect(role::broker("operator", &config))
        .await
        .context("the broker is not reachable")?;
    let changed = change_all(&bus, &kinds, &change).await;
    bus.close().await;
    changed
}

async fn change_all(bus: &Bus, kinds: &[Kind], change: &LogLevelChange) -> anyhow::Result<()> {
    let (mut answered, mut refused) = (0, 0);
    let asked = kinds
        .iter()
        .map(|kind| bus.change_log_level(kind.name(), change, PATIENCE));
    for answers in join_all(asked).await {
        for answer in answers? {
            answered += 1;
            refused += usize::from(answer.error.is_some());
            let error = answer.error.map(|error| format!("  {}", visible(&error)));
            print(&format!(
                "{:<9}  {}  {}{}",
                visible(&answer.role),
                visible(&answer.admin),
                visible(&answer.filter),
                error.unwrap_or_default(),
            ))?;
        }
    }
    if answered == 0 {
        bail!(
            "no role answered: is one running, and has the broker read the accounts.conf of this version?"
        );
    }
    if refused > 0 {
        bail!("{refused} of {answered} processes did not change their filter");
    }
    Ok(())
}

/// Changes the process's log filter when an operator asks this role for it, for as long as it is polled.
pub(crate) async fn follow(
    bus: Bus,
    kind: Kind,
    admin: String,
    telemetry: &'static Telemetry,
) -> Infallible {
    loop {
        match bus.log_level_changes(kind.name()).await {
            Ok(mut changes) => {
                while let Some(request) = changes.next().await {
                    obey(&bus, kind, &admin, telemetry, request).await;
                }
                // The connection is gone for good, and ends the role.
                return std::future::pending().await;
            }
            Err(error) => {
                tracing::warn!(%error, "changes of the log filter over NATS are not heard yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn obey(bus: &Bus, kind: Kind, admin: &str, telemetry: &Telemetry, request: LogLevelRequest) {
    let LogLevelChange {
        filter,
        for_seconds,
    } = &request.change;
    let set = telemetry.set_filter(filter, for_seconds.map(Duration::from_secs));
    if set.is_ok() {
        tracing::warn!(filter, for_s = for_seconds, "log filter changed");
    }
    let answer = LogLevelAnswer {
        role: kind.name().to_owned(),
        admin: admin.to_owned(),
        filter: telemetry.filter().0,
        error: set.err().map(|error| error.to_string()),
    };
    if let Err(error) = bus.answer_log_level(request, &answer).await {
        tracing::warn!(%error, "the change of the log filter is not answered");
    }
}
