//! Tokens used, with the details that upstreams add.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::lenient::{Fields, count_of, value_of};
use crate::{Unknown, lenient};

/// Token counts of one answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens the model read.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub prompt_tokens: u64,
    /// Tokens the model wrote.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub completion_tokens: u64,
    /// Their sum, as the upstream reported it.
    #[serde(default, deserialize_with = "lenient::null_as_default")]
    pub total_tokens: u64,
    /// `prompt_tokens_details` and all other counts of the upstream.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: Unknown,
}

/// The counts; every other field is a detail.
const COUNTS: [&str; 5] = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
];

impl Usage {
    /// Reads an upstream's counts: numbers also as floats or texts, under either pair of names, one
    /// of them derived from the sum. Returns `None` without any count, because every answer reads
    /// at least one token.
    pub fn read(json: &RawValue) -> Option<Self> {
        let fields = Fields::of(json)?;
        let count = |names: [&str; 2]| {
            let mut found = names.iter().filter_map(|name| fields.get(name));
            found.find_map(count_of)
        };
        let prompt = count(["prompt_tokens", "input_tokens"]);
        let completion = count(["completion_tokens", "output_tokens"]);
        let total = count(["total_tokens", "total_tokens"]);
        let (prompt_tokens, completion_tokens) = match (prompt, completion, total) {
            (Some(prompt), Some(completion), _) => (prompt, completion),
            (Some(prompt), None, total) => (prompt, total.unwrap_or(prompt).saturating_sub(prompt)),
            (None, Some(completion), Some(total)) => (total.saturating_sub(completion), completion),
            (None, completion, None) => (0, completion?),
            (None, None, Some(total)) => (total, 0),
        };
        let sum = prompt_tokens.saturating_add(completion_tokens);
        let rest = fields
            .0
            .iter()
            .filter(|field| !COUNTS.contains(&&*field.name))
            .filter_map(|field| {
                let (_, value) = value_of(field.json.get())?;
                Some((field.name.to_string(), value))
            })
            .collect();
        Some(Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: total.unwrap_or(sum),
            rest,
        })
        .filter(|usage| usage.total_tokens > 0 || sum > 0)
    }

    /// Makes counts without details.
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            rest: Map::new(),
        }
    }

    /// Returns the number of the prompt's tokens that the upstream had cached, if it reports that.
    pub fn cached_tokens(&self) -> u64 {
        let details = self.rest.get("prompt_tokens_details");
        let cached = details.and_then(|details| details.get("cached_tokens"));
        cached.and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Adds numbers, in the details as well; replaces any other value.
impl AddAssign<&Usage> for Usage {
    fn add_assign(&mut self, other: &Usage) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self
            .completion_tokens
            .saturating_add(other.completion_tokens);
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
        add_details(&mut self.rest, &other.rest);
    }
}

pub(crate) fn add_details(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        let Some(present) = into.get_mut(key) else {
            into.insert(key.clone(), value.clone());
            continue;
        };
        match (present, value) {
            (Value::Object(present), Value::Object(value)) => add_details(present, value),
            (Value::Number(present), Value::Number(value)) => {
                if let (Some(a), Some(b)) = (present.as_u64(), value.as_u64()) {
                    *present = a.saturating_add(b).into();
                } else if let (Some(a), Some(b)) = (present.as_f64(), value.as_f64())
                    && let Some(sum) = serde_json::Number::from_f64(a + b)
                {
                    *present = sum;
                }
            }
            (_, Value::Null) => {}
            (present, value) => *present = value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_of_several_turns_adds_up_with_its_details() {
        let read = |value| serde_json::from_value::<Usage>(value).unwrap();
        let mut sum = read(
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": null}, "cost": 0.5}),
        );
        sum += &read(
            json!({"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21,
            "prompt_tokens_details": {"cached_tokens": 2}, "cost": 0.25, "tier": "x"}),
        );
        assert_eq!(
            serde_json::to_value(sum).unwrap(),
            json!({"prompt_tokens": 30, "completion_tokens": 6, "total_tokens": 36,
                "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": null},
                "cost": 0.75, "tier": "x"}),
        );
    }

    #[test]
    fn counts_are_read_as_far_as_they_make_sense() {
        let read = |json: &str| Usage::read(serde_json::from_str(json).unwrap());
        let counts =
            |json| read(json).map(|u| (u.prompt_tokens, u.completion_tokens, u.total_tokens));
        for (json, expected) in [
            (
                r#"{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}"#,
                Some((7, 2, 9)),
            ),
            (
                r#"{"prompt_tokens":7.0,"completion_tokens":"2","total_tokens":null}"#,
                Some((7, 2, 9)),
            ),
            (
                r#"{"prompt_tokens":7,"completion_tokens":-1,"total_tokens":9}"#,
                Some((7, 2, 9)),
            ),
            (r#"{"input_tokens":7,"output_tokens":2}"#, Some((7, 2, 9))),
            (
                r#"{"completion_tokens":2,"total_tokens":9}"#,
                Some((7, 2, 9)),
            ),
            (
                r#"{"prompt_tokens":7,"completion_tokens":2,"total_tokens":20}"#,
                Some((7, 2, 20)),
            ),
            (
                r#"{"prompt_tokens":-7,"completion_tokens":-2,"total_tokens":-9}"#,
                None,
            ),
            (
                r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
                None,
            ),
            ("{}", None),
            ("null", None),
            ("[7, 2]", None),
            ("3", None),
        ] {
            assert_eq!(counts(json), expected, "{json}");
        }
        let detailed = read(r#"{"prompt_tokens":7,"completion_tokens":2,"cost":0.5}"#).unwrap();
        assert_eq!(detailed.rest["cost"], json!(0.5));
    }
}
