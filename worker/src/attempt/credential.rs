//! The key that a run was submitted with is looked at again by every worker that takes the run: what
//! it may do may have changed since, and what an ingress let through is not believed.

use baton_protocol::{RunError, RunSpec};
use baton_store::KeyStanding;

/// What a key needs to have runs executed.
const SCOPE: &str = "runs:write";

/// Takes from the run the tools that its key may not use. `Some` is why the run may not go on at all.
pub(super) fn confine(spec: &mut RunSpec, key: &KeyStanding) -> Option<RunError> {
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
    if !allows(key.models.as_deref(), &spec.model) {
        let message = format!(
            "the API key of this run may not use the model `{}`",
            spec.model
        );
        return refuse("model_not_allowed", message);
    }
    spec.server_tools
        .retain(|tool| allows(key.tools.as_deref(), tool));
    None
}

fn allows(list: Option<&[String]>, name: &str) -> bool {
    list.is_none_or(|list| list.iter().any(|allowed| allowed == name))
}

#[cfg(test)]
mod tests {
    use baton_protocol::{AgentRef, RunLimits};
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
            instructions: None,
            messages: RawValue::from_string("[]".into()).unwrap(),
            tools: None,
            server_tools: vec!["calculator".into(), "current_time".into()],
            params: baton_protocol::RawFields::default(),
            limits: RunLimits {
                max_turns: 1,
                max_total_tokens: None,
            },
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
        let code = |key: KeyStanding| confine(&mut spec(), &key).map(|error| error.code);
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
    fn tools_that_the_key_may_not_use_are_not_offered() {
        let (mut all, mut one, mut none) = (spec(), spec(), spec());
        let with = |tools: Option<Vec<String>>| KeyStanding { tools, ..key() };
        assert_eq!(confine(&mut all, &with(None)), None);
        assert_eq!(all.server_tools.len(), 2);
        assert_eq!(
            confine(&mut one, &with(Some(vec!["calculator".into()]))),
            None
        );
        assert_eq!(one.server_tools, ["calculator"]);
        assert_eq!(confine(&mut none, &with(Some(vec![]))), None);
        assert!(none.server_tools.is_empty());
    }
}
