//! The model that answered, which need not be the one that was asked: gateways have fallbacks.

use baton_protocol::{AuditId, Charge, Price, Usage};
use baton_store::{ActorKind, AuditEntry, AuditResult};

use super::Attempt;
use crate::metrics;

/// The most of an upstream's name of a model that is recorded, in bytes.
const MAX_NAME: usize = 200;

impl Attempt<'_> {
    /// The price of the model that answered, or that of the one that was asked if only that has one.
    fn price_of(&self, answered: Option<&str>) -> Option<&Price> {
        let prices = &self.settings.prices;
        answered
            .and_then(|answered| prices.of(answered))
            .or_else(|| prices.of(&self.spec.model))
    }

    /// What a turn is charged, at the price of this moment.
    pub(super) fn charge(
        &self,
        usage: Usage,
        cached_tokens: u64,
        answered: Option<&str>,
    ) -> Charge {
        Charge::of(usage, cached_tokens, self.price_of(answered))
    }

    /// The model to be charged, if it is not simply the one that was asked: a version of that is charged
    /// as the model itself, unless it has a price of its own.
    pub(super) fn charged_model<'m>(&self, answered: Option<&'m str>) -> Option<&'m str> {
        let answered = answered?;
        let differs = answered != self.spec.model;
        let is_charged = differs
            && (self.settings.prices.of(answered).is_some()
                || is_other(&self.spec.model, answered));
        is_charged.then(|| &answered[..answered.floor_char_boundary(MAX_NAME)])
    }

    /// Counts an answer of another model than was asked. If the run's key is limited to models or by a
    /// budget, the audit log says so, once in an attempt.
    pub(super) async fn note_model(&mut self, answered: Option<&str>) {
        let asked = &self.spec.model;
        let Some(answered) = answered.filter(|answered| is_other(asked, answered)) else {
            return;
        };
        metrics::other_model(self.settings.prices.of(answered).is_some());
        if !std::mem::take(&mut self.audits_model) {
            return;
        }
        let answered = &answered[..answered.floor_char_boundary(MAX_NAME)];
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

/// Whether the upstream answered with another model than was asked: not one of its versions, nor the
/// same under a provider's name.
fn is_other(asked: &str, answered: &str) -> bool {
    fn base(name: &str) -> String {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.strip_suffix("-latest")
            .unwrap_or(name)
            .to_ascii_lowercase()
    }
    let (asked, answered) = (base(asked), base(answered));
    let Some(version) = answered.strip_prefix(&asked) else {
        return true;
    };
    let is_version = |version: &str| {
        let digits = version.bytes().filter(u8::is_ascii_digit).count();
        version.starts_with(['-', '@', ':'])
            && digits >= 3
            && version[1..]
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    !version.is_empty() && !is_version(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_a_model_is_no_other_model() {
        for (asked, answered, other) in [
            ("gpt-4o", "gpt-4o", false),
            ("gpt-4o", "gpt-4o-2024-08-06", false),
            ("gpt-4", "gpt-4-0613", false),
            ("claude-x", "claude-x@20240229", false),
            ("claude-x-latest", "claude-x-20241022", false),
            ("openai/gpt-4o", "gpt-4o", false),
            ("gpt-4o", "openai/GPT-4o", false),
            ("gpt-4o", "gpt-4o-mini", true),
            ("gpt-4", "gpt-4-32k", true),
            ("gpt-4", "gpt-4-32", true),
            ("cheap", "dear", true),
            ("cheap", "", true),
            ("gpt-4o-2024-08-06", "gpt-4o", true),
        ] {
            assert_eq!(is_other(asked, answered), other, "{asked} {answered}");
        }
    }
}
