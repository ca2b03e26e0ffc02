//! `baton keys`: makes API keys directly in the database, before any client can ask for one over
//! HTTP.

use std::path::Path;

use anyhow::{Context as _, bail};
use baton_identity::{ApiKey, KeyRights};
use baton_protocol::{ApiKeyId, TenantId};
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{KeyLimits, NewApiKey, Store};
use clap::{Args, Subcommand};

use crate::args::ConfigArgs;
use crate::config_command::print;
use crate::ledger::{audit_entry, connect, ensure_tenant, find_tenant, work_at};
use crate::private_file;
use crate::visible::visible;

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key; it is printed once and stored only as a hash
    Create {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The purpose of the key
        #[arg(long)]
        name: String,
        /// Its scopes, separated by commas: runs:read, runs:write, …; * is everything
        #[arg(long, value_delimiter = ',', default_value = "*")]
        scopes: Vec<String>,
        /// Upstream models it may use; all by default
        #[arg(long, value_delimiter = ',', value_name = "MODEL")]
        models: Option<Vec<String>>,
        /// Server-side tools it may use; all by default
        #[arg(long, value_delimiter = ',', value_name = "TOOL")]
        tools: Option<Vec<String>>,
        /// Time until it expires, such as 90d; never by default
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
        /// Its limits
        #[command(flatten)]
        limits: KeyLimitArgs,
    },
    /// List a tenant's keys
    List {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Revoke a key
    Revoke {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The key's id, as `keys list` shows it
        id: baton_protocol::ApiKeyId,
    },
}

/// The limits of a key; a limit that is not given does not exist.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct KeyLimitArgs {
    /// Requests in any 60 seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) per_minute: Option<u32>,
    /// Requests in any 24 hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) per_day: Option<u32>,
    /// Runs at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) concurrent_runs: Option<u32>,
    /// Tokens in a calendar month, UTC
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_A_MONTH))]
    pub(crate) monthly_tokens: Option<u64>,
    /// Cost in a calendar month, UTC, in millionths of the currency of the prices
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_A_MONTH))]
    pub(crate) monthly_cost_micros: Option<u64>,
}

/// The greatest value of a limit's column.
const MOST: i64 = i32::MAX as i64;

/// The same maximum as over HTTP.
const MOST_A_MONTH: u64 = 9_000_000_000_000_000;

pub(crate) async fn run(command: KeysCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    work_at(args, async |config, store| {
        execute(command, config, store).await
    })
    .await
}

async fn execute(command: KeysCommand, config: &Config, store: &Store) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create {
            tenant,
            name,
            scopes,
            models,
            tools,
            expires_in,
            limits,
        } => {
            let rights = KeyRights {
                scopes: &scopes,
                models: models.as_deref(),
                tools: tools.as_deref(),
                counts: [limits.per_minute, limits.per_day, limits.concurrent_runs],
                monthly: [limits.monthly_tokens, limits.monthly_cost_micros],
            };
            rights.check()?;
            let tenant = ensure_tenant(store, &tenant).await?;
            let expires_at = expires_in.map(|after| SystemClock.now() + after);
            let rights = Rights {
                scopes,
                models,
                tools,
                expires_at,
                limits: KeyLimits {
                    per_minute: limits.per_minute,
                    per_day: limits.per_day,
                    concurrent_runs: limits.concurrent_runs,
                    monthly_tokens: limits.monthly_tokens,
                    monthly_cost_micros: limits.monthly_cost_micros,
                },
            };
            let key = create(store, tenant.id, &config.auth.key_environment, name, rights).await?;
            print(key.expose())
        }
        KeysCommand::List { tenant } => {
            let tenant = find_tenant(store, &tenant).await?;
            let mut tx = store.tenant(tenant.id).await?;
            let keys = tx.list_api_keys().await?;
            tx.commit().await?;
            for key in keys {
                let state = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => format!("revoked {}", at.to_rfc3339()),
                    (None, Some(at)) => format!("expires {}", at.to_rfc3339()),
                    (None, None) => "active".to_owned(),
                };
                let (name, scopes) = (visible(&key.name), key.scopes.join(","));
                let scopes = visible(&scopes);
                print(&format!(
                    "{}  {}…  {name}  {scopes}  {state}",
                    key.id, key.prefix
                ))?;
            }
            Ok(())
        }
        KeysCommand::Revoke { tenant, id } => {
            let tenant = find_tenant(store, &tenant).await?;
            let mut tx = store.tenant(tenant.id).await?;
            let found = tx.api_key(id).await?.is_some();
            if tx.revoke_api_key(id).await? {
                let entry = audit_entry(Some(tenant.id), "key.revoked", format!("key:{id}"));
                tx.record_audit(&entry).await?;
            }
            tx.commit().await?;
            if !found {
                bail!(
                    "tenant {} has no key {id}: see `baton keys list`",
                    tenant.name
                );
            }
            print("revoked; every server refuses it within five seconds")
        }
    }
}

struct Rights {
    scopes: Vec<String>,
    models: Option<Vec<String>>,
    tools: Option<Vec<String>>,
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    limits: KeyLimits,
}

async fn create(
    store: &Store,
    tenant: TenantId,
    environment: &str,
    name: String,
    rights: Rights,
) -> anyhow::Result<ApiKey> {
    let key = ApiKey::from_random(environment, rand::random())?;
    let mut tx = store.tenant(tenant).await?;
    let id = ApiKeyId::new(SystemClock.now());
    let entry = audit_entry(Some(tenant), "key.created", format!("key:{id}"));
    tx.record_audit(&entry).await?;
    tx.create_api_key(&NewApiKey {
        id,
        hash: key.hash(),
        name,
        prefix: key.hint().to_owned(),
        scopes: rights.scopes,
        allowed_models: rights.models,
        allowed_tools: rights.tools,
        expires_at: rights.expires_at,
        limits: rights.limits,
        created_by: Some("operator".to_owned()),
    })
    .await?;
    tx.commit().await?;
    Ok(key)
}

/// A key, with the data that a client needs about it.
pub(crate) struct ReadyMade {
    pub(crate) tenant: TenantId,
    pub(crate) id: ApiKeyId,
    pub(crate) key: String,
}

/// Returns the key for users of `baton dev`: the one in the data folder if it is still valid,
/// otherwise a new one with every scope.
pub(crate) async fn ready_made(
    config: &Config,
    tenant: &str,
    data: &Path,
) -> anyhow::Result<ReadyMade> {
    let path = data.join("api-key");
    let store = connect(config).await?;
    let tenant = ensure_tenant(&store, tenant).await?;
    let kept = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| ApiKey::parse(text.trim()).ok());
    if let Some(key) = kept
        && let Some(record) = store.system().find_api_key(&key.hash()).await?
        && record.tenant == tenant.id
        && record.revoked_at.is_none()
    {
        store.close().await;
        return Ok(ReadyMade {
            tenant: tenant.id,
            id: record.id,
            key: key.expose().to_owned(),
        });
    }
    let rights = Rights {
        scopes: vec!["*".to_owned()],
        models: None,
        tools: None,
        expires_at: None,
        limits: KeyLimits::default(),
    };
    let environment = &config.auth.key_environment;
    let key = create(
        &store,
        tenant.id,
        environment,
        "baton dev".to_owned(),
        rights,
    )
    .await?;
    let record = store.system().find_api_key(&key.hash()).await?;
    store.close().await;
    private_file::write(&path, key.expose())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(ReadyMade {
        tenant: tenant.id,
        id: record.context("a key that was just made is gone")?.id,
        key: key.expose().to_owned(),
    })
}
