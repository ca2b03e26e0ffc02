//! Upstreams and routes: names that exist, and one form of the two.

use std::collections::BTreeSet;

use baton_routing::Pattern;

use super::super::mistake::nearest;
use super::super::{AnswerLimitField, Config, LlmConfig, UpstreamConfig, UpstreamFeature};
use super::demand::Checks;
use super::urls::names_a_user;

const UPSTREAMS: [(&str, &str); 1] = [("llm", "upstreams")];
const ROUTES: [(&str, &str); 1] = [("llm", "routes")];

pub(super) fn upstreams(checks: &mut Checks<'_>, config: &Config) {
    let llm = &config.llm;
    one_form(checks, llm);
    let mut names = BTreeSet::new();
    for (index, upstream) in llm.upstreams.iter().enumerate() {
        let name = &upstream.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c);
        checks.demand(
            (1..=64).contains(&name.len()) && name.chars().all(plain),
            &UPSTREAMS,
            format!("upstream {}, `name`: `{name}` is no name", index + 1),
            "use 1 to 64 letters, digits, `.`, `_` and `-`",
        );
        checks.demand(
            names.insert(name.as_str()),
            &UPSTREAMS,
            format!("upstream {}, `name`: two are named `{name}`", index + 1),
            "give each its own name",
        );
        upstream_itself(checks, llm, upstream);
    }
}

/// The settings of `llm.base_url` hold for its upstream alone.
fn one_form(checks: &mut Checks<'_>, llm: &LlmConfig) {
    let several = !llm.upstreams.is_empty();
    for (key, is_set) in [
        ("base_url", llm.base_url.is_some()),
        ("api_key", llm.api_key.is_some()),
        ("unsupported", !llm.unsupported.is_empty()),
        (
            "answer_limit_field",
            llm.answer_limit_field != AnswerLimitField::default(),
        ),
    ] {
        checks.demand(
            !(several && is_set),
            &[("llm", key), ("llm", "upstreams")],
            format!("llm.{key} and [[llm.upstreams]] are both set, and only one of them can count"),
            "move it into the upstream that it is of, or leave [[llm.upstreams]] out",
        );
    }
}

fn upstream_itself(checks: &mut Checks<'_>, llm: &LlmConfig, upstream: &UpstreamConfig) {
    let name = &upstream.name;
    let of = |key: &str, what: &str| format!("upstream `{name}`, `{key}`: {what}");
    checks.demand(
        is_web(&upstream.base_url),
        &UPSTREAMS,
        of("base_url", "this is not an HTTP URL"),
        "write for example https://api.openai.com/v1",
    );
    checks.demand(
        !names_a_user(&upstream.base_url),
        &UPSTREAMS,
        of(
            "base_url",
            "it holds a user name or a password, which would be shown",
        ),
        "put the key into api_key",
    );
    checks.demand(
        upstream
            .api_key
            .as_ref()
            .is_none_or(|key| is_sendable(key.expose())),
        &UPSTREAMS,
        of(
            "api_key",
            "it is empty or holds characters that no header can have",
        ),
        "write the upstream's key, or leave it out if the upstream wants none",
    );
    for (header, value) in &upstream.headers {
        checks.demand(
            http::HeaderName::try_from(header).is_ok() && is_sendable(value.expose()),
            &UPSTREAMS,
            of("headers", &format!("`{header}` or its value is no header")),
            "write a name of letters, digits and `-`, and a value of visible ASCII characters",
        );
    }
    let total = upstream.total_timeout.unwrap_or(llm.total_timeout);
    for (key, value) in [
        ("connect_timeout", upstream.connect_timeout),
        ("first_byte_timeout", upstream.first_byte_timeout),
        ("idle_timeout", upstream.idle_timeout),
        ("total_timeout", upstream.total_timeout),
    ] {
        let Some(value) = value else { continue };
        checks.demand(
            !value.is_zero() && value <= total,
            &UPSTREAMS,
            of(
                key,
                "it must be more than 0 and no longer than total_timeout",
            ),
            "write for example 30s",
        );
    }
    checks.demand(
        upstream.max_concurrent != Some(0),
        &UPSTREAMS,
        of("max_concurrent", "with 0 it would never be asked"),
        "write a positive number, or leave it out for no limit",
    );
    checks.demand(
        upstream
            .proxy
            .as_ref()
            .is_none_or(|proxy| is_web(proxy.expose())),
        &UPSTREAMS,
        of("proxy", "this is not an HTTP URL"),
        "write for example http://proxy.example:3128",
    );
    let neither = !upstream.supports(UpstreamFeature::MaxTokens)
        && !upstream.supports(UpstreamFeature::MaxCompletionTokens);
    let of_budget = match upstream.answer_limit_field {
        AnswerLimitField::MaxTokens => UpstreamFeature::MaxTokens,
        AnswerLimitField::MaxCompletionTokens => UpstreamFeature::MaxCompletionTokens,
    };
    checks.demand(
        !neither,
        &UPSTREAMS,
        of(
            "unsupported",
            "with max_tokens and max_completion_tokens nothing could limit an answer",
        ),
        "leave out the one that the upstream knows",
    );
    checks.demand(
        neither || upstream.supports(of_budget),
        &UPSTREAMS,
        of("answer_limit_field", "this field is in `unsupported`"),
        "set answer_limit_field to the other name",
    );
}

pub(super) fn routes(checks: &mut Checks<'_>, config: &Config) {
    let llm = &config.llm;
    checks.demand(
        llm.routes.is_empty() || !llm.upstreams.is_empty(),
        &ROUTES,
        "llm.routes leads to upstreams, and [[llm.upstreams]] has none".to_owned(),
        "write an [[llm.upstreams]] for each name in `to`",
    );
    checks.demand(
        llm.upstreams.len() < 2 || !llm.routes.is_empty(),
        &UPSTREAMS,
        "there are several upstreams and no route to them".to_owned(),
        "write [[llm.routes]], such as model = \"*\", to = [{ upstream = \"…\" }]",
    );
    let mut names = BTreeSet::new();
    for (index, route) in llm.routes.iter().enumerate() {
        let of = |key: &str, what: &str| format!("route {}, `{key}`: {what}", index + 1);
        let pattern = Pattern::parse(&route.model);
        checks.demand(
            pattern.is_some(),
            &ROUTES,
            of("model", "this is neither a name nor a pattern with one `*`"),
            "write for example gpt-4o, or gpt-*",
        );
        let is_pattern = route.model.contains('*');
        for (key, name) in std::iter::once(("model", &route.model))
            .chain(route.aliases.iter().map(|alias| ("aliases", alias)))
        {
            checks.demand(
                names.insert(name.as_str()),
                &ROUTES,
                of(key, &format!("`{name}` has a route already")),
                "give each name one route",
            );
        }
        for alias in &route.aliases {
            checks.demand(
                !alias.is_empty() && !alias.contains('*'),
                &ROUTES,
                of("aliases", &format!("`{alias}` is no name")),
                "write a name without `*`",
            );
        }
        checks.demand(
            !route.to.is_empty(),
            &ROUTES,
            of("to", "it is empty"),
            "write for example to = [{ upstream = \"openai\" }]",
        );
        for hop in &route.to {
            let known = || llm.upstreams.iter().map(|upstream| upstream.name.as_str());
            let instead = match nearest(&hop.upstream, known()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!(
                    "the upstreams are {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            checks.demand(
                known().any(|name| name == hop.upstream),
                &[("llm", "routes"), ("llm", "upstreams")],
                of("to", &format!("there is no upstream `{}`", hop.upstream)),
                &instead,
            );
            let stars = hop.model.as_deref().map_or(0, |it| it.matches('*').count());
            checks.demand(
                hop.model.as_deref() != Some("") && stars <= usize::from(is_pattern),
                &ROUTES,
                of(
                    "to",
                    "`model` is empty, or has a `*` that stands for nothing",
                ),
                "write the model's name at the upstream; a `*` needs one in the route's `model`",
            );
            checks.demand(
                !is_pattern || route.aliases.is_empty() || (hop.model.is_some() && stars == 0),
                &ROUTES,
                of(
                    "aliases",
                    "an alias of a pattern does not say which model is meant",
                ),
                "name a model in each entry of `to`",
            );
        }
    }
}

/// Returns whether this is a URL of a web server.
fn is_web(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// Returns whether a header can hold this secret.
fn is_sendable(secret: &str) -> bool {
    !secret.is_empty() && http::HeaderValue::try_from(secret).is_ok()
}
