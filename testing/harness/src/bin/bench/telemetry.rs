//! The processor time of metrics, logs and spans, as a part of a run's.

use std::collections::BTreeMap;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use baton_harness::load::Route;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Args;
use crate::measures::Cost;
use crate::stage::{Stage, Way};
use crate::table::Table;

/// The number of times that each deployment is measured, in turns: processor time changes from minute to minute.
const TURNS: usize = 5;

/// The number of measured operations on a metric.
const OPERATIONS: u32 = 400_000;

/// Measures deployments in turns: without log lines, with those of the default level, with spans as well, and with spans
/// of which none is sampled, which are held in case their trace fails. Metrics cannot be switched off: their operations
/// are counted by the roles' own metrics, and one is measured.
pub(crate) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let (receiver, _serving) = receiver().await?;
    let (silent, info) = (("RUST_LOG", "off"), ("RUST_LOG", "info"));
    let traced = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver);
    let sampler = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let mut variants = [
        Variant::start("without log lines", args, &[silent]).await?,
        Variant::start("log level info", args, &[info]).await?,
        Variant::start("spans sent", args, &[info, traced]).await?,
        Variant::start(
            "spans held",
            args,
            &[&[info, traced], &sampler[..]].concat(),
        )
        .await?,
    ];
    let mut operations = Vec::new();
    for _ in 0..TURNS {
        for variant in &mut variants {
            operations.push(variant.turn(args).await?);
        }
    }
    for variant in &variants {
        let what = "processor time for 1,000 runs";
        let name = variant.name;
        table.alone(&format!("{what}, all, {name}"), median(&variant.all), "s");
        let roles = median(&variant.roles);
        table.alone(&format!("{what}, Baton's processes, {name}"), roles, "s");
    }
    let [silent, logged, sent, held] = &variants;
    let whole = median(&logged.all);
    let done = median(&operations);
    let nanos = nanos_of_operation()?;
    table.alone("operations on metrics in a run", done, "");
    table.alone("processor time of an operation on a metric", nanos, "ns");
    // A thousand runs of so many nanoseconds each.
    let metrics = done * nanos * 1e-6;
    for (what, seconds) in [
        ("metrics", metrics),
        ("log level info", logged.more_than(silent)),
        ("spans sent", sent.more_than(logged)),
        ("spans held", held.more_than(logged)),
    ] {
        let percent = seconds / whole * 100.0;
        table.alone(&format!("{what}, of a run's processor time"), percent, "%");
    }
    for variant in variants {
        variant.stage.strike().await?;
    }
    Ok(())
}

/// A deployment, with the processor time for 1,000 runs in each turn: of all processes, and of Baton's.
struct Variant {
    name: &'static str,
    stage: Stage,
    all: Vec<f64>,
    roles: Vec<f64>,
}

impl Variant {
    async fn start(
        name: &'static str,
        args: &Args,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            stage: Stage::with(args, 1, environment).await?,
            all: Vec::new(),
            roles: Vec::new(),
        })
    }

    /// Measures once. Returns the operations on metrics in a run.
    async fn turn(&mut self, args: &Args) -> anyhow::Result<f64> {
        let before = counts(&self.stage).await?;
        let cost = Cost::measure(args, &self.stage, Way::Baton, Route::Chat).await?;
        self.all.push(cost.all());
        let of_roles = cost.by_process.iter();
        let of_roles = of_roles.filter(|(name, _)| name.starts_with("baton "));
        self.roles.push(of_roles.map(|(_, seconds)| seconds).sum());
        operations_between(&before, &counts(&self.stage).await?)
    }

    /// Returns the time that Baton's processes take beyond those of the other deployment: the median of the turns.
    fn more_than(&self, other: &Self) -> f64 {
        let turns = self.roles.iter().zip(&other.roles);
        median(&turns.map(|(more, less)| more - less).collect::<Vec<_>>())
    }
}

/// Starts a receiver that takes spans and forgets them.
async fn receiver() -> anyhow::Result<(String, JoinSet<()>)> {
    let router = Router::new().route("/v1/traces", post(|_: Bytes| async {}));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        // It ends with the measurement.
        let _ended = axum::serve(listener, router).await;
    });
    Ok((url, serving))
}

/// Returns the counters of the ingress and the worker, and the counts of their histograms.
async fn counts(stage: &Stage) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut counts = BTreeMap::new();
    for (number, url) in stage.admin.iter().enumerate() {
        let text = reqwest::get(format!("{url}/metrics")).await?.text().await?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let name = series.split('{').next().unwrap_or_default();
            // These grow by more than one in an operation.
            let is_amount =
                name.contains("tokens") || name.contains("nanos") || name.contains("cpu");
            if (name.ends_with("_total") || name.ends_with("_count")) && !is_amount {
                counts.insert(format!("{number} {series}"), value.parse()?);
            }
        }
    }
    Ok(counts)
}

/// Returns the number of operations for each run between two readings. Gauges do not show how often they were set: a
/// run sets eight, for its connection, stream, body, slot and database connections; the amounts are five more.
fn operations_between(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> anyhow::Result<f64> {
    const UNSEEN: f64 = 2.0 * 8.0 + 5.0;
    let grown = |(series, value): (&String, &f64)| value - before.get(series).unwrap_or(&0.0);
    let all: f64 = after.iter().map(grown).sum();
    let ended = after
        .iter()
        .filter(|(series, _)| series.contains("baton_runs_ended_total"));
    let runs: f64 = ended.map(grown).sum();
    anyhow::ensure!(runs > 0.0, "no run has ended");
    Ok(all / runs + UNSEEN)
}

/// Measures an operation, as the roles do it: half of them on counters and half on histograms, with two labels, and
/// with the folding of samples into buckets.
fn nanos_of_operation() -> anyhow::Result<f64> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.01, 0.1, 1.0, 10.0])?
        .build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let begun = processor_nanos()?;
        for number in 0..OPERATIONS / 2 {
            let status = if number.is_multiple_of(2) {
                "200"
            } else {
                "404"
            };
            metrics::counter!("bench_total", "method" => "POST", "status" => status.to_owned())
                .increment(1);
            metrics::histogram!("bench_seconds", "method" => "POST", "route" => "/v1")
                .record(f64::from(number) * 1e-6);
            if number.is_multiple_of(1_000) {
                handle.run_upkeep();
            }
        }
        let nanos = processor_nanos()? - begun;
        Ok(nanos / f64::from(OPERATIONS))
    })
}

/// Returns the processor time of this thread in nanoseconds.
fn processor_nanos() -> anyhow::Result<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = statistics.split_whitespace().next();
    Ok(nanos
        .context("/proc/thread-self/schedstat is empty")?
        .parse()?)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
