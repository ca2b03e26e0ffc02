//! Reads the pause that an upstream requests.

use std::time::Duration;

use chrono::DateTime;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};

/// Returns `retry-after-ms`, or `Retry-After` in seconds or as a date. A date is compared with the
/// upstream's own `Date`, because clocks differ.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |text: &str| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|number| *number >= 0.0)
    };
    if let Some(millis) = text(&HeaderName::from_static("retry-after-ms")).and_then(number) {
        return Duration::try_from_secs_f64(millis / 1_000.0).ok();
    }
    let given = text(&RETRY_AFTER)?;
    if let Some(seconds) = number(given) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = DateTime::parse_from_rfc2822(given).ok()?;
    let now = DateTime::parse_from_rfc2822(text(&DATE)?).ok()?;
    Some((then - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let read = |pairs: &[_]| retry_after(&headers(pairs));
        assert_eq!(read(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(
            read(&[("retry-after", "9"), ("retry-after-ms", "1500")]),
            Some(Duration::from_millis(1_500)),
        );
        let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(
            read(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"), date]),
            Some(Duration::from_secs(30)),
        );
        assert_eq!(
            read(&[("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT"), date]),
            Some(Duration::ZERO),
        );
        for absent in ["-1", "soon", "1e999", "NaN"] {
            assert_eq!(read(&[("retry-after", absent)]), None, "{absent}");
        }
    }
}
