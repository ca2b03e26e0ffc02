//! The model that answers a run. An upstream may know the requested model by another name, and its answer may be
//! another model's.

use std::sync::Arc;

use baton_admission::passed_on::Confined;
use baton_metering::{is_other_model, recorded_name};
use baton_protocol::{AuditId, Charge, RunSpec, Usage};
use baton_routing::Target;
use baton_store::{ActorKind, AuditEntry, AuditResult, KeyStanding};

use super::commit::GuardedLedger;
use super::credential;
use super::unrecorded_turn::TurnRecord;
use crate::metrics;
use crate::runner::JobRunner;
use crate::settings::Settings;
use crate::world::{Ledger as _, World};

/// The requested model, and the one that the upstream was asked for.
pub(super) struct AnsweringModel {
    spec: Arc<RunSpec>,
    settings: Arc<Settings>,
    /// The upstream that was asked last, and the model's name there.
    target: Option<Target>,
    /// Whether the audit log records that a model other than the requested one answered.
    is_audited: bool,
}

/// The price of a turn, and the model that has this price.
pub(super) struct Charged {
    pub(super) charge: Charge,
    /// The model, if it is not the requested one.
    pub(super) model: Option<String>,
}

impl AnsweringModel {
    pub(super) fn new(
        spec: Arc<RunSpec>,
        settings: Arc<Settings>,
        key: Option<&KeyStanding>,
    ) -> Self {
        Self {
            spec,
            settings,
            target: None,
            is_audited: key.is_some_and(|key| credential::limits(key) != Confined::default()),
        }
    }

    /// Keeps the upstream that answers from now on.
    pub(super) fn answers_at(&mut self, target: Target) {
        self.target = Some(target);
    }

    /// Returns the name by which the upstream was asked for the model, or the requested one before that.
    fn asked(&self) -> &str {
        let target = self.target.as_ref();
        target.map_or(&self.spec.model, |target| &target.model)
    }

    /// Returns the name of the model that has the upstream's route: the requested one, or a fallback.
    fn requested(&self) -> &str {
        let target = self.target.as_ref();
        target.map_or(&self.spec.model, |target| &target.asked)
    }

    /// Returns the charge of a turn: at the price of the model that answered, of the one that the
    /// upstream was asked for, of the fallback that was asked, or of the requested one, whichever has
    /// one first.
    pub(super) fn charge(&self, turn: &TurnRecord) -> Charged {
        let answered = turn.model.as_deref();
        Charged {
            charge: self.price(answered, turn.usage, turn.cached_tokens),
            model: self.charged(answered),
        }
    }

    fn price(&self, answered: Option<&str>, usage: Usage, cached_tokens: u64) -> Charge {
        let prices = &self.settings.prices;
        let asked = self.asked();
        let names = [asked, self.requested()];
        let priced = names.into_iter().find(|name| prices.of(name).is_some());
        let asked = priced.unwrap_or(&*self.spec.model);
        prices.charge(asked, answered, usage, cached_tokens)
    }

    /// Returns the model to be charged if it is not the requested one.
    fn charged(&self, answered: Option<&str>) -> Option<String> {
        let asked = self.asked();
        let other = self.settings.prices.charged_model(asked, answered);
        let charged = other.unwrap_or(asked);
        (charged != self.spec.model).then(|| charged.to_owned())
    }

    /// Counts an answer of a model other than the requested one. If the run's key has a list of
    /// models or a budget, also records it in the audit log, once per attempt.
    pub(super) async fn note_answer<W: World>(
        &mut self,
        answered: Option<&str>,
        runner: &JobRunner<W>,
        ledger: &GuardedLedger<'_, W>,
        request_id: Option<String>,
    ) {
        let Some(answered) = answered.filter(|answered| is_other_model(self.asked(), answered))
        else {
            return;
        };
        metrics::other_model(self.settings.prices.of(answered).is_some());
        if !std::mem::take(&mut self.is_audited) {
            return;
        }
        let (asked, answered) = (self.asked(), recorded_name(answered));
        tracing::warn!(asked, answered, "another model answered than was asked");
        let entry = AuditEntry {
            id: AuditId::new(runner.clock.now()),
            tenant: Some(ledger.fence.tenant),
            actor_kind: ActorKind::ApiKey,
            actor: None,
            action: "run.other_model",
            target: Some(ledger.fence.run.to_string()),
            result: AuditResult::Done,
            detail: Some(format!("asked `{asked}`, answered by `{answered}`")),
            ip: None,
            user_agent: None,
            request_id,
        };
        if let Err(error) = runner.store.record_audit(&entry).await {
            tracing::error!(%error, asked, answered, "another model's answer is not in the audit log");
        }
    }
}
