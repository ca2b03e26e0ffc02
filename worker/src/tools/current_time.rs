//! `current_time`: the date and the time, in any time zone.

use std::time::Duration;

use baton_protocol::{Effect, ToolSource};
use chrono::{DateTime, FixedOffset, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, ToolSpec};

/// The tool.
#[derive(Debug, Clone, Copy)]
pub struct CurrentTime;

impl CurrentTime {
    /// Returns the description for the model.
    pub fn spec(timeout: Duration) -> ToolSpec {
        ToolSpec {
            name: "current_time".to_owned(),
            description: "Tells the current date, time and weekday in a time zone.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "timezone": {
                        "type": "string",
                        "maxLength": 64,
                        "description": "An IANA name such as Europe/Berlin, or an offset such as \
                            +02:00. UTC if left out.",
                    },
                },
                "additionalProperties": false,
            }),
            source: ToolSource::BuiltIn,
            effect: Effect::Pure,
            timeout,
        }
    }
}

impl Tool for CurrentTime {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a ToolContext,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        let timezone = arguments["timezone"].as_str().unwrap_or("UTC");
        ready(tell(context.now, timezone).map_err(ToolError::Arguments)).boxed()
    }
}

fn tell(now: DateTime<Utc>, timezone: &str) -> Result<String, String> {
    let timezone = timezone.trim();
    if let Ok(zone) = Tz::from_str_insensitive(timezone) {
        return Ok(describe(&now.with_timezone(&zone), zone.name()));
    }
    if let Ok(offset) = timezone.parse::<FixedOffset>() {
        return Ok(describe(&now.with_timezone(&offset), &offset.to_string()));
    }
    Err(format!(
        "There is no time zone `{timezone}`. Use an IANA name such as Europe/Berlin or \
         America/New_York, or an offset such as +02:00."
    ))
}

fn describe<Z: TimeZone<Offset: std::fmt::Display>>(time: &DateTime<Z>, zone: &str) -> String {
    json!({
        "time": time.to_rfc3339_opts(SecondsFormat::Secs, false),
        "weekday": time.format("%A").to_string(),
        "timezone": zone,
        "unix": time.timestamp(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(timezone: &str) -> Value {
        let now = DateTime::from_timestamp(1_793_700_000, 0).unwrap();
        serde_json::from_str(&tell(now, timezone).unwrap()).unwrap()
    }

    #[test]
    fn the_time_is_told_in_the_zone_that_was_asked_for() {
        let time = |timezone: &str| told(timezone)["time"].as_str().unwrap().to_owned();
        assert_eq!(time("UTC"), "2026-11-03T10:00:00+00:00");
        assert_eq!(time("Europe/Berlin"), "2026-11-03T11:00:00+01:00");
        assert_eq!(time("asia/kolkata"), "2026-11-03T15:30:00+05:30");
        assert_eq!(time("-03:00"), "2026-11-03T07:00:00-03:00");
        assert_eq!(told("Asia/Tokyo")["weekday"], "Tuesday");
        assert_eq!(told("asia/tokyo")["timezone"], "Asia/Tokyo");
    }

    #[test]
    fn an_unknown_zone_is_answered_with_what_to_write_instead() {
        let error = tell(DateTime::UNIX_EPOCH, "Berlin time").unwrap_err();
        assert!(
            error.contains("`Berlin time`") && error.contains("Europe/Berlin"),
            "{error}"
        );
    }
}
