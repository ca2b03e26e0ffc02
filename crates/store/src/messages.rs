//! The table `messages`. Its rows are written with the step that produced them: see `steps/` and
//! `runs/finish.rs`.

use baton_protocol::RunId;
use serde_json::value::RawValue;

use crate::columns;
use crate::errors::StoreError;
use crate::tenant_tx::TenantTx;

impl TenantTx {
    /// Returns the run's transcript: an OpenAI chat message per finished step, in order.
    pub async fn run_messages(&mut self, run: RunId) -> Result<Vec<Box<RawValue>>, StoreError> {
        let tenant = self.tenant;
        sqlx::query_scalar!(
            r#"
            -- messages.of_run
            SELECT message::text AS "message!"
            FROM messages WHERE tenant_id = $1 AND run_id = $2 ORDER BY step
            "#,
            tenant.as_uuid(),
            run.as_uuid(),
        )
        .fetch_all(self.connection())
        .await?
        .into_iter()
        .map(|message| columns::json("messages.message", message))
        .collect()
    }
}
