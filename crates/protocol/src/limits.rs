//! Limits of what one run may use up.

mod reached;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::price::Nanos;

pub use reached::{ReachedLimit, UsedUp};

/// The largest whole number that the ledger can store.
const MOST: u64 = i32::MAX as u64;
/// The longest wall time: 30 days.
const LONGEST: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The effect of a limit that is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// The run ends.
    #[default]
    Stop,
    /// The model answers once more, without tools, from a part of the limit that is kept for that.
    HandBack,
    /// The run waits for a person, who raises the limit or lets the run end.
    Park,
}

impl OnLimit {
    /// Returns whether it is the default.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes fields by reference"
    )]
    pub const fn is_stop(&self) -> bool {
        matches!(self, Self::Stop)
    }
}

/// The limits of what a run may use up, as a request writes them.
#[expect(clippy::struct_field_names, reason = "the names are those of requests")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RequestLimits, example = json!({"max_tokens": 20_000, "max_cost": "0.25", "max_wall_time": "5m"}))]
pub struct RequestLimits {
    /// Tokens over all turns, read and written; never exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u64>,
    /// A decimal number in the currency of the prices; never exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
    pub max_cost: Option<String>,
    /// Calls of the server's tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tool_calls: Option<u32>,
    /// The time from the first claim of the run, such as `90s`, `5m` or `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-9]{1,9}(ms|s|m|h)$")]
    pub max_wall_time: Option<String>,
}

/// A limit that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidLimit {
    /// The name of the limit.
    pub field: &'static str,
    /// One sentence that says what to change.
    pub message: String,
}

/// The limits of what a run may use up.
#[expect(clippy::struct_field_names, reason = "the names are those of requests")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UseLimits {
    /// Tokens over all turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The cost of all turns, in billionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nanos: Option<u64>,
    /// Calls of server-side tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_calls: Option<u32>,
    /// The time from the first claim, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wall_ms: Option<u64>,
}

impl UseLimits {
    /// Returns whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the smaller of each limit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            max_tokens: smaller(self.max_tokens, other.max_tokens),
            max_cost_nanos: smaller(self.max_cost_nanos, other.max_cost_nanos),
            max_tool_calls: smaller(self.max_tool_calls, other.max_tool_calls),
            max_wall_ms: smaller(self.max_wall_ms, other.max_wall_ms),
        }
    }

    /// Returns the limits with these in place of lower ones.
    #[must_use]
    pub fn raised(self, by: Self) -> Self {
        fn higher<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).max()
        }
        Self {
            max_tokens: higher(self.max_tokens, by.max_tokens),
            max_cost_nanos: higher(self.max_cost_nanos, by.max_cost_nanos),
            max_tool_calls: higher(self.max_tool_calls, by.max_tool_calls),
            max_wall_ms: higher(self.max_wall_ms, by.max_wall_ms),
        }
    }

    /// Returns the longest time from the first claim.
    pub const fn max_wall_time(&self) -> Option<Duration> {
        match self.max_wall_ms {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => None,
        }
    }
}

impl RequestLimits {
    /// Reads the limits. A refusal names the limit, without the place of the limits.
    pub fn read(&self) -> Result<UseLimits, InvalidLimit> {
        let refuse = |field: &'static str, message: String| Err(InvalidLimit { field, message });
        for (field, value) in [
            ("max_tokens", self.max_tokens),
            ("max_tool_calls", self.max_tool_calls.map(u64::from)),
        ] {
            if value.is_some_and(|value| !(1..=MOST).contains(&value)) {
                return refuse(
                    field,
                    format!("`{field}` is a whole number from 1 to {MOST}"),
                );
            }
        }
        let cost = self.max_cost.as_deref().map(cost);
        if cost == Some(None) {
            let message = "`max_cost` is a decimal number above 0 as text, such as \"0.25\", with at \
                           most 9 digits before and after the point";
            return refuse("max_cost", message.to_owned());
        }
        let time = self.max_wall_time.as_deref().map(wall_time);
        if time == Some(None) {
            let message = "`max_wall_time` is a time from 1ms to 720h as text, such as \"90s\", \
                           \"5m\" or \"1h\"";
            return refuse("max_wall_time", message.to_owned());
        }
        Ok(UseLimits {
            max_tokens: self.max_tokens,
            max_cost_nanos: cost.flatten().map(|cost| cost.0),
            max_tool_calls: self.max_tool_calls,
            max_wall_ms: time.flatten(),
        })
    }
}

/// Reads an amount above zero, such as `0.25`.
fn cost(text: &str) -> Option<Nanos> {
    const DIGITS: usize = 9;

    let (units, rest) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| {
        (1..=DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(units) || !digits(rest) {
        return None;
    }
    let units: u64 = units.parse().ok()?;
    let rest: u64 = format!("{rest:0<DIGITS$}").parse().ok()?;
    let nanos = units * 1_000_000_000 + rest;
    (nanos > 0).then_some(Nanos(nanos))
}

/// Reads a time above zero in milliseconds, such as `5m`.
fn wall_time(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    let millis = number.checked_mul(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    })?;
    (1..=LONGEST).contains(&millis).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_are_read_exactly() {
        for (text, nanos) in [
            ("0.25", Some(250_000_000)),
            ("12", Some(12_000_000_000)),
            ("0.000000001", Some(1)),
            ("999999999.999999999", Some(999_999_999_999_999_999)),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            ("1e3", None),
            (".5", None),
            ("1.", None),
            ("0.0000000001", None),
            ("1000000000", None),
            ("", None),
        ] {
            assert_eq!(cost(text).map(|cost| cost.0), nanos, "{text}");
        }
        for (text, millis) in [
            ("500ms", Some(500)),
            ("90s", Some(90_000)),
            ("720h", Some(LONGEST)),
            ("721h", None),
            ("0s", None),
            ("5", None),
            ("1.5s", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("s", None),
        ] {
            assert_eq!(wall_time(text), millis, "{text}");
        }
    }

    #[test]
    fn a_bad_limit_is_refused_by_its_name() {
        for (json, field) in [
            (r#"{"max_tokens":0}"#, "max_tokens"),
            (r#"{"max_tokens":99999999999}"#, "max_tokens"),
            (r#"{"max_tool_calls":0}"#, "max_tool_calls"),
            (r#"{"max_cost":"-0.1"}"#, "max_cost"),
            (r#"{"max_wall_time":"soon"}"#, "max_wall_time"),
        ] {
            let limits: RequestLimits = serde_json::from_str(json).unwrap();
            let refused = limits.read().unwrap_err();
            assert_eq!(refused.field, field);
            assert!(refused.message.contains(field), "{refused}");
        }
    }

    #[test]
    fn the_smaller_limit_holds() {
        let one = UseLimits {
            max_tokens: Some(5),
            max_tool_calls: Some(1),
            ..UseLimits::default()
        };
        let other = UseLimits {
            max_tokens: Some(3),
            max_wall_ms: Some(7),
            ..UseLimits::default()
        };
        let both = UseLimits {
            max_tokens: Some(3),
            max_tool_calls: Some(1),
            max_wall_ms: Some(7),
            max_cost_nanos: None,
        };
        assert_eq!(one.and(other), both);
        assert_eq!(other.and(one), both);
    }
}
