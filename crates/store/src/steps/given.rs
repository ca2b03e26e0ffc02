//! Records the calls that a request names itself as the first steps of its run.

use baton_protocol::{EventId, Fence};

use crate::columns::{self, int4, int8};
use crate::errors::FenceError;
use crate::steps::NewCall;
use crate::system::SystemTx;

/// The given calls of a run.
#[derive(Debug, Clone)]
pub struct GivenCallsCommit<'a> {
    /// The calls, from step 1.
    pub calls: &'a [NewCall],
    /// The last event that the stream has confirmed.
    pub last_event_id: EventId,
}

impl SystemTx<'_> {
    /// Records the calls as pending steps, before any of them begins. This is progress of the run. Repeated
    /// after its answer was lost, it changes nothing.
    pub async fn begin_given_calls(
        &self,
        fence: &Fence,
        given: &GivenCallsCommit<'_>,
    ) -> Result<(), FenceError> {
        let steps: Vec<i32> = given.calls.iter().map(|call| int4(call.step)).collect();
        let text = |of: fn(&NewCall) -> &str| -> Vec<String> {
            let texts = given.calls.iter().map(|call| columns::text(of(call)));
            texts.map(std::borrow::Cow::into_owned).collect()
        };
        sqlx::query!(
            r#"
            -- steps.begin_given_calls
            WITH held AS (
                UPDATE runs SET failures = 0, last_event_id = greatest(last_event_id, $5)
                WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND claim_token = $4
                  AND status = 'running'
                RETURNING 1
            ), given AS (
                INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, call_id, name,
                                   arguments, effect)
                SELECT $1, $2, call.step, $3, 'call', 'pending', call.call_id, call.name,
                       call.arguments, call.effect
                FROM held, unnest($6::integer[], $7::text[], $8::text[], $9::text[], $10::text[])
                     AS call (step, call_id, name, arguments, effect)
                ON CONFLICT DO NOTHING
            )
            SELECT true AS "held!" FROM held
            "#,
            fence.tenant.as_uuid(),
            fence.run.as_uuid(),
            int4(fence.attempt),
            fence.token.as_uuid(),
            int8(given.last_event_id.as_u64()),
            &steps,
            &text(|call| &call.call_id),
            &text(|call| &call.name),
            &text(|call| &call.arguments),
            &text(|call| call.effect.as_str()),
        )
        .fetch_optional(self.pool)
        .await?
        .map(|_| ())
        .ok_or(FenceError::Lost)
    }
}
