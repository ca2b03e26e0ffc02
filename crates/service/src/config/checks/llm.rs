//! The upstream model and its prices.

use std::collections::BTreeSet;

use super::super::{AnswerLimitField, Config, UpstreamFeature};
use super::demand::Checks;
use super::urls::names_a_user;

pub(super) fn llm(checks: &mut Checks<'_>, config: &Config) {
    let llm = &config.llm;
    checks.url(
        "llm",
        "base_url",
        llm.base_url.as_deref(),
        &["https", "http"],
    );
    checks.demand(
        !llm.base_url.as_deref().is_some_and(names_a_user),
        &[("llm", "base_url")],
        "llm.base_url holds a user name or a password, which would be shown".to_owned(),
        "put the key into llm.api_key",
    );
    for (key, value) in [
        ("connect_timeout", llm.connect_timeout),
        ("first_byte_timeout", llm.first_byte_timeout),
        ("idle_timeout", llm.idle_timeout),
    ] {
        checks.positive("llm", key, &value);
        checks.demand(
            value <= llm.total_timeout,
            &[("llm", key), ("llm", "total_timeout")],
            format!("llm.{key} exceeds llm.total_timeout and could never strike"),
            "raise llm.total_timeout, or lower the other",
        );
    }
    checks.positive("llm", "max_answer_bytes", &llm.max_answer_bytes);
    checks.demand(
        llm.max_line_bytes >= llm.max_answer_bytes,
        &[("llm", "max_line_bytes"), ("llm", "max_answer_bytes")],
        "llm.max_line_bytes is below llm.max_answer_bytes, but an answer may come in one line"
            .to_owned(),
        "raise llm.max_line_bytes, or lower the other",
    );
}

/// A limit of answers must reach the upstream under a name that it knows.
pub(super) fn unsupported(checks: &mut Checks<'_>, config: &Config) {
    let llm = &config.llm;
    let both = !llm.supports(UpstreamFeature::MaxTokens)
        && !llm.supports(UpstreamFeature::MaxCompletionTokens);
    checks.demand(
        !both,
        &[("llm", "unsupported")],
        "llm.unsupported has max_tokens and max_completion_tokens, so that nothing could limit an answer"
            .to_owned(),
        "leave out the one that the upstream knows",
    );
    let of_budget = match llm.answer_limit_field {
        AnswerLimitField::MaxTokens => UpstreamFeature::MaxTokens,
        AnswerLimitField::MaxCompletionTokens => UpstreamFeature::MaxCompletionTokens,
    };
    checks.demand(
        both || llm.supports(of_budget),
        &[("llm", "unsupported"), ("llm", "answer_limit_field")],
        format!(
            "llm.answer_limit_field is {}, which is in llm.unsupported",
            llm.answer_limit_field.as_str()
        ),
        "set llm.answer_limit_field to the other name",
    );
}

pub(super) fn prices(checks: &mut Checks<'_>, config: &Config) {
    let key = [("llm", "prices")];
    let mut models = BTreeSet::new();
    for price in &config.llm.prices {
        let model = &price.model;
        checks.demand(
            !model.is_empty(),
            &key,
            "a price has no model".to_owned(),
            "write the upstream's name of the model, such as gpt-4o",
        );
        checks.demand(
            models.insert(model.as_str()),
            &key,
            format!("the model `{model}` has two prices"),
            "give each model one",
        );
        checks.demand(
            price
                .cached_input_per_million
                .is_none_or(|cached| cached <= price.input_per_million),
            &key,
            format!("of the model `{model}`, cached input costs more than other input"),
            "leave cached_input_per_million out, or lower it",
        );
    }
}
