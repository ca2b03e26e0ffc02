//! Declarations of metrics: name, kind, help and labels of each, in one list per part of Baton.
//!
//! A part calls [`register`] with its list when it starts. This attaches the help, and creates
//! every series with known labels, because a rate cannot see a counter that begins at 1. To add a
//! metric, add it to the list of its part; `docs/metrics.md` is made from all lists.

use metrics::{Unit, counter, gauge, histogram};

/// Bucket bounds of all histograms that end in `_seconds`: 1 ms is a cached answer, 60 s a long
/// model turn.
pub const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
    120.0, 300.0,
];

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name; counters end in `_total`, times in `_seconds`, sizes in `_bytes`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// One sentence about it, for people.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// Returns its name in Prometheus's text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label. There is no kind for values that a stranger may choose.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// Exactly these values.
    Of(&'static [&'static str]),
    /// As many values as the code or the configuration has; the text names their source.
    Bounded(&'static str),
}

impl Metric {
    /// Declares a metric that only grows.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(name, Kind::Counter, help, labels)
    }

    /// Declares a metric that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(name, Kind::Gauge, help, labels)
    }

    /// Declares a metric that counts observations in buckets.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [Label],
    ) -> Self {
        Self::new(name, Kind::Histogram, help, labels)
    }

    const fn new(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        labels: &'static [Label],
    ) -> Self {
        Self {
            name,
            kind,
            help,
            labels,
        }
    }

    /// Returns its unit, by the end of its name.
    pub fn unit(&self) -> Unit {
        let name = self.name.trim_end_matches("_total");
        if name.ends_with("_seconds") {
            Unit::Seconds
        } else if name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        }
    }

    fn describe(&self) {
        let (name, unit, help) = (self.name, self.unit(), self.help);
        match self.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }

    /// Creates the series with these labels, without a value. A series that counts already is
    /// unchanged.
    pub fn create(&self, labels: &Vec<(&'static str, String)>) {
        match self.kind {
            Kind::Counter => counter!(self.name, labels).increment(0),
            Kind::Gauge => gauge!(self.name, labels).increment(0.0),
            Kind::Histogram => drop(histogram!(self.name, labels)),
        }
    }

    /// Returns all combinations of labels; none if a label's values are not listed.
    fn known_series(&self) -> Vec<Vec<(&'static str, String)>> {
        let mut all = vec![Vec::new()];
        for label in self.labels {
            let values = match label.values {
                Values::Of(values) => values,
                Values::Bounded(_) => &[],
            };
            all = all
                .iter()
                .flat_map(|series| {
                    values.iter().map(move |value| {
                        let mut longer = series.clone();
                        longer.push((label.name, (*value).to_owned()));
                        longer
                    })
                })
                .collect();
        }
        all
    }
}

impl Label {
    /// Declares a label with exactly these values.
    pub const fn of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self {
            name,
            values: Values::Of(values),
        }
    }

    /// Declares a label with as many values as the code or the configuration has of `by`.
    pub const fn bounded(name: &'static str, by: &'static str) -> Self {
        Self {
            name,
            values: Values::Bounded(by),
        }
    }
}

/// Attaches help and units, and creates every series with listed labels.
pub fn register(list: &[Metric]) {
    for metric in list {
        metric.describe();
        for labels in metric.known_series() {
            metric.create(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

    use super::*;

    const LIST: &[Metric] = &[
        Metric::counter(
            "things_total",
            "Things",
            &[
                Label::of("wire", &["chat", "native"]),
                Label::of("end", &["ok", "error"]),
            ],
        ),
        Metric::gauge("slots", "Slots", &[]),
        Metric::counter("calls_total", "Calls", &[Label::bounded("tool", "tools")]),
        Metric::histogram("wait_seconds", "Waiting", &[]),
    ];

    fn recorder() -> PrometheusRecorder {
        PrometheusBuilder::new()
            .set_buckets(&[1.0])
            .expect("one bound")
            .build_recorder()
    }

    #[test]
    fn every_series_with_listed_labels_begins_at_0_histograms_too() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || register(LIST));
        let text = recorder.handle().render();
        for line in [
            "# HELP things_total Things",
            r#"things_total{wire="chat",end="ok"} 0"#,
            r#"things_total{wire="native",end="error"} 0"#,
            "slots 0",
            "wait_seconds_count 0",
        ] {
            assert!(
                text.lines().any(|shown| shown == line),
                "no {line} in\n{text}"
            );
        }
        assert!(!text.contains("calls_total{"), "{text}");
    }

    #[test]
    fn to_register_again_resets_nothing() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            register(LIST);
            counter!("things_total", "wire" => "chat", "end" => "ok").increment(3);
            gauge!("slots").set(8.0);
            register(LIST);
        });
        let text = recorder.handle().render();
        assert!(text.contains("slots 8\n"), "{text}");
        assert!(
            text.contains(r#"things_total{wire="chat",end="ok"} 3"#),
            "{text}"
        );
    }

    #[test]
    fn the_unit_is_read_from_the_name() {
        assert_eq!(LIST[3].unit(), Unit::Seconds);
        assert_eq!(LIST[0].unit(), Unit::Count);
    }
}
