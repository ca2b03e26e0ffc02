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

/// Reads a value of any shape, and returns it with JSON that every reader understands: halves of
/// surrogate pairs are replaced, as in [`text_of`]. Returns `None` if the value is nested too deep or
/// has a number beyond a double's range.
pub(crate) fn value_of(json: &str) -> Option<(Cow<'_, str>, Value)> {
    if let Ok(value) = serde_json::from_str(json) {
        return Some((Cow::Borrowed(json), value));
    }
    let mended = without_halves(json);
    let value = serde_json::from_str(&mended).ok()?;
    Some((Cow::Owned(mended), value))
}

/// Replaces each half of a surrogate pair in valid JSON by `\ufffd`.
fn without_halves(json: &str) -> String {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut mended = String::with_capacity(json.len());
    let mut rest = 0;
    while let Some(found) = json[rest..].find('\\') {
        let at = rest + found;
        mended.push_str(&json[rest..at]);
        let is_low = |unit: u16| (0xdc00..0xe000).contains(&unit);
        let length = match unit(at) {
            None => 2,
            Some(0xd800..0xdc00) if unit(at + 6).is_some_and(is_low) => 12,
            Some(0xd800..0xe000) => {
                mended.push_str("\\ufffd");
                rest = at + 6;
                continue;
            }
            Some(_) => 6,
        };
        // A backslash is followed by an ASCII character, because the JSON is valid.
        rest = at + length;
        mended.push_str(&json[at..rest]);
    }
    mended.push_str(&json[rest..]);
    mended
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
    fn values_are_read_with_halves_of_pairs_replaced() {
        for (json, mended) in [
            (
                r#"{"a":"\ud83d\ude00 \\ud83d"}"#,
                r#"{"a":"\ud83d\ude00 \\ud83d"}"#,
            ),
            (
                r#"["\ud83d","\ude00\n\u00e9"]"#,
                r#"["\ufffd","\ufffd\n\u00e9"]"#,
            ),
            (r#"{"\ud83d\ud83d\ude00":1}"#, r#"{"\ufffd\ud83d\ude00":1}"#),
            (r#""\uDC00é\\\ud800""#, r#""\ufffdé\\\ufffd""#),
        ] {
            let (read, value) = value_of(json).unwrap();
            assert_eq!(read, mended);
            assert_eq!(value, serde_json::from_str::<Value>(mended).unwrap());
        }
        for unreadable in ["1e999".to_owned(), "[".repeat(200) + &"]".repeat(200)] {
            let _: &RawValue = raw(&unreadable);
            assert_eq!(value_of(&unreadable), None);
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
