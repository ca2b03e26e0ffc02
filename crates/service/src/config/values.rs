//! Value types of the configuration: secrets, connection URLs, sizes.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HIDDEN: &str = "***";

/// A value that never shows in logs, debug output or printed configuration.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value itself; check carefully where it goes.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<T> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// The URL of a server, which may carry credentials: shown as `scheme://***@host…`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ConnectionUrl(String);

impl ConnectionUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the URL with its credentials.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str(HIDDEN);
        };
        // Everything before the last `@` is hidden, because an unescaped password may contain any
        // character, and each server of a list may have credentials.
        let shown = match rest.rsplit_once('@') {
            Some((_, host)) => format!("{HIDDEN}@{host}"),
            None => rest.to_owned(),
        };
        // libpq also accepts `?password=…`.
        match shown.split_once('?') {
            Some((place, query)) if query.contains("password") => {
                write!(f, "{scheme}://{place}?{HIDDEN}")
            }
            _ => write!(f, "{scheme}://{shown}"),
        }
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ConnectionUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A price per million tokens, written as a decimal number in quotes, such as `"2.50"`; exact, in
/// millionths of the currency's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(u64);

impl PerMillion {
    /// The highest price: a unit for each token.
    const MOST: u64 = 1_000_000_000_000;

    /// Returns millionths of a unit.
    pub const fn micros(self) -> u64 {
        self.0
    }
}

/// A text that is not a price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a price is a decimal number from 0 to 1000000 with at most six decimals, in quotes")]
pub struct NotAPrice;

impl FromStr for PerMillion {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(units) || !digits(decimals) || units.len() > 7 || decimals.len() > 6 {
            return Err(NotAPrice);
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| NotAPrice);
        let micros = number(units)? * 1_000_000 + number(&format!("{decimals:0<6}"))?;
        if micros <= Self::MOST {
            Ok(Self(micros))
        } else {
            Err(NotAPrice)
        }
    }
}

impl fmt::Display for PerMillion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let rest = format!("{rest:06}");
        let decimals = rest.trim_end_matches('0');
        write!(f, "{units}.{decimals:0<2}")
    }
}

impl Serialize for PerMillion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PerMillion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = PerMillion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&NotAPrice, f)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PerMillion, E> {
                text.parse().map_err(de::Error::custom)
            }
        }

        // A number without quotes has already lost precision as floating point.
        deserializer.deserialize_str(Text)
    }
}

/// A size in bytes, written `10MiB` (`KiB`, `MiB`, `GiB`, `TiB`; `KB`, `MB`, `GB`, `TB` are powers of ten).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Makes a size of this many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Makes a size of this many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Makes a size of this many gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// Returns the size in bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the size in bytes for an interface with signed sizes; at most the largest `i64`.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Returns the size in bytes for a buffer; at most the largest `usize`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .filter(|(unit, _)| unit.contains('i'))
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            Some(1)
        } else {
            UNITS
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, f)| f)
        };
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size such as `10MiB`"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"10MiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Size)
    }
}

/// Reads a number that has no default. From the environment it comes as text, because only a default
/// says there that a key is a number.
pub(super) fn optional_count<'de, D>(deserializer: D) -> Result<Option<usize>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number such as 1000")]
    enum Count {
        Number(usize),
        Text(String),
    }
    match Option::<Count>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Count::Number(count)) => Ok(Some(count)),
        Some(Count::Text(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| de::Error::custom(format!("`{text}` is not a number such as 1000"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_url_are_hidden_whatever_they_contain() {
        for (url, shown) in [
            (
                "postgres://app:s3cret@db:5432/baton",
                "postgres://***@db:5432/baton",
            ),
            (
                "postgres://app:p@ss/w?rd@db/baton",
                "postgres://***@db/baton",
            ),
            (
                "nats://token@n1:4222,nats://token@n2:4222",
                "nats://***@n2:4222",
            ),
            (
                "postgres://db/baton?user=a&password=s3cret",
                "postgres://db/baton?***",
            ),
            (
                "postgres://db/baton?sslmode=require",
                "postgres://db/baton?sslmode=require",
            ),
            ("host=db password=s3cret", "***"),
        ] {
            assert_eq!(ConnectionUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", ConnectionUrl::new(url)), shown);
        }
    }

    #[test]
    fn sizes_are_read_and_written_in_the_unit_that_fits() {
        assert_eq!("10MiB".parse(), Ok(ByteSize::mib(10)));
        assert_eq!("10 mib".parse(), Ok(ByteSize::mib(10)));
        assert_eq!("1500".parse(), Ok(ByteSize::bytes(1500)));
        assert_eq!("2MB".parse(), Ok(ByteSize::bytes(2_000_000)));
        assert_eq!(ByteSize::gib(1).to_string(), "1GiB");
        assert_eq!(ByteSize::bytes(1500).to_string(), "1500B");
        for bad in ["", "MiB", "10 apples", "-1", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
