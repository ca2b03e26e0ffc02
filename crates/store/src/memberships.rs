//! The table `memberships`: the people of a tenant and their roles.

use baton_protocol::{Role, SessionId, TenantId, UserId};
use chrono::{DateTime, Utc};

use crate::columns;
use crate::errors::StoreError;
use crate::makers::Maker;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// A person in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The person.
    pub user: UserId,
    /// The address that they sign in with.
    pub email: String,
    /// Their name.
    pub name: Option<String>,
    /// Their role.
    pub role: Role,
    /// The time at which they joined.
    pub joined_at: DateTime<Utc>,
    /// The time since which an operator has disabled them.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// A tenant from the view of one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipRecord {
    /// The tenant.
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: String,
    /// The person's role in it.
    pub role: Role,
}

/// The outcome of changing a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipChange {
    /// The membership is now as requested.
    Done {
        /// The role before the change.
        before: Role,
    },
    /// The tenant has no such member.
    NotFound,
    /// The member's role is above that of the maker of the change.
    Above,
    /// The maker of the change has lost the authority that they were authenticated with.
    MakerChanged,
    /// The change would leave the tenant without an owner.
    LastOwner,
}

impl TenantTx {
    /// Changes a member's role on behalf of `by`, or removes the member if `role` is `None`. `by`
    /// may give roles up to `highest` and may not change a member above it. The tenant keeps an
    /// owner.
    pub async fn change_membership(
        &mut self,
        user: UserId,
        role: Option<Role>,
        by: Maker,
        highest: Role,
    ) -> Result<MembershipChange, StoreError> {
        let tenant = self.tenant;
        let maker = match by {
            Maker::Member(maker, _) => Some(maker.as_uuid()),
            Maker::Key(_) | Maker::Elsewhere => None,
        };
        // All owners are locked, so that two owners who leave at once see one another. Owners and
        // maker are locked in one order, so that two people who remove one another do not deadlock.
        let locked = sqlx::query!(
            r#"
            -- memberships.lock
            SELECT user_id, role AS "role!" FROM memberships
            WHERE tenant_id = $1 AND (role = 'owner' OR user_id IN ($2, $3))
            ORDER BY user_id FOR UPDATE
            "#,
            tenant.as_uuid(),
            user.as_uuid(),
            maker,
        )
        .fetch_all(self.connection())
        .await?;
        if !self.hold_maker(by).await? {
            return Ok(MembershipChange::MakerChanged);
        }
        let owners: Vec<_> = locked
            .iter()
            .filter(|row| row.role == Role::Owner.as_str())
            .map(|row| row.user_id)
            .collect();
        let before = locked
            .into_iter()
            .find(|row| row.user_id == user.as_uuid())
            .map(|row| row.role);
        let Some(before) = before else {
            return Ok(MembershipChange::NotFound);
        };
        let before = columns::role(&before)?;
        if before > highest || role.is_some_and(|role| role > highest) {
            return Ok(MembershipChange::Above);
        }
        if before == Role::Owner && role != Some(Role::Owner) && owners == [user.as_uuid()] {
            return Ok(MembershipChange::LastOwner);
        }
        let changed = match role {
            Some(role) => {
                sqlx::query!(
                    "
                    -- memberships.set_role
                    UPDATE memberships SET role = $3 WHERE tenant_id = $1 AND user_id = $2
                    ",
                    tenant.as_uuid(),
                    user.as_uuid(),
                    role.as_str() as _,
                )
                .execute(self.connection())
                .await?
            }
            None => {
                sqlx::query!(
                    "
                    -- memberships.remove
                    DELETE FROM memberships WHERE tenant_id = $1 AND user_id = $2
                    ",
                    tenant.as_uuid(),
                    user.as_uuid(),
                )
                .execute(self.connection())
                .await?
            }
        };
        Ok(if changed.rows_affected() == 1 {
            MembershipChange::Done { before }
        } else {
            MembershipChange::NotFound
        })
    }
}

impl SystemTx<'_> {
    /// Returns a tenant's members in the order of their registration.
    pub async fn members(&self, tenant: TenantId) -> Result<Vec<MemberRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- memberships.of_tenant
            SELECT u.id, u.email, u.name, m.role AS "role!", m.created_at, u.disabled_at
            FROM memberships m JOIN users u ON u.id = m.user_id
            WHERE m.tenant_id = $1 ORDER BY u.id
            "#,
            tenant.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(MemberRecord {
                    user: UserId::from_uuid(row.id),
                    email: row.email,
                    name: row.name,
                    role: columns::role(&row.role)?,
                    joined_at: row.created_at,
                    disabled_at: row.disabled_at,
                })
            })
            .collect()
    }

    /// Returns a person's tenants in the order of joining.
    pub async fn memberships(&self, user: UserId) -> Result<Vec<MembershipRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"
            -- memberships.of_user
            SELECT t.id, t.name, m.role AS "role!"
            FROM memberships m JOIN tenants t ON t.id = m.tenant_id
            WHERE m.user_id = $1 ORDER BY m.created_at, t.id
            "#,
            user.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(MembershipRecord {
                    tenant: TenantId::from_uuid(row.id),
                    tenant_name: row.name,
                    role: columns::role(&row.role)?,
                })
            })
            .collect()
    }

    /// Lets a person who is already registered join by an invite and uses the invite up. Returns
    /// `None` if the token is not valid, its maker could not make it now, the person already
    /// belongs to the tenant, or the session is over. If the password is reset at this moment, the
    /// reset ends the session first, or is itself ended.
    pub async fn accept_invite(
        &self,
        user: UserId,
        session: SessionId,
        token_hash: &[u8; 32],
    ) -> Result<Option<(TenantId, Role)>, StoreError> {
        let row = sqlx::query!(
            r#"
            -- memberships.accept_invite
            WITH signed_in AS (
                SELECT user_id FROM sessions
                WHERE id = $3 AND user_id = $1 AND revoked_at IS NULL FOR SHARE
            ), token AS (
                UPDATE one_time_tokens t SET used_at = clock_timestamp(), used_by = $1
                FROM users u JOIN signed_in ON signed_in.user_id = u.id
                WHERE u.id = $1 AND t.hash = $2 AND t.kind = 'invite' AND t.used_at IS NULL
                  AND t.revoked_at IS NULL AND t.expires_at > clock_timestamp()
                  AND (t.email IS NULL OR t.email = u.email)
                  AND maker_may_give(t.tenant_id, t.maker_user, t.maker_key, t.role)
                  AND NOT EXISTS (SELECT FROM memberships m
                                  WHERE m.tenant_id = t.tenant_id AND m.user_id = $1)
                RETURNING t.tenant_id, t.role
            )
            INSERT INTO memberships (tenant_id, user_id, role)
            SELECT tenant_id, $1, role FROM token
            ON CONFLICT DO NOTHING
            RETURNING tenant_id, role AS "role!"
            "#,
            user.as_uuid(),
            token_hash.as_slice(),
            session.as_uuid(),
        )
        .fetch_optional(self.pool)
        .await?;
        row.map(|row| {
            Ok((
                TenantId::from_uuid(row.tenant_id),
                columns::role(&row.role)?,
            ))
        })
        .transpose()
    }
}
