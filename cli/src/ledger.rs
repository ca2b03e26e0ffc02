//! Access to the ledger for the operator's commands. Finds tenants by their ids or by names from
//! operators, and writes actions to the audit log.

use anyhow::{anyhow, bail};
use baton_identity::{InvalidTenantName, SELF_MADE, TenantName};
use baton_protocol::{AuditId, TenantId};
use baton_service::config::Required;
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{
    ActorKind, AuditEntry, AuditResult, SLOW_GROUP, Store, StoreOptions, TenantRecord,
};

use crate::args::ConfigArgs;
use crate::config_command;

/// The number of tenants that an error lists if the given one does not exist.
const NAMED: u32 = 10;

/// Executes work on the ledger of the configuration.
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
        max_connections: 3,
        acquire_timeout: config.database.acquire_timeout,
        slow_group: SLOW_GROUP,
        application_name: "baton".to_owned(),
    };
    Ok(Store::connect(options).await?)
}

/// Returns the tenant that an operator names, and makes it if it does not exist.
pub(crate) async fn ensure_tenant(store: &Store, given: &str) -> anyhow::Result<TenantRecord> {
    if let Some(found) = look_up(store, given).await? {
        return Ok(found);
    }
    if let Ok(id) = given.parse::<TenantId>() {
        bail!("there is no tenant with the id {id}: see `baton users list`");
    }
    let name = parse(given)?;
    let names = store.system().tenant_names(u32::MAX).await?;
    if let Some(other) = names.iter().find(|other| name.looks_like(other)) {
        bail!("`{given}` looks like the tenant `{other}`: name that one, or choose another name");
    }
    let fresh = TenantId::new(SystemClock.now());
    Ok(store.system().ensure_tenant(fresh, name.as_str()).await?)
}

/// Returns the tenant that an operator names.
pub(crate) async fn find_tenant(store: &Store, given: &str) -> anyhow::Result<TenantRecord> {
    if let Some(found) = look_up(store, given).await? {
        return Ok(found);
    }
    if given.starts_with(SELF_MADE) {
        parse(given)?;
    }
    let mut names = store.system().tenant_names(NAMED + 1).await?;
    let others = match names.len() {
        0 => bail!("there is no tenant yet: `baton keys create` makes one"),
        count if count > NAMED as usize => {
            names.truncate(NAMED as usize);
            ", and others"
        }
        _ => "",
    };
    bail!(
        "there is no tenant called {given}: name one with --tenant ({}{others}), or its id",
        names.join(", ")
    )
}

/// Finds a tenant by its id, or by a name from an operator: first as given, then in its normal
/// spelling.
async fn look_up(store: &Store, given: &str) -> anyhow::Result<Option<TenantRecord>> {
    let system = store.system();
    if let Ok(id) = given.parse() {
        return Ok(system.tenant(id).await?);
    }
    if let Some(found) = system.tenant_by_name(given).await? {
        return Ok(Some(found));
    }
    match TenantName::parse(given) {
        Ok(name) => Ok(system.tenant_by_name(name.as_str()).await?),
        Err(_) => Ok(None),
    }
}

fn parse(given: &str) -> anyhow::Result<TenantName> {
    TenantName::parse(given).map_err(|error| match error {
        InvalidTenantName::Marked => anyhow!(
            "{given} is a tenant that somebody made by registering: name it by its id, see `baton \
             users list`"
        ),
        error => anyhow!(error).context(format!("{given:?} cannot be a tenant's name")),
    })
}

/// Makes an audit entry about an action from the command line.
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
