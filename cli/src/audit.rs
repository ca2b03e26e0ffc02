//! `baton audit`: prints the audit log.

use anyhow::{Context as _, bail};
use baton_service::{Clock as _, SystemClock};
use baton_store::{AuditFilter, AuditRecord, prune_audit_log};
use chrono::NaiveDate;
use clap::{Args, Subcommand};

use crate::args::ConfigArgs;
use crate::config_command::{self, print};
use crate::ledger::{audit_entry, find_tenant, work_at};
use crate::visible::{visible, visible_json};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    /// Only actions in this tenant, by name or id
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Only actions of this actor: a user's or key's id
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only this action, or all with this prefix, such as `key.`
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only actions that were done, or only those that were refused
    #[arg(long, value_parser = ["done", "refused"])]
    pub(crate) result: Option<String>,
    /// Only the last part of the log, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// The number of entries; the newest are shown
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
    /// Print each entry as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Drop whole months that have ended, as the database's owner (DATABASE_MIGRATE_URL)
    ///
    /// Prints the dropped partitions with their sizes, and adds an entry to the log. Entries from
    /// before the log had partitions are in one partition. First copy the entries that you must
    /// keep: see `--json`.
    Prune {
        /// Drop the months that ended by this day, UTC, such as 2026-08-01
        #[arg(long, value_name = "DAY")]
        before: chrono::NaiveDate,
    },
}

pub(crate) async fn run(options: AuditArgs, args: &ConfigArgs) -> anyhow::Result<()> {
    if let Some(AuditCommand::Prune { before }) = options.command {
        return prune(args, before).await;
    }
    work_at(args, async |_, store| {
        let tenant = match &options.tenant {
            Some(name) => Some(find_tenant(store, name).await?.id),
            None => None,
        };
        let filter = AuditFilter {
            tenant,
            actor: options.actor.clone(),
            action: options.action.clone(),
            result: options.result.clone(),
            since: options.since.map(|ago| SystemClock.now() - ago),
            limit: options.limit,
        };
        for record in store.system().audit_log(&filter).await? {
            let line = if options.json {
                visible_json(&as_json(&record))
            } else {
                as_text(&record)
            };
            print(&line)?;
        }
        Ok(())
    })
    .await
}

async fn prune(args: &ConfigArgs, before: NaiveDate) -> anyhow::Result<()> {
    let config = config_command::load(args)?;
    let Some(owner) = &config.database.migrate_url else {
        bail!("only the owner of the tables can drop some: set DATABASE_MIGRATE_URL");
    };
    let entry = audit_entry(None, "audit.pruned", format!("before {before}"));
    let today = SystemClock.now().date_naive();
    let dropped = prune_audit_log(owner.expose(), before, today, &entry)
        .await
        .context("nothing was dropped")?;
    if dropped.is_empty() {
        return print("no part of the log is that old");
    }
    for part in dropped {
        print(&format!("dropped  {}  {} bytes", part.name, part.bytes))?;
    }
    Ok(())
}

fn as_json(record: &AuditRecord) -> serde_json::Value {
    serde_json::json!({
        "id": record.id, "at": record.at, "tenant": record.tenant,
        "actor_kind": record.actor_kind, "actor": record.actor, "action": record.action,
        "target": record.target, "result": record.result, "detail": record.detail,
        "ip": record.ip, "user_agent": record.user_agent, "request_id": record.request_id,
    })
}

fn as_text(record: &AuditRecord) -> String {
    let or_dash = |text: &Option<String>| visible(text.as_deref().unwrap_or("-")).into_owned();
    format!(
        "{}  {}:{}  {}  {}  {}  {}  {}",
        record
            .at
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        record.actor_kind,
        or_dash(&record.actor),
        record.action,
        or_dash(&record.target),
        record.result,
        or_dash(&record.detail),
        or_dash(&record.ip),
    )
}
