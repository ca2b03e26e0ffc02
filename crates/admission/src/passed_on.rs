//! The fields of a request that may be passed on to the upstream.
//!
//! An upstream may be a gateway that reads far more than a model does: another model, several
//! answers, another server, another key. Such a field must not help a limited key around its
//! limits.

use std::collections::BTreeSet;
use std::fmt;

use baton_protocol::RunSpec;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Invalid;

/// The fields of a chat request that OpenAI publishes, without those that Baton sets itself, and without
/// `moderation`, because it names a model of its own.
pub const PUBLISHED: [&str; 31] = [
    "audio",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// Published fields with costs beyond their tokens.
const UNMETERED: [&str; 4] = ["audio", "modalities", "prediction", "web_search_options"];

/// Tiers with costs of at most the price.
const TIERS: [&str; 4] = [r#""auto""#, r#""default""#, r#""flex""#, "null"];

/// Fields with schemas or grammars, in which names are data.
const SCHEMAS: [&str; 6] = [
    "response_format",
    "guided_json",
    "structured_outputs",
    "json_schema",
    "format",
    "logit_bias",
];

/// Names that send a request to another server or with another key.
const MOVING: [&str; 33] = [
    "api_base",
    "api_type",
    "api_version",
    "auth",
    "aws_bedrock_runtime_endpoint",
    "aws_external_id",
    "aws_profile_name",
    "aws_region_name",
    "aws_role_name",
    "aws_session_name",
    "azure_ad_token",
    "azure_scope",
    "client_id",
    "configurable_clientside_auth_params",
    "default_headers",
    "deployment_id",
    "extra_headers",
    "headers",
    "hf_model_name",
    "host",
    "litellm_credential_name",
    "litellm_params",
    "model_list",
    "organization",
    "region_name",
    "s3_endpoint_url",
    "tenant_id",
    "token",
    "user_config",
    "vertex_location",
    "vertex_project",
    "watsonx_region_name",
    "webhook_url",
];

/// Parts of such names, in each maker's spelling.
const MOVING_PARTS: [&str; 16] = [
    "access_key",
    "access_token",
    "api_base",
    "api_key",
    "apikey",
    "auth_token",
    "authorization",
    "azure_ad_token",
    "base_url",
    "bearer",
    "credential",
    "endpoint",
    "identity_token",
    "password",
    "secret",
    "session_token",
];

/// The limits of a credential that a field could get around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confined {
    /// The key has a list of models.
    pub models: bool,
    /// The key has a monthly budget.
    pub budget: bool,
}

impl Confined {
    const fn why(self) -> &'static str {
        if self.budget {
            "this API key has a budget"
        } else {
            "this API key has a list of models"
        }
    }
}

/// Names that operators allow for limited keys too. Cheap to share.
#[derive(Debug, Clone, Default)]
pub struct ExtraFields(BTreeSet<String>);

impl FromIterator<String> for ExtraFields {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl ExtraFields {
    /// Refuses a run with a field that must not be passed on for this credential.
    pub fn check(&self, spec: &RunSpec, confined: Confined) -> Result<(), Invalid> {
        let unreadable =
            |_| Invalid::body("invalid_json", "the fields of this request are no JSON");
        let params = serde_json::to_string(&spec.params).map_err(unreadable)?;
        let fields: Fields<'_> = serde_json::from_str(&params).map_err(unreadable)?;
        for (name, value) in &fields.0 {
            let name = name.as_str();
            if let Some(path) = moving(name, value) {
                return Err(refused(
                    &path,
                    "it would send the request to another server or with another key",
                ));
            }
            if confined == Confined::default() || self.0.contains(name) {
                continue;
            }
            if !PUBLISHED.contains(&name) {
                let why = format!(
                    "{}, and the field is none of OpenAI's chat API (an operator can let it travel: \
                     llm.extra_fields)",
                    confined.why()
                );
                return Err(refused(name, &why));
            }
            if confined.budget && UNMETERED.contains(&name) && value.get() != "null" {
                let why = "this API key has a budget, and no price covers the field's cost";
                return Err(refused(name, why));
            }
            if confined.budget && name == "service_tier" && !TIERS.contains(&value.get()) {
                let message = "`service_tier` may be auto, default or flex: this API key has a \
                               budget, and the prices are for these";
                return Err(Invalid::field("field_not_allowed", name, message));
            }
        }
        if confined.budget {
            check_tools(spec)?;
        }
        Ok(())
    }
}

/// Refuses tools that the upstream would run itself, at an extra cost.
fn check_tools(spec: &RunSpec) -> Result<(), Invalid> {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }

    let Some(tools) = spec.tools.as_deref() else {
        return Ok(());
    };
    let kinds: Vec<Kind> = serde_json::from_str(tools.get()).unwrap_or_default();
    let hosted = kinds
        .iter()
        .position(|tool| !matches!(tool.kind.as_str(), "function" | "custom"));
    match hosted {
        None => Ok(()),
        Some(index) => {
            let why =
                "this API key has a budget, and no price covers a tool that the upstream runs";
            Err(refused(&format!("tools[{index}].type"), why))
        }
    }
}

fn refused(path: &str, why: &str) -> Invalid {
    let path: String = path.chars().take(128).collect();
    let message = format!("`{path}` does not travel to the upstream: {why}. Leave it out");
    Invalid::field("field_not_allowed", path, message)
}

/// Returns the path of the first name in a field, including its own, that moves the request.
fn moving(name: &str, value: &RawValue) -> Option<String> {
    if moves(name) {
        return Some(name.to_owned());
    }
    if SCHEMAS.contains(&name) {
        return None;
    }
    let mut found = None;
    let walk = Walk {
        path: name,
        // Clients put the ids of their own tenants and hosts there.
        is_moving: if name == "metadata" {
            has_moving_part
        } else {
            moves
        },
        found: &mut found,
    };
    let mut reader = serde_json::Deserializer::from_str(value.get());
    // Reading the request has shown that it is valid JSON.
    let _ = walk.deserialize(&mut reader);
    found
}

fn moves(name: &str) -> bool {
    let spelled = name.to_ascii_lowercase().replace('-', "_");
    MOVING.contains(&spelled.as_str()) || has_moving_part(name)
}

/// Ignores the separators of words, because clients also write `apiKey` and `base-url`.
fn has_moving_part(name: &str) -> bool {
    let joined = name.to_ascii_lowercase().replace(['-', '_'], "");
    MOVING_PARTS
        .iter()
        .any(|part| joined.contains(&part.replace('_', "")))
}

/// The fields of an object in order, including repeated ones.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

/// A walk over every name in a value that builds nothing.
struct Walk<'a> {
    path: &'a str,
    is_moving: fn(&str) -> bool,
    found: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("{}.{name}", self.path);
            if self.found.is_none() && (self.is_moving)(&name) {
                *self.found = Some(path);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            map.next_value_seed(Walk {
                path: &path,
                is_moving: self.is_moving,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let walk = Walk {
                path: self.path,
                is_moving: self.is_moving,
                found: self.found,
            };
            if seq.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MODELS: Confined = Confined {
        models: true,
        budget: false,
    };
    const BUDGET: Confined = Confined {
        models: false,
        budget: true,
    };
    const FREE: Confined = Confined {
        models: false,
        budget: false,
    };

    fn spec(params: &str, tools: &str) -> RunSpec {
        let spec = format!(
            r#"{{"v":1,"agent":{{"name":"default","version":0}},"model":"cheap","messages":[],
                "tools":{tools},"params":{params},"limits":{{"max_turns":1}}}}"#
        );
        serde_json::from_str(&spec).unwrap()
    }

    fn refused(params: &str, confined: Confined) -> Option<String> {
        let checked = ExtraFields::default().check(&spec(params, "null"), confined);
        checked.err().and_then(|invalid| invalid.param)
    }

    #[test]
    fn a_limited_key_sends_published_fields_alone() {
        for name in [
            "extra_body",
            "models",
            "fallbacks",
            "route",
            "context_window_fallbacks",
            "provider",
            "deployment",
            "best_of",
            "num_return_sequences",
            "mock_response",
            "use_beam_search",
            "plugins",
            "top_k",
        ] {
            let params = json!({name: {"model": "dear", "n": 7}}).to_string();
            for confined in [MODELS, BUDGET] {
                assert_eq!(refused(&params, confined).as_deref(), Some(name));
            }
            assert_eq!(refused(&params, FREE), None, "{name}");
            let extra = ExtraFields::from_iter([name.to_owned()]);
            assert!(extra.check(&spec(&params, "null"), BUDGET).is_ok());
        }
        for name in PUBLISHED {
            let params = json!({name: null}).to_string();
            assert_eq!(refused(&params, MODELS), None, "{name}");
        }
    }

    #[test]
    fn no_key_moves_the_endpoint_or_the_credential_however_deep_it_is() {
        for (params, path) in [
            (r#"{"api_base":"http://x"}"#, "api_base"),
            (r#"{"baseURL":"http://x"}"#, "baseURL"),
            (r#"{"api-key":"x"}"#, "api-key"),
            (r#"{"user_config":{}}"#, "user_config"),
            (r#"{"aws_secret_access_key":"x"}"#, "aws_secret_access_key"),
            (r#"{"vertex_credentials":"x"}"#, "vertex_credentials"),
            (r#"{"langfuse_secret":"x"}"#, "langfuse_secret"),
            (r#"{"extra_body":{"api_key":"x"}}"#, "extra_body.api_key"),
            (
                r#"{"fallbacks":[1,{"a":{"base_url":"x"},"b":1}]}"#,
                "fallbacks.a.base_url",
            ),
            (
                r#"{"extra_body":{"litellm_params":{"model":"x"}}}"#,
                "extra_body.litellm_params",
            ),
            (r#"{"\u0061pi_base":"x"}"#, "api_base"),
        ] {
            for confined in [FREE, MODELS, BUDGET] {
                let found = refused(params, confined);
                // A limited key may be refused for the enclosing field first, but must be refused.
                let found = found.unwrap_or_else(|| panic!("{params} travels"));
                assert!(path.starts_with(&found), "{params}: {found}");
            }
            assert_eq!(refused(params, FREE).as_deref(), Some(path));
        }
        let data = r#"{"response_format":{"schema":{"properties":{"base_url":{}}}},
                       "metadata":{"tenant_id":"7","host":"a"},"prompt_cache_key":"x","max_tokens":5,"temperature":0.5}"#;
        assert_eq!(refused(data, BUDGET), None);
    }

    #[test]
    fn a_budget_refuses_cost_that_no_price_covers() {
        for (params, field) in [
            (r#"{"prediction":{}}"#, "prediction"),
            (r#"{"web_search_options":{}}"#, "web_search_options"),
            (r#"{"modalities":["audio"]}"#, "modalities"),
            (r#"{"service_tier":"priority"}"#, "service_tier"),
        ] {
            assert_eq!(refused(params, BUDGET).as_deref(), Some(field));
            assert_eq!(refused(params, MODELS), None);
        }
        for fine in [r#"{"service_tier":"flex"}"#, r#"{"prediction":null}"#] {
            assert_eq!(refused(fine, BUDGET), None, "{fine}");
        }
        let hosted = spec("{}", r#"[{"type":"function"},{"type":"web_search"}]"#);
        let extra = ExtraFields::default();
        let invalid = extra.check(&hosted, BUDGET).unwrap_err();
        assert_eq!(invalid.param.as_deref(), Some("tools[1].type"));
        assert!(extra.check(&hosted, MODELS).is_ok());
    }
}
