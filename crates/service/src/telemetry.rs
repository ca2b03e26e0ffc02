//! Logs and metrics of the process, installed once for any number of roles.

mod log_filter;
pub(crate) mod open_metrics;
mod scrapes;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use self::log_filter::LogFilter;
pub use self::log_filter::{InvalidTime, SetFilterError, check_filter, parse_filter_time};
use self::scrapes::Scrapes;
use crate::config::{LogConfig, LogFormat};
use crate::{build, metrics as names, process_metrics};

/// Libraries that log passwords and whole messages at finer levels, which no filter enables.
const TALKATIVE: [&str; 1] = ["async_nats"];

/// Libraries that repeat a server's texts in their lines at every level; Baton logs such failures itself.
const SILENT: [&str; 1] = ["rmcp"];

/// The result of [`install`]; the same for every caller in a process.
#[derive(Debug)]
pub struct Telemetry {
    filter: LogFilter,
    metrics: PrometheusHandle,
    scrapes: Scrapes,
}

static INSTALLED: OnceLock<Telemetry> = OnceLock::new();

/// Installs the subscriber and the metrics recorder. The first call in a process decides; later
/// ones (other roles of `baton dev`, other tests) get its result.
///
/// If another subscriber or recorder is installed already, it stays.
pub fn install(config: &LogConfig) -> &'static Telemetry {
    INSTALLED.get_or_init(|| {
        // The configuration was checked; an unchecked filter must not stop a start.
        let directives = EnvFilter::try_new(&config.filter).map(|filter| (filter, &*config.filter));
        let (filter, text) = directives.unwrap_or_else(|_| (EnvFilter::new("info"), "info"));
        let (filter, log) = reload::Layer::new(filter);
        let subscriber =
            tracing_subscriber::registry()
                .with(filter)
                .with(lines(config.format).with_filter(filter_fn(|event| {
                    is_discreet(event.target(), *event.level())
                })));
        // An error means that another subscriber is installed, which stays.
        drop(subscriber.try_init());

        let recorder = recorder();
        let metrics = recorder.handle();
        // An error means that another recorder is installed, which stays.
        drop(metrics::set_global_recorder(recorder));
        baton_metrics::register(names::METRICS);
        let built = build::info();
        metrics::gauge!(
            names::BUILD_INFO, "version" => built.version, "commit" => built.commit,
            "built_at" => built.built_at
        )
        .set(1.0);

        Telemetry {
            filter: LogFilter::new(log, text),
            metrics,
            scrapes: Scrapes::default(),
        }
    })
}

/// Waits until Prometheus has read what this process has counted, if it does so regularly; for 12 s
/// at most.
pub async fn next_scrape() {
    if let Some(telemetry) = INSTALLED.get() {
        telemetry.scrapes.next().await;
    }
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr);
    let pretty = match format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    if pretty {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        layer.with_ansi(terminal && !plain).boxed()
    } else {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .boxed()
    }
}

fn is_discreet(target: &str, level: tracing::Level) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    !SILENT.contains(&library) && (level <= tracing::Level::INFO || !TALKATIVE.contains(&library))
}

fn recorder() -> metrics_exporter_prometheus::PrometheusRecorder {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    // The only error is an empty list of bounds.
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &baton_metrics::SECONDS)
        .unwrap_or_else(|_| PrometheusBuilder::new())
        .build_recorder()
}

impl Telemetry {
    /// Returns all metrics in Prometheus' text format 0.0.4, including those of the process.
    pub fn render(&self) -> String {
        let mut text = self.metrics.render();
        for (metric, value) in process_metrics::read() {
            let (name, help, kind) = (metric.name, metric.help, metric.kind.as_str());
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
        self.scrapes.note();
        text
    }

    /// Returns all metrics as OpenMetrics, with exemplars.
    pub fn render_open(&self) -> String {
        open_metrics::of_plain(&self.render(), baton_traces::exemplar)
    }

    /// Folds recorded histogram samples into their buckets. The admin server calls it every few
    /// seconds, because samples pile up otherwise while nothing scrapes.
    pub fn upkeep(&self) {
        self.metrics.run_upkeep();
    }

    /// Returns the current log filter, and the time until it ends.
    pub fn filter(&self) -> (String, Option<Duration>) {
        self.filter.current()
    }

    /// Changes the log filter of the running process: for a time, after which the one before returns, or
    /// until the next change.
    ///
    /// # Errors
    /// If the text is no filter, or the process has another subscriber; the old one stays.
    pub fn set_filter(&self, text: &str, time: Option<Duration>) -> Result<(), SetFilterError> {
        self.filter.set(text, time)
    }

    /// Ends each temporary log filter in its time.
    pub async fn keep_filter_time(&self) -> Infallible {
        self.filter.keep_time().await
    }
}
