//! Makers of keys and one-time tokens. A maker's authority is locked while something is made, and
//! ends together with the things that were made by it.

use baton_protocol::{ApiKeyId, InviteId, Role, UserId};

use crate::api_keys::{ApiKeyRecord, Row};
use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

/// A person or a key that makes, changes or ends something in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A member, in the role that they were authenticated with.
    Member(UserId, Role),
    /// A key of the tenant.
    Key(ApiKeyId),
    /// An operator, or a person of another issuer: the ledger does not hold their authority.
    Elsewhere,
}

/// An invite or a password reset that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedToken {
    /// Its id.
    pub id: InviteId,
    /// The role that an invite gives; `None` for a password reset.
    pub role: Option<Role>,
}

/// The things made by a person who has lost authority in a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Invites and password resets that are now refused.
    pub ended_tokens: Vec<EndedToken>,
    /// Keys that are now refused.
    pub ended_keys: Vec<ApiKeyRecord>,
    /// Keys that stay valid.
    pub kept_keys: Vec<ApiKeyRecord>,
}

impl Legacy {
    /// Returns the counts in words, for the audit log.
    pub fn summary(&self) -> String {
        format!(
            "{} invites and resets ended, {} keys ended, {} keys kept",
            self.ended_tokens.len(),
            self.ended_keys.len(),
            self.kept_keys.len()
        )
    }
}

/// A rule for the things made by a person who has lost authority in a tenant. Invites and password
/// resets always end, unless the person could still make them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyRule<'a> {
    /// The person left, and their keys end.
    EndKeys,
    /// The person left; their keys stay valid, and this actor answers for them.
    KeepKeys(&'a str),
    /// The person has another role with these scopes. Keys with further scopes end.
    Within(Role, &'a [String]),
}

impl TenantTx {
    /// Locks the maker's authority until the end of this transaction and returns whether they still
    /// have it. A concurrent transaction that takes it away waits, and then finds the things that
    /// were made by it.
    pub async fn hold_maker(&mut self, maker: Maker) -> Result<bool, StoreError> {
        let tenant = self.tenant;
        match maker {
            Maker::Member(user, role) => {
                let present = sqlx::query_scalar!(
                    r#"
                    -- memberships.hold
                    SELECT role AS "role!" FROM memberships
                    WHERE tenant_id = $1 AND user_id = $2 FOR SHARE
                    "#,
                    tenant.as_uuid(),
                    user.as_uuid(),
                )
                .fetch_optional(self.connection())
                .await?;
                let present = present.as_deref().map(columns::role).transpose()?;
                Ok(present.is_some_and(|present| present >= role))
            }
            Maker::Key(key) => {
                // This lock is not FOR SHARE: two clients that rotate their own key would then
                // deadlock.
                let good = sqlx::query_scalar!(
                    r#"
                    -- api_keys.hold
                    SELECT true AS "good!" FROM api_keys
                    WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
                      AND (expires_at IS NULL OR expires_at > clock_timestamp())
                    FOR NO KEY UPDATE
                    "#,
                    tenant.as_uuid(),
                    key.as_uuid(),
                )
                .fetch_optional(self.connection())
                .await?;
                Ok(good.is_some())
            }
            Maker::Elsewhere => Ok(true),
        }
    }

    /// Returns the valid keys that a person answers for: keys made by the person, or with a key of
    /// theirs. Locks them, so that no further key is made with one of them before the end of this
    /// transaction.
    pub async fn lock_keys_made_by(
        &mut self,
        user: UserId,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let tenant = self.tenant;
        let mut known = None;
        loop {
            let rows = sqlx::query_as!(
                Row,
                r#"
                -- api_keys.lock_made_by
                WITH RECURSIVE made AS (
                    SELECT id FROM api_keys WHERE tenant_id = $1 AND maker_user = $2
                    UNION
                    SELECT k.id FROM api_keys k JOIN made ON k.maker_key = made.id
                    WHERE k.tenant_id = $1
                )
                SELECT tenant_id, k.id, name, prefix, scopes, allowed_models, allowed_tools,
                       created_at, expires_at, revoked_at, last_used_at, created_by, vouched_by,
                       rotated_from, per_minute, per_day, concurrent_runs, monthly_tokens,
                       monthly_cost_micros
                FROM api_keys k JOIN made ON made.id = k.id
                WHERE k.tenant_id = $1 AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > clock_timestamp())
                ORDER BY k.id FOR NO KEY UPDATE OF k
                "#,
                tenant.as_uuid(),
                user.as_uuid(),
            )
            .fetch_all(self.connection())
            .await?;
            // Another key may have been made while this waited for the lock of its maker. The next
            // round sees it.
            if known.replace(rows.len()) == Some(rows.len()) {
                return Ok(rows.into_iter().map(ApiKeyRecord::from).collect());
            }
        }
    }

    /// Revokes these keys of this tenant.
    async fn revoke_api_keys(&mut self, keys: &[ApiKeyId]) -> Result<(), StoreError> {
        let tenant = self.tenant;
        let keys: Vec<_> = keys.iter().map(ApiKeyId::as_uuid).collect();
        sqlx::query!(
            "
            -- api_keys.revoke_all
            UPDATE api_keys SET revoked_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = ANY($2) AND revoked_at IS NULL
            ",
            tenant.as_uuid(),
            &keys,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Makes `by` answer for the keys that a person made, and for the keys made with those. `by` is
    /// named as in the audit log.
    async fn keep_keys_of(&mut self, user: UserId, by: &str) -> Result<(), StoreError> {
        let tenant = self.tenant;
        sqlx::query!(
            "
            -- api_keys.keep
            UPDATE api_keys SET vouched_by = $3
            WHERE tenant_id = $1 AND maker_user = $2 AND revoked_at IS NULL
            ",
            tenant.as_uuid(),
            user.as_uuid(),
            by,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Ends the invites and password resets that a person made, or that were made with these keys:
    /// those for roles above `above`, or all.
    async fn end_tokens_made_by(
        &mut self,
        user: UserId,
        keys: &[ApiKeyId],
        above: Option<Role>,
    ) -> Result<Vec<EndedToken>, StoreError> {
        let tenant = self.tenant;
        let keys: Vec<_> = keys.iter().map(ApiKeyId::as_uuid).collect();
        let rows = sqlx::query!(
            r#"
            -- one_time_tokens.end_made_by
            UPDATE one_time_tokens SET revoked_at = clock_timestamp()
            WHERE tenant_id = $1 AND kind IN ('invite', 'password_reset')
              AND (maker_user = $2 OR maker_key = ANY($3))
              AND used_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()
              AND ($4::text IS NULL OR role_rank(role) > role_rank($4::text::member_role))
            RETURNING id, role AS "role?"
            "#,
            tenant.as_uuid(),
            user.as_uuid(),
            &keys,
            above.map(Role::as_str),
        )
        .fetch_all(self.connection())
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(EndedToken {
                    id: InviteId::from_uuid(row.id),
                    role: row.role.as_deref().map(columns::role).transpose()?,
                })
            })
            .collect()
    }

    /// Applies a rule to the things made by a person who has lost authority here. Their membership
    /// must be locked or gone, so that nothing more is made by it.
    pub async fn settle_legacy(
        &mut self,
        user: UserId,
        rule: LegacyRule<'_>,
    ) -> Result<Legacy, StoreError> {
        let made = self.lock_keys_made_by(user).await?;
        let all: Vec<_> = made.iter().map(|key| key.id).collect();
        let above = match rule {
            LegacyRule::Within(role, _) if role >= Role::Admin => Some(role),
            LegacyRule::Within(..) | LegacyRule::EndKeys | LegacyRule::KeepKeys(_) => None,
        };
        let (ended_keys, kept_keys): (Vec<_>, Vec<_>) =
            made.into_iter().partition(|key| match rule {
                LegacyRule::EndKeys => true,
                LegacyRule::KeepKeys(_) => false,
                LegacyRule::Within(_, scopes) => {
                    let has = |scope: &String| scopes.iter().any(|own| own == scope || own == "*");
                    !key.scopes.iter().all(has)
                }
            });
        // Tokens made with a key that stays valid end as well, unless the lower role may make them.
        let ended_tokens = self.end_tokens_made_by(user, &all, above).await?;
        let ended: Vec<_> = ended_keys.iter().map(|key| key.id).collect();
        self.revoke_api_keys(&ended).await?;
        if let LegacyRule::KeepKeys(by) = rule {
            self.keep_keys_of(user, by).await?;
        }
        Ok(Legacy {
            ended_tokens,
            ended_keys,
            kept_keys,
        })
    }
}
