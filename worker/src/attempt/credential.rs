//! Checks the key of a run again. Every worker that claims a run does so, because the key's
//! permissions may have changed since, and the worker does not rely on the ingress.

use baton_admission::passed_on::{Confined, ExtraFields};
use baton_protocol::{RunError, RunSpec};
use baton_store::KeyStanding;

/// The scope that a key needs for its runs to be executed.
const SCOPE: &str = "runs:write";

/// Returns the limits of a key that a field of the request could circumvent.
pub(super) const fn limits(key: &KeyStanding) -> Confined {
    Confined {
        models: key.models.is_some(),
        budget: key.token_budget || key.cost_budget,
    }
}

/// Removes the tools and fallback models that the run's key may not use. Returns an error if the run may not continue
/// at all. Fields are checked again, too, because a run may be older than the rules or the limits
/// of its key.
pub(super) fn confine(
    spec: &mut RunSpec,
    key: Option<&KeyStanding>,
    extra: &ExtraFields,
) -> Option<RunError> {
    let confined = key.map(limits).unwrap_or_default();
    let refused = key.and_then(|key| confine_to(spec, key));
    refused.or_else(|| {
        let invalid = extra.check(spec, confined).err()?;
        Some(RunError::new(invalid.code, invalid.message))
    })
}

fn confine_to(spec: &mut RunSpec, key: &KeyStanding) -> Option<RunError> {
    let refuse = |code: &str, message: String| {
        Some(RunError {
            code: code.to_owned(),
            message,
            upstream: None,
        })
    };
    if key.revoked {
        let message = "the API key that this run was submitted with was revoked";
        return refuse("api_key_revoked", message.to_owned());
    }
    if !key.scopes.iter().any(|own| own == SCOPE || own == "*") {
        let message = format!("the API key of this run lacks the scope `{SCOPE}`");
        return refuse("scope_missing", message);
    }
    if spec.calls.is_empty() && !allows(key.models.as_deref(), &spec.model) {
        let message = format!(
            "the API key of this run may not use the model `{}`",
            spec.model
        );
        return refuse("model_not_allowed", message);
    }
    let tool_allowed = |tool: &str| allows(key.tools.as_deref(), tool);
    if let Some(call) = spec.calls.iter().find(|call| !tool_allowed(&call.name)) {
        let message = format!(
            "the API key of this run may not use the tool `{}`",
            call.name
        );
        return refuse("tool_not_allowed", message);
    }
    spec.server_tools.retain(|tool| tool_allowed(&tool.name));
    spec.fallbacks
        .retain(|model| allows(key.models.as_deref(), model));
    None
}

fn allows(list: Option<&[String]>, name: &str) -> bool {
    list.is_none_or(|list| list.iter().any(|allowed| allowed == name))
}

#[cfg(test)]
mod tests {
    use baton_protocol::{AgentRef, GivenCall, RunLimits};
    use serde_json::value::RawValue;

    use super::*;

    fn spec() -> RunSpec {
        RunSpec {
            v: RunSpec::VERSION,
            agent: AgentRef {
                name: "default".into(),
                version: 0,
            },
            model: "m".into(),
            fallbacks: Vec::new(),
            instructions: None,
            messages: RawValue::from_string("[]".into()).unwrap(),
            tools: None,
            server_tools: vec!["calculator".into(), "current_time".into()],
            params: baton_protocol::RawFields::default(),
            calls: vec![],
            shown_for_good: false,
            response: None,
            compaction: None,
            request_id: None,
            limits: RunLimits::of_turns(1),
        }
    }

    fn key() -> KeyStanding {
        KeyStanding {
            scopes: vec!["runs:write".into()],
            ..KeyStanding::default()
        }
    }

    #[test]
    fn a_key_that_was_revoked_or_confined_since_ends_the_run() {
        let code = |key: KeyStanding| {
            confine(&mut spec(), Some(&key), &ExtraFields::default()).map(|error| error.code)
        };
        assert_eq!(code(key()), None);
        let all = vec!["*".into()];
        assert_eq!(
            code(KeyStanding {
                scopes: all,
                ..key()
            }),
            None
        );
        let revoked = KeyStanding {
            revoked: true,
            ..key()
        };
        assert_eq!(code(revoked).as_deref(), Some("api_key_revoked"));
        let reader = KeyStanding {
            scopes: vec!["runs:read".into()],
            ..key()
        };
        assert_eq!(code(reader).as_deref(), Some("scope_missing"));
        let others = KeyStanding {
            models: Some(vec!["n".into()]),
            ..key()
        };
        assert_eq!(code(others).as_deref(), Some("model_not_allowed"));
    }

    #[test]
    fn a_fallback_that_the_key_may_no_longer_use_is_left_out() {
        let key = KeyStanding {
            models: Some(vec!["m".into(), "o".into()]),
            ..key()
        };
        let mut spec = RunSpec {
            fallbacks: vec!["n".into(), "o".into()],
            ..spec()
        };
        assert_eq!(
            confine(&mut spec, Some(&key), &ExtraFields::default()),
            None
        );
        assert_eq!(spec.fallbacks, ["o"]);
    }

    #[test]
    fn given_calls_need_their_tools_and_no_model() {
        let given = |tools: &[&str]| {
            let key = KeyStanding {
                models: Some(vec!["n".into()]),
                tools: Some(tools.iter().map(ToString::to_string).collect()),
                ..key()
            };
            let mut spec = RunSpec {
                model: String::new(),
                calls: vec![GivenCall {
                    name: "calculator".into(),
                    arguments: "{}".into(),
                }],
                ..spec()
            };
            confine(&mut spec, Some(&key), &ExtraFields::default()).map(|error| error.code)
        };
        assert_eq!(given(&["calculator"]), None);
        assert_eq!(
            given(&["current_time"]).as_deref(),
            Some("tool_not_allowed")
        );
    }

    /// A run may have been accepted before these fields were refused, or before its key got limits.
    #[test]
    fn fields_that_may_not_travel_end_the_run_also_after_it_was_accepted() {
        let fields = |params: &str| RunSpec {
            params: serde_json::from_str(params).unwrap(),
            ..spec()
        };
        let code = |params: &str, key: Option<&KeyStanding>, extra: &ExtraFields| {
            confine(&mut fields(params), key, extra).map(|error| error.code)
        };
        let free = key();
        let listed = KeyStanding {
            models: Some(vec!["m".into()]),
            ..key()
        };
        let budgeted = KeyStanding {
            token_budget: true,
            ..key()
        };
        let none = ExtraFields::default();
        let refused = Some("field_not_allowed");
        for (params, unlimited, limited) in [
            (r#"{"extra_body":{"model":"dear","n":7}}"#, None, refused),
            (r#"{"api_base":"http://elsewhere"}"#, refused, refused),
            (r#"{"temperature":1}"#, None, None),
        ] {
            assert_eq!(code(params, None, &none).as_deref(), unlimited, "{params}");
            assert_eq!(
                code(params, Some(&free), &none).as_deref(),
                unlimited,
                "{params}"
            );
            for key in [&listed, &budgeted] {
                assert_eq!(
                    code(params, Some(key), &none).as_deref(),
                    limited,
                    "{params}"
                );
            }
        }
        let extra = ExtraFields::from_iter(["top_k".to_owned()]);
        assert_eq!(code(r#"{"top_k":1}"#, Some(&listed), &extra), None);
    }

    #[test]
    fn tools_that_the_key_may_not_use_are_not_offered() {
        let (mut all, mut one, mut none) = (spec(), spec(), spec());
        let with = |tools: Option<Vec<String>>| KeyStanding { tools, ..key() };
        assert_eq!(
            confine(&mut all, Some(&with(None)), &ExtraFields::default()),
            None
        );
        assert_eq!(all.server_tools.len(), 2);
        assert_eq!(
            confine(
                &mut one,
                Some(&with(Some(vec!["calculator".into()]))),
                &ExtraFields::default()
            ),
            None
        );
        assert_eq!(one.server_tools, ["calculator".into()]);
        assert_eq!(
            confine(
                &mut none,
                Some(&with(Some(vec![]))),
                &ExtraFields::default()
            ),
            None
        );
        assert!(none.server_tools.is_empty());
    }
}
