//! Runs that wait for a person.

use std::time::Duration;

use baton_protocol::{
    ApprovalId, ApprovalReason, ClaimToken, Effect, EventId, Fence, FinishReason, ReachedLimit,
    RequestLimits, RunId, TenantId, UsedUp, WorkerId,
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
    let fence = claim(f, tenant, run).await;
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
    system.commit_turn(&fence, &turn).await.unwrap();
    let mut approvals = Vec::new();
    for step in steps {
        let reason = if parameters.is_some() {
            ApprovalReason::ApprovalRequired
        } else {
            system.start_call(&fence, step).await.unwrap();
            ApprovalReason::OutcomeUnknown
        };
        approvals.push(NewApproval {
            id: ApprovalId::new(SystemClock.now()),
            step,
            reason,
            parameters: parameters.map(Value::to_string),
            reached: None,
            input: None,
        });
    }
    let park = ParkCommit {
        approvals: &approvals,
        expire_after: Duration::from_hours(1),
        last_event_id: EventId::new(1, 2 + count),
    };
    system.park_run(&fence, &park).await.unwrap();
    approvals.iter().map(|approval| approval.id).collect()
}

/// Parks the run at its limit of 100 tokens, of which it has used 90. Returns the question.
pub(crate) async fn park_at_limit(f: &Fixture, tenant: TenantId, run: RunId) -> ApprovalId {
    let fence = claim(f, tenant, run).await;
    let limits = RequestLimits {
        max_tokens: Some(100),
        ..RequestLimits::default()
    };
    let id = ApprovalId::new(SystemClock.now());
    let question = NewApproval {
        id,
        step: 1,
        reason: ApprovalReason::Budget,
        parameters: None,
        reached: Some(ReachedLimit {
            limit: FinishReason::MaxTokens,
            limits,
            used: UsedUp {
                tokens: 90,
                cost: None,
                tool_calls: 0,
            },
        }),
        input: None,
    };
    let park = ParkCommit {
        approvals: &[question],
        expire_after: Duration::from_hours(1),
        last_event_id: EventId::new(1, 2),
    };
    let system = f.store.system();
    system.park_run(&fence, &park).await.unwrap();
    id
}

async fn claim(f: &Fixture, tenant: TenantId, run: RunId) -> Fence {
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
    claimed.fence
}
