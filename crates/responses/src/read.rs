//! A reader of JSON that knows its path, so that each refusal names the field.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::Invalid;

pub(crate) const WRONG_TYPE: &str = "invalid_type";
pub(crate) const WRONG_VALUE: &str = "invalid_value";
const MISSING: &str = "missing_field";
const UNKNOWN: &str = "unknown_field";
/// The longest part of a client's text that an error repeats.
const LONGEST: usize = 64;

/// A value at its path.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) json: &'a RawValue,
}

impl<'a> At<'a> {
    /// Reads a body, which must be an object.
    pub(crate) fn body(bytes: &'a [u8]) -> Result<Self, Invalid> {
        let body: &RawValue = serde_json::from_slice(bytes).map_err(|error| {
            Invalid::body("invalid_json", format!("the body is not JSON: {error}"))
        })?;
        if !body.get().starts_with('{') {
            let message = "the body must be a JSON object, {…}";
            return Err(Invalid::body("invalid_json", message));
        }
        Ok(Self::new(String::new(), body))
    }

    pub(crate) fn new(path: String, json: &'a RawValue) -> Self {
        Self { path, json }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.json.get() == "null"
    }

    pub(crate) fn is_string(&self) -> bool {
        self.json.get().starts_with('"')
    }

    pub(crate) fn is_object(&self) -> bool {
        self.json.get().starts_with('{')
    }

    pub(crate) fn string(&self) -> Result<String, Invalid> {
        if !self.is_string() {
            return Err(self.must_be("a string"));
        }
        serde_json::from_str(self.json.get()).map_err(|_| self.unreadable())
    }

    pub(crate) fn bool(&self) -> Result<bool, Invalid> {
        match self.json.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.must_be("true or false")),
        }
    }

    pub(crate) fn count(&self, least: u64, most: u64) -> Result<u64, Invalid> {
        self.json
            .get()
            .parse()
            .ok()
            .filter(|count| (least..=most).contains(count))
            .ok_or_else(|| {
                self.must_be(&if most == u64::MAX {
                    format!("a whole number of at least {least}")
                } else {
                    format!("a whole number from {least} to {most}")
                })
            })
    }

    /// Checks for a number within bounds, which stays as it was written.
    pub(crate) fn number(&self, least: f64, most: f64) -> Result<f64, Invalid> {
        serde_json::from_str::<f64>(self.json.get())
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.must_be(&format!("a number from {least} to {most}")))
    }

    /// Checks that the value can be read by anybody: no half of a surrogate pair, no number beyond
    /// all floats.
    pub(crate) fn readable(&self) -> Result<&'a RawValue, Invalid> {
        match serde_json::from_str::<Value>(self.json.get()) {
            Ok(_) => Ok(self.json),
            Err(_) => Err(self.unreadable()),
        }
    }

    pub(crate) fn array(&self) -> Result<Vec<At<'a>>, Invalid> {
        let elements: Vec<&RawValue> =
            serde_json::from_str(self.json.get()).map_err(|_| self.must_be("an array"))?;
        let at = |(index, json)| At::new(format!("{}[{index}]", self.path), json);
        Ok(elements.into_iter().enumerate().map(at).collect())
    }

    pub(crate) fn object(&self) -> Result<Object<'a>, Invalid> {
        let Fields(fields) =
            serde_json::from_str(self.json.get()).map_err(|_| self.must_be("an object"))?;
        let mut seen = HashSet::new();
        if let Some((name, _)) = fields.iter().find(|(name, _)| !seen.insert(name.clone())) {
            let path = within(&self.path, cut(name));
            let message = format!("`{path}` is there twice");
            return Err(Invalid::field("invalid_json", path, message));
        }
        Ok(Object {
            path: self.path.clone(),
            fields,
        })
    }

    pub(crate) fn must_be(&self, what: &str) -> Invalid {
        let message = format!("`{}` must be {what}", self.path);
        Invalid::field(WRONG_TYPE, &*self.path, message)
    }

    /// Refuses a word that is not one of `words`.
    pub(crate) fn one_of(&self, words: &[&str]) -> Invalid {
        let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let message = match &*words {
            [word] => format!("`{}` must be {word}", self.path),
            words => format!("`{}` must be one of {}", self.path, words.join(", ")),
        };
        Invalid::field(WRONG_VALUE, &*self.path, message)
    }

    pub(crate) fn unsupported(&self, message: &str) -> Invalid {
        Invalid::unsupported(&*self.path, format!("`{}` {message}", self.path))
    }

    fn unreadable(&self) -> Invalid {
        let message = format!(
            "`{}` holds half of a surrogate pair, or a number that is too large: send whole \
             characters and numbers",
            self.path
        );
        Invalid::field("invalid_json", &*self.path, message)
    }
}

/// An object of which fields are taken one by one, so that those that nobody took can be named.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    path: String,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Takes a field, unless it is absent or `null`.
    pub(crate) fn take(&mut self, name: &str) -> Option<At<'a>> {
        let index = self.fields.iter().position(|(key, _)| key == name)?;
        let (_, json) = self.fields.remove(index);
        let at = At::new(within(&self.path, name), json);
        (!at.is_null()).then_some(at)
    }

    /// Returns whether a field is there, if only with `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(key, _)| key == name)
    }

    /// Takes a field that must be there.
    pub(crate) fn need(&mut self, name: &str) -> Result<At<'a>, Invalid> {
        self.take(name).ok_or_else(|| {
            let path = within(&self.path, name);
            let message = format!("`{path}` is missing");
            Invalid::field(MISSING, path, message)
        })
    }

    pub(crate) fn need_string(&mut self, name: &str) -> Result<String, Invalid> {
        self.need(name)?.string()
    }

    pub(crate) fn take_string(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        self.take(name).map(|at| at.string()).transpose()
    }

    pub(crate) fn take_bool(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        self.take(name).map(|at| at.bool()).transpose()
    }

    /// The fields that nobody took.
    pub(crate) fn rest(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.fields
    }

    /// Refuses the fields that nobody took, unless they are `null`.
    pub(crate) fn finish(self) -> Result<(), Invalid> {
        let mut unknown = self.fields.iter().filter(|(_, json)| json.get() != "null");
        match unknown.next() {
            None => Ok(()),
            Some((name, _)) => {
                let path = within(&self.path, cut(name));
                let message = format!("there is no field `{path}`: leave it out");
                Err(Invalid::field(UNKNOWN, path, message))
            }
        }
    }
}

/// The fields of an object, in order and unparsed.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name with its escapes decoded; borrowed if it has none.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnObject;

        impl<'de> Visitor<'de> for AnObject {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(AnObject)
    }
}

fn within(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn a_refusal_names_the_path() {
        let body = raw(r#"{"a":[{"b":7}],"a2":"\ud800","c":1,"n":null}"#);
        let at = At::new(String::new(), &body);
        let mut object = at.object().unwrap();
        let list = object.need("a").unwrap();
        let first = &list.array().unwrap()[0];
        let error = first.object().unwrap().need_string("b").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("a[0].b"));
        assert_eq!(error.message, "`a[0].b` must be a string");
        assert_eq!(object.need_string("a2").unwrap_err().code, "invalid_json");
        assert_eq!(object.need("d").unwrap_err().param.as_deref(), Some("d"));
        assert!(object.take("n").is_none(), "null is absent");
        let unknown = object.finish().unwrap_err();
        assert_eq!(unknown.param.as_deref(), Some("c"));
    }

    #[test]
    fn a_field_that_is_there_twice_is_named() {
        let twice = raw(r#"{"a":1,"\u0061":2}"#);
        let at = At::new("input[0]".into(), &twice);
        let error = at.object().unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input[0].a"));
    }
}
