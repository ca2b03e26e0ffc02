//! Preferences of a client about the time of its answer (RFC 7240): `Prefer: respond-async, wait=10`.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The longest time that one request waits: proxies are less patient.
const LONGEST: Duration = Duration::from_mins(1);

/// The preferences of a request. One that cannot be read is as one that is not there, as RFC 7240
/// has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    /// Whether the client takes 202 for an answer that takes longer.
    pub(crate) respond_async: bool,
    /// The time that the client waits, a minute at most.
    pub(crate) wait: Option<Duration>,
}

impl Prefer {
    /// Reads the preferences in a request's headers.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        let preferences = headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for preference in preferences {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("respond-async") {
                read.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait")
                && read.wait.is_none()
                && let Ok(seconds) = value.parse()
            {
                read.wait = Some(Duration::from_secs(seconds).min(LONGEST));
            }
        }
        read
    }

    /// Names the preferences that an answer follows.
    pub(crate) fn name_in(self, answer: &mut Response) {
        let wait = self.wait.map(|wait| format!("wait={}", wait.as_secs()));
        let names = self.respond_async.then(|| "respond-async".to_owned());
        let names: Vec<_> = names.into_iter().chain(wait).collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(", "))
            && !names.is_empty()
        {
            answer.headers_mut().insert(PREFERENCE_APPLIED, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_str(value).unwrap());
        }
        Prefer::read(&headers)
    }

    #[test]
    fn preferences_are_read_from_all_headers_and_the_first_of_a_name_counts() {
        let seconds = Duration::from_secs;
        for (values, respond_async, wait) in [
            (&[][..], false, None),
            (&["respond-async"], true, None),
            (&["Respond-Async; x=1, WAIT = 10"], true, Some(seconds(10))),
            (&["wait=5", "respond-async, wait=7"], true, Some(seconds(5))),
            (&["wait=\"3\""], false, Some(seconds(3))),
            (&["wait=86400"], false, Some(LONGEST)),
            (&["wait=x, wait=-1, wait, return=minimal"], false, None),
        ] {
            let expected = Prefer {
                respond_async,
                wait,
            };
            assert_eq!(read(values), expected, "{values:?}");
        }
    }
}
