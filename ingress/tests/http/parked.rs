//! Runs that wait for a person.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, ClaimToken, Effect, EventId, FinishReason, RunId, TenantId,
    WorkerId,
};
use baton_service::{Clock as _, SystemClock};
use baton_store::{Claim, ClaimOutcome, NewApproval, NewCall, ParkCommit, TurnCommit};
use serde_json::Value;

use crate::fixture::{CHARGE, Fixture, USAGE};

/// Parks the run with a call of unknown outcome, and returns the question.
pub(crate) async fn park(f: &Fixture, tenant: TenantId, run: RunId) -> ApprovalId {
    park_calls(f, tenant, run, 1, None).await[0]
}

/// Parks the run with calls that have begun; or with calls that have not and need approval, of a tool with
/// this schema. Returns the questions.
pub(crate) async fn park_calls(
    f: &Fixture,
    tenant: TenantId,
    run: RunId,
    count: u32,
    parameters: Option<&Value>,
) -> Vec<ApprovalId> {
    let system = f.store.system();
    let claim = Claim {
        tenant,
        run,
        worker: WorkerId::new(SystemClock.now()),
        token: ClaimToken::from_random(7),
        lease: Duration::from_mins(1),
        job_seq: 1_000,
        max_failures: 3,
    };
    let outcome = system.claim_run(&claim).await.unwrap();
    let ClaimOutcome::Claimed(claimed) = outcome else {
        panic!("not claimed: {outcome:?}")
    };
    let steps = 2..2 + count;
    let calls = steps.clone().map(|step| NewCall {
        step,
        call_id: format!("call_{}", step - 1),
        name: "pay".into(),
        arguments: r#"{"amount":7}"#.into(),
        effect: Effect::AtMostOnce,
    });
    let calls: Vec<_> = calls.collect();
    let turn = TurnCommit {
        inputs_step: None,
        answer_fields: None,
        charged_model: None,
        times: baton_store::TurnTimes::default(),
        step: 1,
        message: "{}",
        usage: USAGE,
        charge: CHARGE,
        usage_total: USAGE,
        finish_reason: FinishReason::ToolCalls,
        last_event_id: EventId::new(1, 2),
        calls: &calls,
    };
    system.commit_turn(&claimed.fence, &turn).await.unwrap();
    let mut approvals = Vec::new();
    for step in steps {
        let reason = if parameters.is_some() {
            ApprovalReason::ApprovalRequired
        } else {
            system.start_call(&claimed.fence, step).await.unwrap();
            ApprovalReason::OutcomeUnknown
        };
        approvals.push(NewApproval {
            id: ApprovalId::new(SystemClock.now()),
            step,
            reason,
            parameters: parameters.map(Value::to_string),
        });
    }
    let park = ParkCommit {
        approvals: &approvals,
        expire_after: Duration::from_hours(1),
        last_event_id: EventId::new(1, 2 + count),
    };
    system.park_run(&claimed.fence, &park).await.unwrap();
    approvals.iter().map(|approval| approval.id).collect()
}
