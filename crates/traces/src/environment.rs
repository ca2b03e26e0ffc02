//! The variables of OpenTelemetry that choose whether, where and how spans are sent.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an attribute with content, unless the environment says another number.
const DEFAULT_CONTENT: usize = 16 << 10;

/// The highest such number: as many spans wait for the receiver as its queue has places.
const MOST_CONTENT: usize = 1 << 20;

/// A variable with a value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct BadEnvironment {
    variable: &'static str,
    problem: String,
}

impl BadEnvironment {
    fn new(variable: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { variable, problem }
    }
}

/// The receiver of spans.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) endpoint: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    /// A file of certificate authorities that are trusted besides the public ones.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) has_service_name: bool,
    /// Whether the spans of a failed trace are sent although it is not sampled.
    pub(crate) keeps_errors: bool,
    /// The most bytes of an attribute with content; `None` if spans have none.
    pub(crate) content: Option<usize>,
}

impl Environment {
    /// Returns nothing if no receiver is named, or tracing is turned off.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BadEnvironment> {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_off = given("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || given("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        let specific = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let general = given("OTEL_EXPORTER_OTLP_ENDPOINT");
        if is_off || specific.is_none() && general.is_none() {
            return Ok(None);
        }
        let endpoint = match (&specific, &general) {
            (Some(whole), _) => url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole)?,
            (None, base) => {
                let base = base.as_deref().unwrap_or_default();
                let base = base.trim_end_matches('/');
                url("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{base}/v1/traces"))?
            }
        };
        for name in [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ] {
            if given(name).is_some_and(|protocol| protocol != "http/protobuf") {
                let problem = "is not http/protobuf, the only one that is spoken: change it, and the port of \
                               the endpoint with it (4318 as a rule)";
                return Err(BadEnvironment::new(name, problem));
            }
        }
        let mut headers = HeaderMap::new();
        for name in [
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        ] {
            if let Some(list) = given(name) {
                read_headers(name, &list, &mut headers)?;
            }
        }
        let timeout = given("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| given("OTEL_EXPORTER_OTLP_TIMEOUT"))
            .map(|millis| millis.trim().parse().map(Duration::from_millis))
            .transpose()
            .map_err(|_| {
                BadEnvironment::new(
                    "OTEL_EXPORTER_OTLP_TIMEOUT",
                    "is no number of milliseconds: write for example 10000",
                )
            })?
            .unwrap_or(DEFAULT_TIMEOUT);
        check_sampler(&given)?;
        let content = read_content(&given)?;
        Ok(Some(Self {
            endpoint,
            headers,
            timeout,
            authorities: given("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
                .or_else(|| given("OTEL_EXPORTER_OTLP_CERTIFICATE"))
                .map(PathBuf::from),
            has_service_name: given("OTEL_SERVICE_NAME").is_some()
                || given("OTEL_RESOURCE_ATTRIBUTES")
                    .is_some_and(|list| list.contains("service.name=")),
            // These samplers are chosen to have no span of an unsampled trace.
            keeps_errors: !given("OTEL_TRACES_SAMPLER")
                .is_some_and(|sampler| sampler.ends_with("always_off")),
            content,
        }))
    }
}

fn url(variable: &'static str, text: &str) -> Result<Url, BadEnvironment> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| {
        let problem = "is no http or https URL: write for example http://127.0.0.1:4318";
        BadEnvironment::new(variable, problem)
    })
}

/// Reads `name=value,name=value`, each value percent-encoded.
fn read_headers(
    variable: &'static str,
    list: &str,
    headers: &mut HeaderMap,
) -> Result<(), BadEnvironment> {
    // The value may be a secret, so that the error does not show it.
    let problem = "is no list of headers: write name=value, with commas between";
    for pair in list.split(',').filter(|pair| !pair.trim().is_empty()) {
        let bad = || BadEnvironment::new(variable, problem);
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        let value = percent_decoded(value.trim()).ok_or_else(bad)?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

/// Refuses a sampler that the SDK does not know, because it would sample everything instead.
fn check_sampler(given: &impl Fn(&str) -> Option<String>) -> Result<(), BadEnvironment> {
    let Some(sampler) = given("OTEL_TRACES_SAMPLER") else {
        return Ok(());
    };
    let takes_ratio = match &*sampler {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => false,
        "traceidratio" | "parentbased_traceidratio" => true,
        _ => {
            let problem = "is no sampler: write always_on, always_off, traceidratio, or one of these after \
                           parentbased_";
            return Err(BadEnvironment::new("OTEL_TRACES_SAMPLER", problem));
        }
    };
    let ratio = given("OTEL_TRACES_SAMPLER_ARG").and_then(|ratio| ratio.parse::<f64>().ok());
    if takes_ratio && !ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
        let problem = "is no number from 0 to 1, which the sampler needs: write for example 0.1";
        return Err(BadEnvironment::new("OTEL_TRACES_SAMPLER_ARG", problem));
    }
    Ok(())
}

/// Reads whether spans have content, and the most bytes of each attribute with it.
fn read_content(given: &impl Fn(&str) -> Option<String>) -> Result<Option<usize>, BadEnvironment> {
    const SWITCH: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
    let chosen = given(SWITCH).map(|chosen| chosen.trim().to_ascii_lowercase());
    match chosen.as_deref() {
        None | Some("false" | "no_content") => return Ok(None),
        Some("true" | "span_only") => {}
        Some("event_only" | "span_and_event") => {
            let problem = "asks for events, and none are sent: write SPAN_ONLY";
            return Err(BadEnvironment::new(SWITCH, problem));
        }
        Some(_) => {
            let problem = "is neither SPAN_ONLY nor NO_CONTENT: write one of them";
            return Err(BadEnvironment::new(SWITCH, problem));
        }
    }
    for name in [
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ] {
        if let Some(limit) = given(name) {
            let limit = limit.trim().parse().ok();
            let limit = limit.filter(|limit| *limit <= MOST_CONTENT);
            let problem = "is no number from 0 to 1048576: write for example 16384";
            return limit
                .map(Some)
                .ok_or_else(|| BadEnvironment::new(name, problem));
        }
    }
    Ok(Some(DEFAULT_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Environment>, BadEnvironment> {
        Environment::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn spans_are_sent_only_if_a_receiver_is_named_and_nothing_turns_them_off() {
        assert!(read(&[]).unwrap().is_none());
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")])
                .unwrap()
                .is_none()
        );
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert!(read(&[ENDPOINT, off]).unwrap().is_none(), "{off:?}");
        }
        let found = read(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(found.endpoint.as_str(), "http://collector:4318/v1/traces");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://x.example/in");
        let found = read(&[ENDPOINT, whole]).unwrap().unwrap();
        assert_eq!(found.endpoint.as_str(), "https://x.example/in");
    }

    const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

    #[test]
    fn spans_have_content_only_if_it_is_switched_on() {
        let content = |more: &[(&str, &str)]| {
            let variables = [&[ENDPOINT], more].concat();
            read(&variables).unwrap().unwrap().content
        };
        assert_eq!(content(&[]), None);
        assert_eq!(content(&[(CAPTURE, "NO_CONTENT")]), None);
        assert_eq!(content(&[(CAPTURE, "True")]), Some(16 << 10));
        let limit = ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1000");
        assert_eq!(content(&[(CAPTURE, "SPAN_ONLY"), limit]), Some(1_000));
        assert_eq!(content(&[limit]), None);
        let limit = (limit.0, "2000000");
        let error = read(&[ENDPOINT, (CAPTURE, "true"), limit]).unwrap_err();
        assert!(error.to_string().starts_with(limit.0), "{error}");
    }

    #[test]
    fn errors_are_kept_unless_the_sampler_is_always_off() {
        for (sampler, kept) in [
            ("", true),
            ("always_on", true),
            ("always_off", false),
            ("parentbased_always_off", false),
        ] {
            let found = read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", sampler)]).unwrap();
            assert_eq!(found.unwrap().keeps_errors, kept, "{sampler}");
        }
    }

    #[test]
    fn headers_are_percent_decoded_and_sensitive() {
        let list = (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Authorization=Basic%20abc, x-scope = 7",
        );
        let found = read(&[ENDPOINT, list]).unwrap().unwrap();
        assert_eq!(found.headers["authorization"], "Basic abc");
        assert!(found.headers["authorization"].is_sensitive());
        assert_eq!(found.headers["x-scope"], "7");
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_and_not_shown() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%s3cret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            (CAPTURE, "EVENT_ONLY"),
            (CAPTURE, "perhaps"),
        ] {
            let mut given = vec![(name, value)];
            if name != ENDPOINT.0 {
                given.push(ENDPOINT);
            }
            let error = read(&given).unwrap_err().to_string();
            assert!(error.starts_with("OTEL_"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
