//! The arguments of a tool call, checked against the tool's JSON Schema.

use std::fmt::Write as _;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

/// The most mistakes that are reported at once.
const MAX_MISTAKES: usize = 5;
/// The longest report of one mistake, in characters: it quotes the model's arguments.
const MAX_MISTAKE: usize = 300;

/// Compiles a schema. References out of it are refused, and patterns must take linear time.
///
/// # Errors
/// The mistake in the schema.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| error.to_string())
}

/// Parses and checks the arguments that a model wrote for a call of `tool`.
///
/// # Errors
/// The mistakes, for the model.
pub fn read(tool: &str, schema: &Validator, written: &str) -> Result<Value, String> {
    // Models write nothing at all for a tool without parameters.
    let arguments = if written.trim().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_json::from_str(written).map_err(|error| {
            format!(
                "The arguments of `{tool}` are not valid JSON ({error}). \
                 Call it again with a JSON object that matches its schema."
            )
        })?
    };
    match mistakes(schema, &arguments) {
        None => Ok(arguments),
        Some(mistakes) => Err(format!(
            "The arguments of `{tool}` do not match its schema:{mistakes}\n\
             Call it again with this corrected."
        )),
    }
}

/// Returns the mistakes in arguments, a line for each with its place; `None` if they match the schema.
pub fn mistakes(schema: &Validator, arguments: &Value) -> Option<String> {
    let mut mistakes = String::new();
    let mut errors = schema.iter_errors(arguments);
    for error in errors.by_ref().take(MAX_MISTAKES) {
        let place = match error.instance_path().as_str() {
            "" => "the arguments",
            path => path,
        };
        let mistake: String = error.to_string().chars().take(MAX_MISTAKE).collect();
        let _ = write!(mistakes, "\n- at {place}: {mistake}");
    }
    let more = errors.next().is_some();
    drop(errors);
    if more {
        mistakes.push_str("\n- and more");
    }
    (!mistakes.is_empty()).then_some(mistakes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Validator {
        compile(&json!({
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 14}},
            "required": ["city"],
            "additionalProperties": false,
        }))
        .unwrap()
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let error = read("weather", &schema(), r#"{"days": 99, "town": "Ulm"}"#).unwrap_err();
        for part in [
            "`weather`",
            "\"city\" is a required property",
            "at /days: 99",
            "'town'",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn broken_json_is_told_apart_from_wrong_arguments() {
        let error = read("weather", &schema(), r#"{"city": "#).unwrap_err();
        assert!(error.contains("not valid JSON"), "{error}");
    }

    #[test]
    fn nothing_stands_for_an_empty_object() {
        let schema = compile(&json!({"type": "object"})).unwrap();
        assert_eq!(read("now", &schema, " "), Ok(json!({})));
    }

    #[test]
    fn a_long_mistake_is_cut() {
        let written = json!({"city": "x", "days": "9".repeat(10_000)}).to_string();
        assert!(read("weather", &schema(), &written).unwrap_err().len() < 1_000);
    }

    #[test]
    fn references_outside_the_schema_are_refused() {
        for outside in ["http://127.0.0.1:1/schema", "file:///etc/passwd"] {
            assert!(compile(&json!({"$ref": outside})).is_err(), "{outside}");
        }
        compile(&json!({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"})).unwrap();
    }
}
