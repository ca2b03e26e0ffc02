//! Metrics in the text format of OpenMetrics, which has exemplars.

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::ACCEPT;

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns whether a client prefers OpenMetrics to Prometheus' text format.
pub(crate) fn is_preferred(headers: &HeaderMap) -> bool {
    let (mut open, mut plain) = (0.0, 0.0);
    for accept in headers.get_all(ACCEPT) {
        for range in accept.to_str().unwrap_or_default().split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let kind = parameters.next().unwrap_or_default();
            let quality = parameters.find_map(|pair| pair.strip_prefix("q="));
            let quality = quality.map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
            if kind.eq_ignore_ascii_case("application/openmetrics-text") {
                open = quality.max(open);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                plain = quality.max(plain);
            }
        }
    }
    open > 0.0 && open >= plain
}

/// Returns metrics in Prometheus' text format as OpenMetrics. `exemplar` has a metric's name, the labels of a series
/// and the bound of a bucket.
pub(super) fn of_plain(
    plain: &str,
    exemplar: impl Fn(&str, &str, f64) -> Option<String>,
) -> String {
    let mut out = String::with_capacity(plain.len() + plain.len() / 8);
    for line in plain.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap_or((help, ""));
            let help = help.replace('"', "\\\"");
            put(&mut out, format_args!("# HELP {} {help}", family(name)));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or((kind, "unknown"));
            let is_unnamed = kind == "counter" && !name.ends_with("_total");
            let kind = if is_unnamed { "unknown" } else { kind };
            let name = family(name);
            put(&mut out, format_args!("# TYPE {name} {kind}"));
            let units = ["seconds", "bytes"];
            let unit = units.iter().find(|unit| ends_with_unit(name, unit));
            if let Some(unit) = unit {
                put(&mut out, format_args!("# UNIT {name} {unit}"));
            }
        } else {
            out.push_str(line);
            if let Some((metric, series, bound)) = bucket(line)
                && let Some(exemplar) = exemplar(metric, series, bound)
            {
                out.push(' ');
                out.push_str(&exemplar);
            }
            out.push('\n');
        }
    }
    out.push_str("# EOF\n");
    out
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

/// Returns the name of a metric without the suffix that only a counter's samples have.
fn family(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

fn ends_with_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit)
        .is_some_and(|rest| rest.ends_with('_'))
}

/// Reads a bucket's line: its metric, the labels of its series without `le`, and its bound.
fn bucket(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_once('{')?;
    let metric = name.strip_suffix("_bucket")?;
    let (series, bound) = rest.rsplit_once("le=\"")?;
    let (bound, _) = bound.split_once('"')?;
    let bound = match bound {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    Some((metric, series.trim_end_matches(','), bound))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn counters_lose_their_suffix_in_heads_and_buckets_get_exemplars() {
        let plain = concat!(
            "# HELP runs_total Runs, \"all\"\n# TYPE runs_total counter\nruns_total{a=\"b\"} 3\n\n",
            "# HELP wait_seconds Waits\n# TYPE wait_seconds histogram\n",
            "wait_seconds_bucket{model=\"m\",le=\"0.5\"} 1\n",
            "wait_seconds_bucket{model=\"m\",le=\"+Inf\"} 2\n",
            "wait_seconds_sum{model=\"m\"} 9\nwait_seconds_count{model=\"m\"} 2\n\n",
            "# TYPE odd counter\nodd 1\n\n# TYPE open gauge\nopen 1\n",
        );
        let exemplar = |metric: &str, series: &str, le: f64| {
            let wanted = metric == "wait_seconds" && series == "model=\"m\"" && le.is_infinite();
            wanted.then(|| "# {trace_id=\"1\"} 7 1.5".to_owned())
        };
        let expected = concat!(
            "# HELP runs Runs, \\\"all\\\"\n# TYPE runs counter\nruns_total{a=\"b\"} 3\n",
            "# HELP wait_seconds Waits\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n",
            "wait_seconds_bucket{model=\"m\",le=\"0.5\"} 1\n",
            "wait_seconds_bucket{model=\"m\",le=\"+Inf\"} 2 # {trace_id=\"1\"} 7 1.5\n",
            "wait_seconds_sum{model=\"m\"} 9\nwait_seconds_count{model=\"m\"} 2\n",
            "# TYPE odd unknown\nodd 1\n# TYPE open gauge\nopen 1\n# EOF\n",
        );
        assert_eq!(of_plain(plain, exemplar), expected);
    }

    #[test]
    fn the_format_is_the_one_that_the_client_prefers() {
        let preferred = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            is_preferred(&headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(preferred(prometheus));
        assert!(preferred("application/openmetrics-text; version=1.0.0"));
        for plain in [
            "*/*",
            "text/plain",
            "text/plain, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
        ] {
            assert!(!preferred(plain), "{plain}");
        }
        assert!(!is_preferred(&HeaderMap::new()));
    }
}
