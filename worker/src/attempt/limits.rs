//! Waits at a limit of the run's own, until a person raises the limit or lets the run end.

use baton_protocol::event::BudgetReached;
use baton_protocol::{
    ApprovalId, ApprovalReason, Decision, EventData, FinishReason, OnLimit, ReachedLimit, RunSpec,
    UsedUp,
};
use baton_store::{ClaimedRun, NewApproval};

use super::commit::{CommitError, GuardedLedger};
use super::{Attempt, Halt, Worked};
use crate::world::World;

/// Raises the limits of the run as people decided. Returns whether the newest decision lets the run end at
/// its limit.
pub(super) async fn apply_decisions<W: World>(
    spec: &mut RunSpec,
    claimed: &mut ClaimedRun,
    ledger: &GuardedLedger<'_, W>,
) -> Result<bool, CommitError> {
    if spec.limits.on_limit != OnLimit::Park || claimed.fence.attempt == 1 {
        return Ok(false);
    }
    // The questions about limits belong to no call, so the claim may not have read them.
    claimed.asked = ledger.questions().await?;
    let mut is_stopped = false;
    for decided in claimed.asked.iter().filter_map(|it| it.decided.as_ref()) {
        match &decided.decision {
            Decision::Raise { limits } => match limits.read() {
                Ok(limits) => spec.limits.most = spec.limits.most.raised(limits),
                // They were read when they were decided.
                Err(error) => tracing::error!(%error, "raised limits cannot be read: they stay"),
            },
            Decision::Stop {} => is_stopped = true,
            _ => {}
        }
    }
    Ok(is_stopped)
}

impl<W: World> Attempt<'_, W> {
    /// Parks the run at a limit, as [`Attempt::park`] parks it for calls.
    pub(super) async fn park_at_limit(&mut self, limit: FinishReason) -> Result<Worked, Halt> {
        self.publisher.settle().await?;
        let usage = self.conversation.usage();
        let counted = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let reached = ReachedLimit {
            limit,
            limits: self.spec.limits.most.into(),
            used: UsedUp {
                tokens: counted.max(usage.total_tokens),
                cost: self.budget.spent().map(|cost| cost.to_string()),
                tool_calls: self.conversation.machine.calls(),
            },
        };
        let step = self.conversation.next_step();
        let question = NewApproval {
            id: ApprovalId::new(self.runner.clock.now()),
            step,
            reason: ApprovalReason::Budget,
            parameters: None,
            reached: Some(reached.clone()),
            input: None,
        };
        let approval_id = question.id;
        let Some(expires_at) = self.ask(&[question]).await? else {
            return Ok(Worked::Ended);
        };
        tracing::info!(
            limit = limit.as_str(),
            "the run waits at a limit until a person raises it"
        );
        let ReachedLimit {
            limit,
            limits,
            used,
        } = reached;
        let event = BudgetReached {
            approval_id,
            limit,
            limits,
            used,
            expires_at,
        };
        self.publisher.push(step, EventData::BudgetReached(event));
        self.shown_questions().await
    }
}
