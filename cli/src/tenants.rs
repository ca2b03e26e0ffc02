//! `baton tenants`: the settings of a tenant, directly in the database.

use std::time::Duration;

use anyhow::bail;
use baton_store::{Store, TenantRecord};
use clap::Subcommand;

use crate::args::ConfigArgs;
use crate::config_command::print;
use crate::ledger::{audit_entry, find_tenant, work_at};
use crate::visible::visible;

/// The shortest time: shorter ones would end before a client has read its answer.
const LEAST: Duration = Duration::from_mins(1);
/// The longest time: ten years.
const MOST: Duration = Duration::from_hours(10 * 365 * 24);

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Show a tenant's settings
    Show {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Set for how long responses are kept that are accepted from now on
    KeepResponses {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The time from their acceptance, such as 30d, or `forever`
        #[arg(long, value_name = "DURATION")]
        time: String,
    },
}

pub(crate) async fn run(command: TenantsCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    work_at(args, async |_, store| execute(command, store).await).await
}

async fn execute(command: TenantsCommand, store: &Store) -> anyhow::Result<()> {
    match command {
        TenantsCommand::Show { tenant } => show(&find_tenant(store, &tenant).await?),
        TenantsCommand::KeepResponses { tenant, time } => {
            let time = parse(&time)?;
            let mut tenant = find_tenant(store, &tenant).await?;
            let entry = audit_entry(
                Some(tenant.id),
                "tenant.responses_kept",
                format!("tenant:{}", tenant.id),
            );
            let entry = baton_store::AuditEntry {
                detail: Some(words(time)),
                ..entry
            };
            let one = store.one_commit().await?;
            if !one.system().keep_responses(tenant.id, time).await? {
                bail!("the tenant {} is gone", tenant.name);
            }
            one.system().record_audit(&entry).await?;
            one.commit().await?;
            tenant.responses_kept = time;
            show(&tenant)
        }
    }
}

fn show(tenant: &TenantRecord) -> anyhow::Result<()> {
    let name = visible(&tenant.name);
    print(&format!(
        "{}  {name}  responses are kept {}",
        tenant.id,
        words(tenant.responses_kept)
    ))
}

fn words(time: Option<Duration>) -> String {
    match time {
        Some(time) => humantime::format_duration(time).to_string(),
        None => "forever".to_owned(),
    }
}

/// Reads a time in whole seconds; `None` is for ever.
fn parse(given: &str) -> anyhow::Result<Option<Duration>> {
    if given == "forever" {
        return Ok(None);
    }
    let time = humantime::parse_duration(given)
        .map_err(|error| anyhow::anyhow!("--time {given:?}: {error}; write 30d, or `forever`"))?;
    if !(LEAST..=MOST).contains(&time) {
        bail!("--time is 1m to 3650d, or `forever`");
    }
    Ok(Some(Duration::from_secs(time.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_bounds_and_may_be_for_ever() {
        assert_eq!(parse("forever").unwrap(), None);
        assert_eq!(parse("1m").unwrap(), Some(LEAST));
        assert_eq!(parse("3650d").unwrap(), Some(MOST));
        for wrong in ["", "59s", "3651d", "30", "never", "-1d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
