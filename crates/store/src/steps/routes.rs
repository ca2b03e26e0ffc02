//! The table `turn_routes`: the ways of turns to upstreams that were not the first to be asked.

use std::collections::BTreeMap;

use baton_protocol::{Fence, RunId, TurnRoute};

use crate::columns::{self, int4};
use crate::errors::{FenceError, StoreError};
use crate::system::SystemTx;
use crate::tenant_tx::TenantTx;

impl SystemTx<'_> {
    /// Records the way of a turn when its answer begins. A later try of the same turn replaces it.
    pub async fn record_route(
        &self,
        fence: &Fence,
        step: u32,
        route: &TurnRoute,
    ) -> Result<(), FenceError> {
        let route = serde_json::to_string(route).map_err(StoreError::Encode)?;
        sqlx::query!(
            r#"
            -- turn_routes.record
            WITH held AS (
                SELECT FROM runs
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                FOR NO KEY UPDATE
            )
            INSERT INTO turn_routes (tenant_id, run_id, step, attempt, route)
            SELECT $1, $2, $5, $3, $6::text::json
            FROM held
            ON CONFLICT (tenant_id, run_id, step)
            DO UPDATE SET attempt = excluded.attempt, route = excluded.route,
                          created_at = excluded.created_at
            RETURNING true AS "recorded!"
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int4(step),
            route,
        )
        .fetch_optional(self.pool)
        .await?
        .map(|_| ())
        .ok_or(FenceError::Lost)
    }
}

impl TenantTx {
    /// Returns the recorded ways of a run's turns, by their steps. A way of an attempt that did not record the
    /// turn is left out.
    pub async fn turn_routes(
        &mut self,
        run: RunId,
    ) -> Result<BTreeMap<u32, TurnRoute>, StoreError> {
        let tenant = self.tenant;
        let rows = sqlx::query!(
            r#"
            -- turn_routes.of_run
            SELECT r.step, r.route::text AS "route!"
            FROM turn_routes AS r
            JOIN steps AS s ON s.tenant_id = r.tenant_id AND s.run_id = r.run_id AND s.step = r.step
             AND s.attempt = r.attempt
            WHERE r.tenant_id = $1 AND r.run_id = $2
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?;
        let routes = rows.into_iter().map(|row| {
            let route = serde_json::from_str(&row.route);
            let route =
                route.map_err(|_| StoreError::unreadable("turn_routes.route", &row.route))?;
            Ok((columns::count(row.step), route))
        });
        routes.collect()
    }
}
