//! `DELETE /v1/runs/{id}/approvals/{approval}/grant`.

use axum::extract::State;
use baton_store::{AuditEntry, RevokedGrant, Store};
use http::StatusCode;

use super::path::ApprovalPath;
use crate::access::{ApprovalsWrite, Authorized, Origin};
use crate::error::{ApiError, Problem};

/// Revokes the approval of later calls.
///
/// Attempts that begin from now on ask again. Calls that have begun, and the rest of an attempt that is at work, go
/// on.
#[utoipa::path(
    delete,
    path = "/v1/runs/{id}/approvals/{approval}/grant",
    tag = "Runs",
    params(
        ("id" = String, Path, description = "The run", format = Uuid),
        ("approval" = String, Path, description = "The question", format = Uuid),
    ),
    responses(
        (status = 204, description = "Revoked, now or before"),
        (status = 403, description = "The key lacks `approvals:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or no such question", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`no_grant`: the question has no approval that holds for later calls", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("access_token" = [])),
)]
pub(crate) async fn revoke_grant(
    State(store): State<Store>,
    authorized: Authorized<ApprovalsWrite>,
    origin: Origin,
    ApprovalPath(run, approval): ApprovalPath,
) -> Result<StatusCode, ApiError> {
    let caller = &authorized.caller;
    let mut tx = store.tenant(caller.tenant).await?;
    match tx.revoke_grant(run, approval).await? {
        RevokedGrant::NotFound => {
            let asked = tx.run_approvals(run).await?;
            if !asked.iter().any(|asked| asked.id == approval) {
                return Err(ApiError::no_such_approval());
            }
            let message = "this question has no approval that holds for later calls";
            Err(ApiError::new(StatusCode::CONFLICT, "no_grant", message))
        }
        RevokedGrant::Revoked { newly } => {
            if newly {
                let entry = origin.entry(caller.actor(), Some(caller.tenant), "approval.revoked");
                tx.record_audit(&AuditEntry {
                    target: Some(format!("run:{run}")),
                    detail: Some(approval.to_string()),
                    ..entry
                })
                .await?;
                tracing::info!(run.id = %run, approval.id = %approval, "an approval of later calls was revoked");
            }
            tx.commit().await?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}
