//! A limit that a run has reached, and the limits that let it go on.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{InvalidLimit, RequestLimits, UseLimits, cost};
use crate::price::Nanos;
use crate::run::FinishReason;

/// The limit at which a run waits, with the consumption until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachedLimit {
    /// `max_tokens`, `max_cost` or `max_tool_calls`.
    pub limit: FinishReason,
    /// All limits of the run.
    pub limits: RequestLimits,
    /// The consumption of the run.
    pub used: UsedUp,
}

/// The consumption of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsedUp {
    /// Tokens of all turns, read and written.
    pub tokens: u64,
    /// The cost of all turns in the currency of the prices; left out without a limit of cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// Calls of the server's tools that were made.
    pub tool_calls: u32,
}

/// One limit: a new value, the present one, and the consumption.
struct Amount {
    limit: FinishReason,
    new: Option<u64>,
    now: Option<u64>,
    used: u64,
    /// Writes a value as a request does.
    text: fn(u64) -> String,
}

impl ReachedLimit {
    /// Checks that new limits let the run go on, `lived` after its first claim. A refusal names the limit.
    pub fn check_raise(&self, asked: &RequestLimits, lived: Duration) -> Result<(), InvalidLimit> {
        let refuse = |field: &'static str, message: String| Err(InvalidLimit { field, message });
        let new = asked.read()?;
        let now = self.limits.read()?;
        let used_cost = self.used.cost.as_deref().and_then(cost);
        let amounts = [
            Amount {
                limit: FinishReason::MaxTokens,
                new: new.max_tokens,
                now: now.max_tokens,
                used: self.used.tokens,
                text: |amount| amount.to_string(),
            },
            Amount {
                limit: FinishReason::MaxCost,
                new: new.max_cost_nanos,
                now: now.max_cost_nanos,
                used: used_cost.map_or(0, |cost| cost.0),
                text: |amount| Nanos(amount).to_string(),
            },
            Amount {
                limit: FinishReason::MaxToolCalls,
                new: new.max_tool_calls.map(u64::from),
                now: now.max_tool_calls.map(u64::from),
                used: u64::from(self.used.tool_calls),
                text: |amount| amount.to_string(),
            },
            Amount {
                limit: FinishReason::MaxWallTime,
                new: new.max_wall_ms,
                now: now.max_wall_ms,
                // Compared with the time that the run has lived, below.
                used: 0,
                text: wall_text,
            },
        ];
        for amount in amounts {
            let Amount {
                limit,
                new,
                now,
                used,
                text,
            } = amount;
            let field = limit.as_str();
            match (new, now) {
                (None, _) if self.limit == limit => {
                    let message = format!("the run has reached its `{field}`: raise that limit");
                    return refuse(field, message);
                }
                (Some(_), None) => {
                    let message = format!("the run has no `{field}`, so there is none to raise");
                    return refuse(field, message);
                }
                (Some(new), _) if new <= used => {
                    let used = text(used);
                    let message =
                        format!("the run has used {used} already: set `{field}` above that");
                    return refuse(field, message);
                }
                (Some(new), Some(now)) if new <= now => {
                    let now = text(now);
                    let message = format!("`{field}` is {now} now, and can only be raised");
                    return refuse(field, message);
                }
                _ => {}
            }
        }
        let wall_time = new.max_wall_time().or(now.max_wall_time());
        match wall_time.filter(|&most| most <= lived) {
            None => Ok(()),
            Some(most) => {
                let most = wall_text(millis(most));
                let lived = lived.as_secs();
                let message = format!(
                    "the run has lived for {lived}s, and `max_wall_time` is {most}: set it above that"
                );
                refuse("max_wall_time", message)
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a time in milliseconds as a request writes it.
fn wall_text(millis: u64) -> String {
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

impl From<UseLimits> for RequestLimits {
    fn from(limits: UseLimits) -> Self {
        Self {
            max_tokens: limits.max_tokens,
            max_cost: limits.max_cost_nanos.map(|cost| Nanos(cost).to_string()),
            max_tool_calls: limits.max_tool_calls,
            max_wall_time: limits.max_wall_ms.map(wall_text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str) -> RequestLimits {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn limits_are_written_as_they_are_read() {
        for json in [
            r#"{"max_tokens":5,"max_cost":"0.25","max_tool_calls":2,"max_wall_time":"5m"}"#,
            r#"{"max_wall_time":"90s"}"#,
            r#"{"max_wall_time":"720h"}"#,
            r#"{"max_wall_time":"1500ms"}"#,
            "{}",
        ] {
            let written = RequestLimits::from(limits(json).read().unwrap());
            assert_eq!(serde_json::to_string(&written).unwrap(), json);
        }
    }

    #[test]
    fn only_limits_that_let_the_run_go_on_are_taken() {
        let reached = ReachedLimit {
            limit: FinishReason::MaxTokens,
            limits: limits(r#"{"max_tokens":100,"max_cost":"0.5","max_wall_time":"1m"}"#),
            used: UsedUp {
                tokens: 120,
                cost: Some("0.4".to_owned()),
                tool_calls: 0,
            },
        };
        let check = |json: &str, lived| {
            let checked = reached.check_raise(&limits(json), Duration::from_secs(lived));
            checked.map_err(|refused| (refused.field, refused.message))
        };
        assert_eq!(check(r#"{"max_tokens":121}"#, 59), Ok(()));
        assert_eq!(check(r#"{"max_tokens":200,"max_cost":"0.51"}"#, 0), Ok(()));
        let all = r#"{"max_tokens":200,"max_wall_time":"2m"}"#;
        assert_eq!(check(all, 61), Ok(()));
        for (json, lived, field, says) in [
            ("{}", 0, "max_tokens", "has reached"),
            (r#"{"max_cost":"1"}"#, 0, "max_tokens", "has reached"),
            (r#"{"max_tokens":0}"#, 0, "max_tokens", "whole number"),
            (r#"{"max_tokens":90}"#, 0, "max_tokens", "used 120"),
            (r#"{"max_tokens":120}"#, 0, "max_tokens", "used 120"),
            (
                r#"{"max_tokens":121}"#,
                60,
                "max_wall_time",
                "lived for 60s",
            ),
            (
                r#"{"max_tokens":121,"max_cost":"0.5"}"#,
                0,
                "max_cost",
                "0.5 now",
            ),
            (
                r#"{"max_tokens":121,"max_cost":"0.3"}"#,
                0,
                "max_cost",
                "used 0.4",
            ),
            (
                r#"{"max_tokens":121,"max_tool_calls":4}"#,
                0,
                "max_tool_calls",
                "has no",
            ),
            (
                r#"{"max_tokens":121,"max_wall_time":"30s"}"#,
                0,
                "max_wall_time",
                "1m now",
            ),
        ] {
            let (refused, message) = check(json, lived).unwrap_err();
            assert_eq!(refused, field, "{json}: {message}");
            assert!(message.contains(says), "{json}: {message}");
        }
    }
}
