//! The ledger as the operator's commands reach it: tenants by their names, and what was done is
//! written into the audit log.

use anyhow::bail;
use baton_protocol::{AuditId, TenantId};
use baton_service::config::Required;
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{ActorKind, AuditEntry, AuditResult, Store, StoreOptions, TenantRecord};

use crate::args::ConfigArgs;
use crate::config_command;

/// Tenants that are named to somebody who named none of them.
const NAMED: u32 = 10;

/// Does something at the ledger that the configuration names.
pub(crate) async fn work_at<T>(
    args: &ConfigArgs,
    work: impl AsyncFnOnce(&Config, &Store) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config = config_command::load(args)?;
    config.require(&[Required::Database])?;
    let store = connect(&config).await?;
    let done = work(&config, &store).await;
    store.close().await;
    done
}

pub(crate) async fn connect(config: &Config) -> anyhow::Result<Store> {
    let url = config
        .database
        .url
        .as_ref()
        .map(|url| url.expose().to_owned())
        .unwrap_or_default();
    let options = StoreOptions {
        url,
        max_connections: 2,
        acquire_timeout: config.database.acquire_timeout,
        application_name: "baton".to_owned(),
    };
    Ok(Store::connect(options).await?)
}

/// The tenant of this name, made if there is none yet.
pub(crate) async fn ensure_tenant(store: &Store, name: &str) -> anyhow::Result<TenantRecord> {
    let fresh = TenantId::new(SystemClock.now());
    Ok(store.system().ensure_tenant(fresh, name).await?)
}

/// The tenant of this name.
pub(crate) async fn find_tenant(store: &Store, name: &str) -> anyhow::Result<TenantRecord> {
    let system = store.system();
    if let Some(found) = system.tenant_by_name(name).await? {
        return Ok(found);
    }
    let mut names = system.tenant_names(NAMED + 1).await?;
    let others = match names.len() {
        0 => bail!("there is no tenant yet: `baton keys create` makes one"),
        count if count > NAMED as usize => {
            names.truncate(NAMED as usize);
            ", and others"
        }
        _ => "",
    };
    bail!(
        "there is no tenant called {name}: name one with --tenant ({}{others})",
        names.join(", ")
    )
}

/// An entry of the audit log about something that was done from the command line.
pub(crate) fn audit_entry(
    tenant: Option<TenantId>,
    action: &'static str,
    target: String,
) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(SystemClock.now()),
        tenant,
        actor_kind: ActorKind::Operator,
        actor: std::env::var("USER").ok().filter(|user| !user.is_empty()),
        action,
        target: Some(target),
        result: AuditResult::Done,
        detail: None,
        ip: None,
        user_agent: None,
        request_id: None,
    }
}
