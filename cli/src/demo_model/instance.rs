//! A value that fits a JSON Schema: arguments for a tool, or an answer in a requested format.

use serde_json::{Map, Value, json};

/// The greatest depth of a value; deeper parts are null.
const DEPTH: usize = 16;

/// Returns a value that fits the schema, with words and numbers of the text where it has room for them.
pub(crate) fn instance(schema: &Value, text: &str) -> Value {
    Maker { root: schema, text }.make(schema, "", DEPTH)
}

struct Maker<'a> {
    root: &'a Value,
    text: &'a str,
}

impl Maker<'_> {
    fn make(&self, schema: &Value, name: &str, depth: usize) -> Value {
        if depth == 0 {
            return Value::Null;
        }
        if let Some(path) = schema["$ref"].as_str() {
            let target = path.strip_prefix('#').and_then(|p| self.root.pointer(p));
            return target.map_or(Value::Null, |target| self.make(target, name, depth - 1));
        }
        for fixed in ["const", "default"] {
            if let Some(value) = schema.get(fixed) {
                return value.clone();
            }
        }
        for list in ["enum", "examples"] {
            if let Some(value) = schema[list].as_array().and_then(|values| values.first()) {
                return value.clone();
            }
        }
        for either in ["anyOf", "oneOf", "allOf"] {
            let Some(schemas) = schema[either].as_array() else {
                continue;
            };
            let some = schemas.iter().find(|schema| schema["type"] != "null");
            if let Some(some) = some {
                return self.make(some, name, depth - 1);
            }
        }
        match kind_of(schema) {
            "object" => self.object(schema, depth),
            "array" => {
                let least = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 16);
                let item = self.make(&schema["items"], name, depth - 1);
                (0..least).map(|_| item.clone()).collect()
            }
            "integer" => {
                let number = self.number(schema).trunc();
                // Numbers are printed in full; one beyond an i64 is a mistake of the schema.
                json!(format!("{number}").parse::<i64>().unwrap_or(1))
            }
            "number" => json!(self.number(schema)),
            "boolean" => json!(true),
            "null" => Value::Null,
            _ => json!(self.string(schema, name)),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let Some(properties) = schema["properties"].as_object() else {
            return json!({});
        };
        let required = schema["required"].as_array();
        let needed = |name: &str| required.is_none_or(|names| names.iter().any(|n| n == name));
        let made = properties
            .iter()
            .filter(|(name, _)| needed(name))
            .map(|(name, schema)| (name.clone(), self.make(schema, name, depth - 1)));
        Value::Object(made.collect::<Map<_, _>>())
    }

    /// Returns the text's first number, within the schema's bounds.
    fn number(&self, schema: &Value) -> f64 {
        let mut numbers = self
            .text
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|word| word.trim_matches('.').parse::<f64>().ok());
        let given = numbers.next().unwrap_or(1.0);
        let above = schema["exclusiveMinimum"].as_f64().map(|least| least + 1.0);
        let least = schema["minimum"].as_f64().or(above).unwrap_or(f64::MIN);
        let below = schema["exclusiveMaximum"].as_f64().map(|most| most - 1.0);
        let most = schema["maximum"].as_f64().or(below).unwrap_or(f64::MAX);
        given.min(most).max(least)
    }

    fn string(&self, schema: &Value, name: &str) -> String {
        let fixed = match schema["format"].as_str() {
            Some("date") => Some("2026-01-01"),
            Some("time") => Some("12:00:00Z"),
            Some("date-time") => Some("2026-01-01T12:00:00Z"),
            Some("email") => Some("demo@example.com"),
            Some("uri" | "url") => Some("https://example.com/"),
            Some("uuid") => Some("01890a5d-ac96-774b-bcce-b302099a8057"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            return fixed.to_owned();
        }
        let quiet = self.text.trim().is_empty();
        let words = if quiet { name } else { self.words() };
        let most = schema["maxLength"].as_u64().unwrap_or(200);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut string: String = words.chars().take(most).collect();
        let least = schema["minLength"].as_u64().unwrap_or(0).min(200);
        while (string.chars().count() as u64) < least {
            string.push('.');
        }
        string
    }

    /// Returns the name after "in", "for" or "of" ("San Francisco"), or the whole text.
    fn words(&self) -> &str {
        let text = self.text.trim();
        for before in [" in ", " for ", " of ", " to "] {
            let Some(at) = text.rfind(before) else {
                continue;
            };
            let rest = &text[at + before.len()..];
            let end = rest.find(['?', '.', '!', '\n']).unwrap_or(rest.len());
            let words = rest[..end].trim();
            if words.starts_with(char::is_uppercase) {
                return words;
            }
        }
        text
    }
}

/// Returns the schema's type; the first that is not null, if there are several.
fn kind_of(schema: &Value) -> &str {
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|k| *k != "null"),
        kind => kind.as_str(),
    };
    kind.unwrap_or(if schema.get("properties").is_some() {
        "object"
    } else {
        "string"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_its_schema() {
        let schemas = [
            json!({"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}),
            json!({"type": "object", "additionalProperties": false, "required": ["a", "b", "c", "d"], "properties": {
                "a": {"type": "integer", "minimum": 5, "maximum": 9},
                "b": {"type": "array", "minItems": 2, "items": {"enum": ["x", "y"]}},
                "c": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/person"}]},
                "d": {"type": ["null", "number"], "exclusiveMinimum": 0}},
                "$defs": {"person": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "minLength": 3, "maxLength": 6},
                    "born": {"type": "string", "format": "date"}}}}}),
            json!({"type": "string", "format": "date-time"}),
            json!({"const": 7}),
            json!({}),
            json!(true),
        ];
        for schema in schemas {
            for text in ["", "What is the weather in San Francisco?", "12 eggs"] {
                let value = instance(&schema, text);
                let valid = jsonschema::is_valid(&schema, &value);
                assert!(valid, "{schema} of {text:?}: {value}");
            }
        }
    }

    #[test]
    fn the_texts_own_words_are_used() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
        assert_eq!(
            instance(&schema, "What is the weather in San Francisco? 3 days"),
            json!({"city": "San Francisco", "days": 3})
        );
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        let schema =
            json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}});
        assert!(instance(&schema, "").is_object());
    }
}
