//! `baton users`: manages people directly in the database. Baton sends no mail: a token is printed
//! once, and the operator passes it on.

mod departure;

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_identity::{OpaqueToken, TokenKind};
use baton_protocol::InviteId;
use baton_service::{Clock as _, Config, SystemClock};
use baton_store::{AuditEntry, LegacyRule, NewInvite, Store, UserRecord};
use clap::Subcommand;

use crate::args::ConfigArgs;
use crate::config_command::print;
use crate::ledger::{audit_entry, ensure_tenant, work_at};
use crate::visible::visible;

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Print the token with which a tenant's first owner registers; fails if it has an owner
    Bootstrap {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Print an invite; no mail is sent, so pass it on yourself
    Invite {
        /// The tenant's name or id; an unknown name makes a new tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Their role: viewer, member, admin or owner
        #[arg(long, default_value = "member")]
        role: baton_protocol::Role,
        /// The only address that may use it; any by default
        #[arg(long)]
        email: Option<String>,
        /// Time until it expires, such as 3d; auth.invite_life by default
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// Print a token with which a person sets a new password; no mail is sent, so pass it on
    /// yourself
    ResetPassword {
        /// The address that they sign in with
        email: String,
    },
    /// List all people with their tenants
    List,
    /// Remove a person from a tenant, and print the keys and tokens they made there: those that
    /// end, and those that stay valid
    Remove {
        /// The tenant's name or id
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The address that they sign in with
        email: String,
        /// Keep the API keys that they made valid, and answer for them; by default they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Disable a person: their sessions end, and so do the keys and tokens they made in their
    /// tenants, which are printed
    Disable {
        /// The address that they sign in with
        email: String,
        /// Keep the API keys that they made valid, and answer for them; by default they are
        /// revoked. Invites and password resets end in any case
        #[arg(long)]
        keep_keys: bool,
    },
    /// Enable a disabled person again
    Enable {
        /// The address that they sign in with
        email: String,
    },
}

/// The lifetime of a reset and of a bootstrap token.
const DAY: Duration = Duration::from_hours(24);
/// The actor of the command line in the audit log.
const OPERATOR: &str = "operator";

pub(crate) async fn run(command: UsersCommand, args: &ConfigArgs) -> anyhow::Result<()> {
    work_at(args, async |config, store| {
        execute(command, config, store).await
    })
    .await
}

async fn execute(command: UsersCommand, config: &Config, store: &Store) -> anyhow::Result<()> {
    match command {
        UsersCommand::Bootstrap { tenant } => bootstrap(store, &tenant).await,
        UsersCommand::Invite {
            tenant,
            role,
            email,
            expires_in,
        } => {
            let tenant = ensure_tenant(store, &tenant).await?.id;
            let token = OpaqueToken::from_random(TokenKind::Invite, rand::random());
            let invite = NewInvite {
                id: InviteId::new(SystemClock.now()),
                hash: token.hash(),
                email: email.map(|email| email.trim().to_lowercase()),
                role,
                created_by: OPERATOR.to_owned(),
                life: expires_in.unwrap_or(config.auth.invite_life),
            };
            let target = format!("invite:{}", invite.id);
            let entry = AuditEntry {
                detail: Some(role.to_string()),
                ..audit_entry(Some(tenant), "invite.created", target)
            };
            let mut tx = store.tenant(tenant).await?;
            tx.create_invite(&invite).await?;
            tx.record_audit(&entry).await?;
            tx.commit().await?;
            print(token.expose())
        }
        UsersCommand::ResetPassword { email } => {
            let user = find(store, &email).await?;
            let token = OpaqueToken::from_random(TokenKind::PasswordReset, rand::random());
            let id = InviteId::new(SystemClock.now());
            let one = store.one_commit().await?;
            one.system()
                .create_password_reset(id, &token.hash(), user.id, OPERATOR, DAY)
                .await?;
            let target = format!("user:{}", user.id);
            one.system()
                .record_audit(&audit_entry(None, "password_reset.created", target))
                .await?;
            one.commit().await?;
            print(token.expose())
        }
        UsersCommand::List => list(store).await,
        UsersCommand::Remove {
            tenant,
            email,
            keep_keys,
        } => departure::remove(store, &tenant, &email, rule(keep_keys)).await,
        UsersCommand::Disable { email, keep_keys } => {
            departure::disable(store, &email, rule(keep_keys)).await
        }
        UsersCommand::Enable { email } => enable(store, &email).await,
    }
}

/// Prints the token of the first owner; fails if the tenant has an owner.
async fn bootstrap(store: &Store, tenant: &str) -> anyhow::Result<()> {
    let tenant = ensure_tenant(store, tenant).await?;
    let token = OpaqueToken::from_random(TokenKind::Bootstrap, rand::random());
    let id = InviteId::new(SystemClock.now());
    let one = store.one_commit().await?;
    let made = one
        .system()
        .create_bootstrap(id, &token.hash(), tenant.id, OPERATOR, DAY)
        .await?;
    if made.is_none() {
        bail!(
            "tenant {} has an owner: invite others with `baton users invite`",
            tenant.name
        );
    }
    let target = format!("invite:{id}");
    one.system()
        .record_audit(&audit_entry(Some(tenant.id), "bootstrap.created", target))
        .await?;
    one.commit().await?;
    print(token.expose())
}

async fn list(store: &Store) -> anyhow::Result<()> {
    let system = store.system();
    for user in system.users().await? {
        let memberships = system.memberships(user.id).await?;
        let tenants: Vec<_> = memberships
            .iter()
            .map(|one| {
                let name = visible(&one.tenant_name);
                format!("{} of {name} ({})", one.role, one.tenant)
            })
            .collect();
        let state = match user.disabled_at {
            Some(at) => format!("disabled {}", at.to_rfc3339()),
            None => "active".to_owned(),
        };
        let tenants = tenants.join(", ");
        let email = visible(&user.email);
        print(&format!("{}  {email}  {tenants}  {state}", user.id))?;
    }
    Ok(())
}

fn rule(keep_keys: bool) -> LegacyRule<'static> {
    if keep_keys {
        LegacyRule::KeepKeys(OPERATOR)
    } else {
        LegacyRule::EndKeys
    }
}

async fn enable(store: &Store, email: &str) -> anyhow::Result<()> {
    let user = find(store, email).await?;
    let one = store.one_commit().await?;
    one.system().set_disabled(user.id, false).await?;
    one.system()
        .record_audit(&audit_entry(
            None,
            "user.enabled",
            format!("user:{}", user.id),
        ))
        .await?;
    one.commit().await?;
    print("enabled; they can sign in again")
}

async fn find(store: &Store, email: &str) -> anyhow::Result<UserRecord> {
    let email = email.trim().to_lowercase();
    store
        .system()
        .user_by_email(&email)
        .await?
        .with_context(|| format!("nobody has registered as {email}: see `baton users list`"))
}
