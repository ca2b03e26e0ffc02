//! The table `approval_grants`: approvals that hold for later calls of the same tool.

use baton_protocol::{ApprovalId, RunId, TenantId};
use uuid::Uuid;

use crate::errors::StoreError;
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

/// The outcome of revoking a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedGrant {
    /// The run has no such question, or it granted nothing.
    NotFound,
    /// It is revoked: attempts that begin from now on ask again.
    Revoked {
        /// Whether this call revoked it.
        newly: bool,
    },
}

impl TenantTx {
    /// Records that an approval holds for later calls of its tool: in its run, or on this thread.
    pub(crate) async fn grant_tool(
        &mut self,
        run: RunId,
        approval: ApprovalId,
        thread: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let tenant = self.tenant;
        let made = sqlx::query!(
            "
            -- approval_grants.make
            INSERT INTO approval_grants (tenant_id, approval_id, run_id, thread_id, tool)
            SELECT a.tenant_id, a.id, a.run_id, $4, s.name
            FROM approvals AS a
            JOIN steps AS s ON s.tenant_id = a.tenant_id AND s.run_id = a.run_id AND s.step = a.step
            WHERE a.tenant_id = $1 AND a.id = $2 AND a.run_id = $3
            ",
            tenant.as_uuid(),
            approval.as_uuid(),
            run.as_uuid(),
            thread,
        )
        .execute(self.connection())
        .await?;
        if made.rows_affected() != 1 {
            let missing = "an approved question has no step";
            return Err(StoreError::unreadable("approvals.step", missing));
        }
        Ok(())
    }

    /// Revokes the approval of later calls. Calls that have begun go on.
    pub async fn revoke_grant(
        &mut self,
        run: RunId,
        approval: ApprovalId,
    ) -> Result<RevokedGrant, StoreError> {
        let tenant = self.tenant;
        let revoked = sqlx::query!(
            "
            -- approval_grants.revoke
            UPDATE approval_grants SET revoked_at = clock_timestamp()
            WHERE tenant_id = $1 AND approval_id = $2 AND run_id = $3 AND revoked_at IS NULL
            ",
            tenant.as_uuid(),
            approval.as_uuid(),
            run.as_uuid(),
        )
        .execute(self.connection())
        .await?;
        if revoked.rows_affected() == 1 {
            return Ok(RevokedGrant::Revoked { newly: true });
        }
        let exists = sqlx::query_scalar!(
            r#"
            -- approval_grants.exists
            SELECT EXISTS (SELECT FROM approval_grants
                           WHERE tenant_id = $1 AND approval_id = $2 AND run_id = $3) AS "exists!"
            "#,
            tenant.as_uuid(),
            approval.as_uuid(),
            run.as_uuid(),
        )
        .fetch_one(self.connection())
        .await?;
        Ok(if exists {
            RevokedGrant::Revoked { newly: false }
        } else {
            RevokedGrant::NotFound
        })
    }
}

impl SystemTx<'_> {
    /// Returns the names of the tools with a grant that holds in a run: one of the run, or of its thread.
    pub async fn granted_tools(
        &self,
        tenant: TenantId,
        run: RunId,
    ) -> Result<Vec<String>, StoreError> {
        let tools = sqlx::query_scalar!(
            "
            -- approval_grants.of_run
            SELECT tool FROM approval_grants
            WHERE tenant_id = $1 AND run_id = $2 AND thread_id IS NULL AND revoked_at IS NULL
            UNION
            SELECT g.tool FROM runs AS r
            JOIN approval_grants AS g ON g.tenant_id = r.tenant_id AND g.thread_id = r.thread_id
            WHERE r.tenant_id = $1 AND r.id = $2 AND g.revoked_at IS NULL
            ",
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.pool)
        .await?;
        Ok(tools.into_iter().flatten().collect())
    }
}
