//! A JSON object that is kept as it was written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The fields of a JSON object, unparsed and in the order in which they were written.
///
/// A tree of small values takes a hundred times the bytes of its text. The upstream reads these
/// fields and Baton does not, so they stay text and numbers keep all digits.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct RawFields(Box<RawValue>);

/// A field: its name and its value as it was written.
pub type RawField<'a> = (Cow<'a, str>, &'a RawValue);

/// A JSON value that is not [`RawFields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object with readable names")]
pub struct NotFields;

impl RawFields {
    /// Takes an object, such as one that was borrowed from a body.
    pub fn from_object(object: Box<RawValue>) -> Result<Self, NotFields> {
        read(&object).map_err(|_| NotFields)?;
        Ok(Self(object))
    }

    /// Writes fields into an object, in this order.
    #[expect(
        clippy::missing_panics_doc,
        reason = "an object of JSON names and values is JSON"
    )]
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = RawField<'a>>) -> Self {
        let mut written = String::from("{");
        for (name, value) in fields {
            if written.len() > 1 {
                written.push(',');
            }
            written.push_str(&serde_json::Value::from(name).to_string());
            written.push(':');
            written.push_str(value.get());
        }
        written.push('}');
        written.shrink_to_fit();
        Self(RawValue::from_string(written).expect("names and values are JSON, and so is this"))
    }

    /// Returns the object as it was written.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Returns the object as it was written, without a copy.
    pub fn into_raw(self) -> Box<RawValue> {
        self.0
    }

    /// Returns the fields, in their order.
    #[expect(
        clippy::missing_panics_doc,
        reason = "the names were read when the object was taken"
    )]
    pub fn fields(&self) -> Vec<RawField<'_>> {
        read(&self.0).expect("it was read when it was made")
    }

    /// Returns the value of a field; of repeated ones the last, as most readers do.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        let mut fields = self.fields().into_iter().rev();
        fields.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Reads the value of a field; `None` if it is absent or has another type.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

impl Default for RawFields {
    fn default() -> Self {
        Self::from_fields([])
    }
}

impl<'de> Deserialize<'de> for RawFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_object(object)
            .map_err(|_| de::Error::custom("invalid type: another value, expected a map"))
    }
}

fn read(object: &RawValue) -> serde_json::Result<Vec<RawField<'_>>> {
    serde_json::from_str::<Fields<'_>>(object.get()).map(|fields| fields.0)
}

/// A name with its escapes decoded; borrowed if it has none.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Fields<'a>(Vec<RawField<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Vec<RawField<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str =
        r#"{"z":1.10 , "a\u00e9":{"b" : [ 18446744073709551616 ],"a":2},"m":null,"":"x"}"#;

    fn read(written: &str) -> Result<RawFields, serde_json::Error> {
        serde_json::from_str(written)
    }

    #[test]
    fn order_digits_and_spaces_stay_as_they_were_written() {
        let fields = read(WRITTEN).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), WRITTEN);
        let names: Vec<_> = fields.fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "aé", "m", ""]);
        assert_eq!(
            fields.get("aé").unwrap().get(),
            r#"{"b" : [ 18446744073709551616 ],"a":2}"#
        );
        assert_eq!(fields.read::<f64>("z"), Some(1.1));
        assert_eq!(fields.read::<u64>("z"), None, "another type");
        assert!(fields.get("none").is_none());
    }

    #[test]
    fn fields_are_written_again_as_they_were_read() {
        let fields = read(WRITTEN).unwrap();
        let again = RawFields::from_fields(fields.fields());
        assert_eq!(
            again.as_raw().get(),
            r#"{"z":1.10,"aé":{"b" : [ 18446744073709551616 ],"a":2},"m":null,"":"x"}"#
        );
        assert_eq!(RawFields::default().as_raw().get(), "{}");
    }

    #[test]
    fn only_an_object_with_readable_names_is_taken() {
        for other in ["[]", "7", r#""x""#, r#"[{"a":1}]"#, r#"{"\ud800":1}"#] {
            let error = read(other).unwrap_err().to_string();
            assert!(error.contains("expected a map"), "{other}: {error}");
        }
    }
}
