//! Takes a person's authority away, and prints which of their keys and tokens end and which stay
//! valid.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_protocol::{Role, TenantId, UserId};
use baton_store::{AuditEntry, Legacy, LegacyRule, Maker, MembershipChange, Store};

use super::find;
use crate::config_command::print;
use crate::ledger::{audit_entry, find_tenant};
use crate::visible::visible;

/// The time for which a server may still use a cached credential.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// Removes a member from a tenant.
pub(super) async fn remove(
    store: &Store,
    tenant: &str,
    email: &str,
    rule: LegacyRule<'_>,
) -> anyhow::Result<()> {
    let tenant = find_tenant(store, tenant).await?;
    let user = find(store, email).await?;
    let mut tx = store.tenant(tenant.id).await?;
    let change = tx
        .change_membership(user.id, None, Maker::Elsewhere, Role::Owner)
        .await?;
    let before = match change {
        MembershipChange::Done { before } => before,
        MembershipChange::NotFound => {
            bail!(
                "{email} is no member of {}: see `baton users list`",
                tenant.name
            )
        }
        MembershipChange::LastOwner => bail!(
            "{} would be without an owner: invite another one first, or `baton users disable`",
            tenant.name
        ),
        MembershipChange::Above | MembershipChange::MakerChanged => {
            bail!("the membership changed at this moment: try again")
        }
    };
    let legacy = tx.settle_legacy(user.id, rule).await?;
    let target = format!("user:{}", user.id);
    let entry = AuditEntry {
        detail: Some(format!("from {before} to nothing; {}", legacy.summary())),
        ..audit_entry(Some(tenant.id), "member.removed", target)
    };
    tx.record_audit(&entry).await?;
    tx.commit().await?;
    show(&legacy)?;
    print("removed; what they had open here ends within five seconds")
}

/// Disables a person in every tenant. Servers may let them make more for a moment, so that
/// everything they made is ended once more after that.
pub(super) async fn disable(
    store: &Store,
    email: &str,
    rule: LegacyRule<'_>,
) -> anyhow::Result<()> {
    let user = find(store, email).await?.id;
    let one = store.one_commit().await?;
    one.system().set_disabled(user, true).await?;
    one.system()
        .record_audit(&audit_entry(None, "user.disabled", format!("user:{user}")))
        .await?;
    one.commit().await?;
    let memberships = store.system().memberships(user).await?;
    for membership in &memberships {
        print(&format!("in {}:", visible(&membership.tenant_name)))?;
        show(&settle(store, user, membership.tenant, rule).await?)?;
    }
    tokio::time::sleep(BELIEVED_FOR).await;
    for membership in &memberships {
        let late = settle(store, user, membership.tenant, LegacyRule::EndKeys);
        let late = late.await.context("they are kept out; run this again")?;
        if late != Legacy::default() {
            print(&format!(
                "made meanwhile in {}:",
                visible(&membership.tenant_name)
            ))?;
            show(&late)?;
        }
    }
    print("disabled; their sessions are over, everywhere")
}

async fn settle(
    store: &Store,
    user: UserId,
    tenant: TenantId,
    rule: LegacyRule<'_>,
) -> anyhow::Result<Legacy> {
    let mut tx = store.tenant(tenant).await?;
    let legacy = tx.settle_legacy(user, rule).await?;
    if legacy != Legacy::default() {
        let entry = AuditEntry {
            detail: Some(legacy.summary()),
            ..audit_entry(Some(tenant), "legacy.settled", format!("user:{user}"))
        };
        tx.record_audit(&entry).await?;
    }
    tx.commit().await?;
    Ok(legacy)
}

fn show(legacy: &Legacy) -> anyhow::Result<()> {
    for token in &legacy.ended_tokens {
        let kind = match token.role {
            Some(role) => format!("invite {} to be {role}", token.id),
            None => "password reset".to_owned(),
        };
        print(&format!("ended  {kind}"))?;
    }
    let keys = [("ended", &legacy.ended_keys), ("kept", &legacy.kept_keys)];
    for (state, keys) in keys {
        for key in keys {
            let scopes = key.scopes.join(",");
            print(&format!(
                "{state}  key {}  {}  {scopes}",
                key.id,
                visible(&key.name)
            ))?;
        }
    }
    Ok(())
}
