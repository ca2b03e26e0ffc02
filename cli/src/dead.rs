//! `baton dead`: what was set aside because nobody could work on it.

use anyhow::Context as _;
use baton_nats::Bus;
use baton_service::config::Required;

use crate::args::{ConfigArgs, DeadCommand};
use crate::config_command::{self, print};
use crate::role;

pub(crate) async fn run(command: DeadCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    let config = config_command::load(args)?;
    config.require(&[Required::Nats])?;
    let bus = Bus::connect(role::broker(&config))
        .await
        .context("the broker is not reachable")?;
    let DeadCommand::List { from, limit } = command;
    let done = list(&bus, from, limit).await;
    bus.close().await;
    done
}

async fn list(bus: &Bus, from: u64, limit: usize) -> anyhow::Result<()> {
    let mut next = from;
    for _ in 0..limit {
        let found = bus.dead_letter(next).await;
        let Some(letter) = found.context("the messages cannot be read")? else {
            break;
        };
        next = letter.seq + 1;
        let run = letter
            .run
            .map_or_else(|| "-".to_owned(), |run| run.to_string());
        print(&format!(
            "{}  {}  {}  {run}  {}",
            letter.seq,
            letter.stored_at.to_rfc3339(),
            letter.subject,
            letter.reason
        ))?;
    }
    Ok(())
}
