//! Lenient readers for upstreams that deviate from the specification.
//!
//! A value is first taken as raw JSON, then read by its form. A value without a sensible reading
//! counts as absent, so an unneeded field never causes a failure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A field as the upstream wrote it.
#[derive(Debug, Clone)]
pub struct RawField<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value.
    pub json: &'a RawValue,
}

impl PartialEq for RawField<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.json.get() == other.json.get()
    }
}

/// The fields of an object, in order and not decoded.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(pub(crate) Vec<RawField<'a>>);

impl<'a> Fields<'a> {
    /// Returns the fields of `json`, if that is an object.
    pub(crate) fn of(json: &'a RawValue) -> Option<Self> {
        if !json.get().starts_with('{') {
            return None;
        }
        serde_json::from_str(json.get()).ok()
    }

    /// Returns the value of the first field with this name that is not `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let mut named = self.0.iter().filter(|field| field.name == name);
        named
            .find(|field| field.json.get() != "null")
            .map(|field| field.json)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(name) = map.next_key::<Borrowed<'de>>()? {
                    let json = map.next_value()?;
                    fields.push(RawField { name: name.0, json });
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Text that is borrowed from the frame unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON string that may hold half of a surrogate pair, as bytes.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;

        impl Visitor<'_> for Raw {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Raw)
    }
}

/// Reads text, also from a number or a truth value. Replaces half of a surrogate pair, as other
/// readers do.
pub(crate) fn text_of(json: &RawValue) -> Option<Cow<'_, str>> {
    let given = json.get();
    match given.as_bytes().first()? {
        b'"' => match serde_json::from_str::<Borrowed<'_>>(given) {
            Ok(text) => Some(text.0),
            Err(_) => serde_json::from_str::<Bytes>(given)
                .ok()
                .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned().into()),
        },
        b'n' | b'{' | b'[' => None,
        _ => Some(Cow::Borrowed(given)),
    }
}

/// Returns the elements of a list; for anything else but `null`, the value itself.
pub(crate) fn elements(json: &RawValue) -> Vec<&RawValue> {
    match json.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(json.get()).unwrap_or_default(),
        Some(b'n') | None => Vec::new(),
        Some(_) => vec![json],
    }
}

/// Reads a count, also from a float or a text. Returns `None` below zero.
pub(crate) fn count_of(json: &RawValue) -> Option<u64> {
    let given = text_of(json)?;
    let given = given.trim();
    if let Ok(count) = given.parse() {
        return Some(count);
    }
    let count = given.parse::<f64>().ok()?.round();
    if !(0.0..=9_007_199_254_740_992.0).contains(&count) {
        return None;
    }
    format!("{count}").parse().ok()
}

/// Reads an index in a list, as [`count_of`] reads a count.
pub(crate) fn index_of(json: &RawValue) -> Option<u32> {
    count_of(json).and_then(|index| index.try_into().ok())
}

/// Reads `null` as the default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a text that some upstreams send as a number (`"code": 502`).
pub(crate) fn text_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn counts_are_read_from_numbers_floats_and_texts() {
        for (json, count) in [
            ("3", Some(3)),
            ("3.0", Some(3)),
            ("\"3\"", Some(3)),
            ("\" 3.4 \"", Some(3)),
            ("1e3", Some(1_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-1", None),
            ("-0.9", None),
            ("1e300", None),
            ("\"many\"", None),
            ("null", None),
            ("[3]", None),
            ("true", None),
        ] {
            assert_eq!(count_of(raw(json)), count, "{json}");
        }
    }

    #[test]
    fn texts_are_read_from_strings_numbers_and_halves_of_pairs() {
        assert!(matches!(text_of(raw("\"a\"")), Some(Cow::Borrowed("a"))));
        assert_eq!(text_of(raw("17")).as_deref(), Some("17"));
        assert_eq!(text_of(raw("null")), None);
        let half = text_of(raw(r#""a\ud83d""#)).unwrap();
        assert!(half.starts_with("a\u{fffd}"), "{half}");
    }
}
