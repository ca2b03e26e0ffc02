//! The record of an answer by another model than the requested one.

use baton_metering::{is_other_model, recorded_name};
use baton_protocol::AuditId;
use baton_store::{ActorKind, AuditEntry, AuditResult};

use super::Attempt;
use crate::metrics;

impl Attempt<'_> {
    /// Counts an answer of another model than the requested one. If the run's key has a list of
    /// models or a budget, also records it in the audit log, once in an attempt.
    pub(super) async fn note_model(&mut self, answered: Option<&str>) {
        let asked = &self.spec.model;
        let Some(answered) = answered.filter(|answered| is_other_model(asked, answered)) else {
            return;
        };
        metrics::other_model(self.settings.prices.of(answered).is_some());
        if !std::mem::take(&mut self.audits_model) {
            return;
        }
        let answered = recorded_name(answered);
        tracing::warn!(asked, answered, "another model answered than was asked");
        let entry = AuditEntry {
            id: AuditId::new(self.runner.clock.now()),
            tenant: Some(self.fence.tenant),
            actor_kind: ActorKind::ApiKey,
            actor: None,
            action: "run.other_model",
            target: Some(self.fence.run.to_string()),
            result: AuditResult::Done,
            detail: Some(format!("asked `{asked}`, answered by `{answered}`")),
            ip: None,
            user_agent: None,
            request_id: self.headers.request_id.clone(),
        };
        if let Err(error) = self.runner.store.system().record_audit(&entry).await {
            tracing::error!(%error, asked, answered, "another model's answer is not in the audit log");
        }
    }
}
