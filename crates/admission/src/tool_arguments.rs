//! The arguments of a tool call, checked against the tool's JSON Schema.

use std::fmt::Write as _;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

/// The most mistakes that are reported at once.
const MAX_MISTAKES: usize = 5;
/// The longest report of one mistake, in characters: it quotes the model's arguments.
const MAX_MISTAKE: usize = 300;
/// The longest schema of a condition, in bytes.
const MAX_CONDITION: usize = 8 * 1024;
/// The keywords of JSON Schema that say something about an object.
const KEYWORDS: [&str; 29] = [
    "$comment",
    "$defs",
    "$id",
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "definitions",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "description",
    "else",
    "enum",
    "if",
    "maxProperties",
    "minProperties",
    "not",
    "oneOf",
    "patternProperties",
    "properties",
    "propertyNames",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedProperties",
];

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

/// Checks the schema of a condition on arguments, which is an object.
///
/// # Errors
/// The mistake in the schema.
pub fn check_condition(schema: &Map<String, Value>) -> Result<(), String> {
    let size = serde_json::to_vec(schema).map_or(usize::MAX, |text| text.len());
    if size > MAX_CONDITION {
        return Err(format!(
            "has {size} bytes, which is more than {MAX_CONDITION}"
        ));
    }
    // JSON Schema ignores other words, so that a misspelled condition would match every call.
    let mut others = schema
        .keys()
        .filter(|key| !KEYWORDS.contains(&key.as_str()));
    if let Some(other) = others.next() {
        return Err(format!(
            "has `{other}`, which is no keyword of JSON Schema for objects; a rule for the argument \
             `{other}` belongs into `properties`"
        ));
    }
    if schema.is_empty() {
        return Err("is empty; `\"approval\": \"always\"` asks about every call".to_owned());
    }
    compile(&Value::Object(schema.clone()))
        .map(|_validator| ())
        .map_err(|mistake| format!("is no usable JSON Schema: {mistake}"))
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
    fn a_condition_is_a_schema_that_says_something_about_objects() {
        let check = |schema: Value| check_condition(schema.as_object().unwrap());
        for good in [
            json!({"properties": {"amount": {"exclusiveMinimum": 100}}}),
            json!({"not": {"properties": {"path": {"pattern": "^/tmp/"}}, "required": ["path"]}}),
        ] {
            assert_eq!(check(good), Ok(()));
        }
        for (bad, named) in [
            (json!({}), "always"),
            (
                json!({"amount": {"exclusiveMinimum": 100}}),
                "`amount` belongs into `properties`",
            ),
            (json!({"properties": {"a": {"type": "money"}}}), "money"),
            (
                json!({"properties": {"a": {"pattern": "("}}}),
                "is no usable JSON Schema",
            ),
            (json!({"$ref": "http://127.0.0.1:1/schema"}), "is no usable"),
            (json!({"title": "x".repeat(9_000)}), "more than 8192"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(named), "{named} is missing in: {error}");
        }
    }

    #[test]
    fn references_outside_the_schema_are_refused() {
        for outside in ["http://127.0.0.1:1/schema", "file:///etc/passwd"] {
            assert!(compile(&json!({"$ref": outside})).is_err(), "{outside}");
        }
        compile(&json!({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"})).unwrap();
    }
}
