//! Exemplars: the last sampled span for each bucket of a histogram.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_metrics::SECONDS;
use opentelemetry::trace::{SpanId, TraceId};

/// The most series with exemplars. Further series have none.
const MOST_SERIES: usize = 512;

/// The buckets of a histogram of times, the one without a bound included.
const BUCKETS: usize = SECONDS.len() + 1;

static EXEMPLARS: LazyLock<Exemplars> = LazyLock::new(Exemplars::default);

/// A span that is sampled, so that its trace can be looked up.
#[derive(Debug, Clone, Copy)]
pub struct SampledSpan {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
}

impl SampledSpan {
    /// Makes this span the example of a time that was recorded in a histogram. `labels` are those of the series, in
    /// the same order.
    pub fn exemplifies(self, metric: &'static str, labels: &[(&str, &str)], took: Duration) {
        EXEMPLARS.put(
            metric,
            labels,
            Exemplar {
                of: self,
                took,
                at: opentelemetry::time::now(),
            },
        );
    }
}

/// Returns the exemplar of a bucket, as OpenMetrics writes it after the bucket's count. `series` are the labels as
/// Prometheus' text format writes them, without `le`.
pub fn exemplar(metric: &str, series: &str, le: f64) -> Option<String> {
    EXEMPLARS.get(metric, series, le)
}

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    of: SampledSpan,
    took: Duration,
    at: SystemTime,
}

#[derive(Debug, Default)]
struct Exemplars(Mutex<HashMap<&'static str, OfMetric>>);

/// The exemplars of a metric: by labels, then by bucket.
type OfMetric = HashMap<String, [Option<Exemplar>; BUCKETS]>;

impl Exemplars {
    fn put(&self, metric: &'static str, labels: &[(&str, &str)], exemplar: Exemplar) {
        let mut series = String::new();
        for (name, value) in labels {
            let value = value.replace('\\', r"\\").replace('"', "\\\"");
            let comma = if series.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(series, "{comma}{name}=\"{value}\"");
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = all.values().map(OfMetric::len).sum::<usize>() >= MOST_SERIES;
        let of_metric = all.entry(metric).or_default();
        if is_full && !of_metric.contains_key(&series) {
            return;
        }
        let buckets = of_metric.entry(series).or_insert([None; BUCKETS]);
        if let Some(bucket) = buckets.get_mut(bucket_of(exemplar.took.as_secs_f64())) {
            *bucket = Some(exemplar);
        }
    }

    fn get(&self, metric: &str, series: &str, le: f64) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = all.get(metric)?.get(series)?;
        let exemplar = buckets.get(bucket_of(le))?.as_ref()?;
        let SampledSpan { trace, span } = exemplar.of;
        let took = exemplar.took.as_secs_f64();
        let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = at.as_secs_f64();
        Some(format!(
            "# {{trace_id=\"{trace}\",span_id=\"{span}\"}} {took} {at:.3}"
        ))
    }
}

/// Returns the number of the bucket that a time in seconds falls into.
fn bucket_of(seconds: f64) -> usize {
    let bound = SECONDS.iter().position(|bound| seconds <= *bound);
    bound.unwrap_or(SECONDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(trace: u128, millis: u64) -> Exemplar {
        Exemplar {
            of: SampledSpan {
                trace: TraceId::from(trace),
                span: SpanId::from(7),
            },
            took: Duration::from_millis(millis),
            at: UNIX_EPOCH + Duration::from_millis(1_500),
        }
    }

    #[test]
    fn each_bucket_has_the_last_span_that_fell_into_it() {
        let all = Exemplars::default();
        let labels = [("model", "a \"b\""), ("lane", "x")];
        for (trace, millis) in [(1, 30), (2, 40), (3, 400_000)] {
            all.put("wait_seconds", &labels, exemplar(trace, millis));
        }
        let series = r#"model="a \"b\"",lane="x""#;
        let found = all.get("wait_seconds", series, 0.05).unwrap();
        let expected = "# {trace_id=\"00000000000000000000000000000002\",span_id=\"0000000000000007\"} 0.04 1.500";
        assert_eq!(found, expected);
        let last = all.get("wait_seconds", series, f64::INFINITY).unwrap();
        assert!(last.contains("03\",") && last.contains(" 400 "), "{last}");
        assert_eq!(all.get("wait_seconds", series, 0.1), None);
        assert_eq!(all.get("wait_seconds", "", 0.05), None);
        assert_eq!(all.get("other_seconds", series, 0.05), None);
    }

    #[test]
    fn only_so_many_series_have_exemplars() {
        let all = Exemplars::default();
        for number in 0..=MOST_SERIES {
            all.put(
                "wait_seconds",
                &[("model", &number.to_string())],
                exemplar(1, 1),
            );
        }
        assert_eq!(all.0.lock().unwrap()["wait_seconds"].len(), MOST_SERIES);
        all.put("wait_seconds", &[("model", "0")], exemplar(9, 1));
        let found = all.get("wait_seconds", "model=\"0\"", 0.001).unwrap();
        assert!(found.contains("09\","), "{found}");
    }
}
