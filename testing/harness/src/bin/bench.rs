//! `make bench`: measures the cost that Baton adds to an upstream, all in one run.
//!
//! The upstream, the load and Baton share the machine. So each figure is next to a direct one that
//! was measured just before it: ratios hold even if absolute times drift.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_harness::load::{Load, LoadReport, Until};
use baton_harness::process_usage::{self, Usage};
use baton_harness::samples::Samples;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

#[derive(Parser)]
struct Args {
    /// The baton to measure
    #[arg(long, default_value = "target/release/baton")]
    baton: PathBuf,
    /// The JSON file for the figures
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Seconds of each closed-loop throughput measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The number of slow streams to hold open
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// The number of measurements of each recovery
    #[arg(long, default_value_t = 5)]
    recoveries: usize,
    /// The number of pairs of requests for each guard
    #[arg(long, default_value_t = 4_000)]
    pairs: usize,
    /// Only these parts, with commas between: latency, pace, throughput, guards, streams,
    /// recovery
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The upstream alone; prints its port
    Upstream,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.command {
        Some(Part::Upstream) => upstream().await,
        None => bench(&args).await,
    }
}

#[expect(clippy::print_stdout, reason = "the port is the answer")]
async fn upstream() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    baton_harness::bench_upstream::serve(listener).await
}

/// Baton and its upstream, each in its own processes.
struct Stage {
    direct: String,
    baton: String,
    api_key: String,
    dev: Child,
    upstream: Child,
    _data: tempfile::TempDir,
}

impl Stage {
    async fn set(args: &Args) -> anyhow::Result<Self> {
        let mut upstream = Command::new(std::env::current_exe()?)
            .arg("upstream")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = upstream
            .stdout
            .take()
            .context("the upstream has no output")?;
        let mut port = String::new();
        BufReader::new(stdout).read_line(&mut port).await?;
        let direct = format!("http://127.0.0.1:{}/v1", port.trim());
        let data = tempfile::tempdir()?;
        let ready_file = data.path().join("ready.json");
        let log = std::fs::File::create("target/bench.log")?;
        let mut dev = Command::new(&args.baton)
            .args(["dev", "--separate", "--http", "127.0.0.1:0", "--data"])
            .arg(data.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .env("LLM_BASE_URL", &direct)
            .env("RUST_LOG", "warn")
            .env("BATON_WORKER__SLOTS", "4096")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", args.baton.display()))?;
        let ready = wait_for(&ready_file, &mut dev).await?;
        let field = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            direct,
            baton: format!("{}/v1", field("base_url")),
            api_key: field("api_key"),
            dev,
            upstream,
            _data: data,
        })
    }

    fn load(&self, through_baton: bool, model: &str, clients: usize, until: Until) -> Load {
        Load {
            base_url: if through_baton {
                self.baton.clone()
            } else {
                self.direct.clone()
            },
            api_key: through_baton.then(|| self.api_key.clone()),
            model: model.to_owned(),
            clients,
            until,
        }
    }

    /// Runs the same load directly and through Baton.
    async fn both(
        &self,
        model: &str,
        clients: usize,
        until: Until,
    ) -> anyhow::Result<(LoadReport, LoadReport)> {
        // Connections, statements and pools are set up once in a server's life, so they are not
        // measured.
        self.load(true, model, clients, Until::Answers(2))
            .run()
            .await?;
        let direct = self.load(false, model, clients, until).run().await?;
        let baton = self.load(true, model, clients, until).run().await?;
        check(&direct)?;
        check(&baton)?;
        Ok((direct, baton))
    }

    fn usage(&self) -> BTreeMap<String, Usage> {
        process_usage::by_name(self.dev.id().unwrap_or_default(), "baton dev")
    }

    async fn strike(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.dev.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        let status = self.dev.wait().await?;
        self.upstream.kill().await?;
        if !status.success() {
            bail!("baton dev ended with {status}: see target/bench.log");
        }
        Ok(())
    }
}

async fn wait_for(ready_file: &Path, dev: &mut Child) -> anyhow::Result<Value> {
    loop {
        if let Ok(text) = std::fs::read_to_string(ready_file) {
            return Ok(serde_json::from_str(&text)?);
        }
        if let Some(status) = dev.try_wait()? {
            bail!("baton dev ended with {status}: see target/bench.log");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check(report: &LoadReport) -> anyhow::Result<()> {
    if report.failed > 0 {
        let why = report.first_failure.as_deref().unwrap_or("unknown");
        bail!("{} of the requests failed, the first: {why}", report.failed);
    }
    Ok(())
}

/// A table, formatted both for the terminal and for Markdown.
struct Table {
    rows: Vec<String>,
    json: serde_json::Map<String, Value>,
}

impl Table {
    #[expect(clippy::print_stdout, reason = "the table is the answer")]
    fn row(&mut self, what: &str, direct: f64, baton: f64, unit: &str) {
        let ratio = if direct > 0.0 {
            format!("{:.2}", baton / direct)
        } else {
            "–".to_owned()
        };
        let row = format!(
            "| {what} | {direct:.2} | {baton:.2} | {:.2} | {ratio} | {unit} |",
            baton - direct
        );
        println!("{row}");
        self.rows.push(row);
        self.json.insert(
            what.to_owned(),
            json!({"direct": direct, "baton": baton, "unit": unit}),
        );
    }
}

#[expect(clippy::print_stdout, reason = "the table is the answer")]
async fn bench(args: &Args) -> anyhow::Result<()> {
    let mut table = Table {
        rows: Vec::new(),
        json: serde_json::Map::new(),
    };
    println!("| what | direct | baton | added | ratio | unit |\n|--|--|--|--|--|--|");
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    if ["latency", "pace", "throughput", "guards", "streams"]
        .into_iter()
        .any(wanted)
    {
        let stage = Stage::set(args).await?;
        if wanted("latency") {
            latency(&stage, &mut table).await?;
        }
        if wanted("pace") {
            pace(&stage, &mut table).await?;
        }
        if wanted("throughput") {
            throughput(args, &stage, &mut table).await?;
        }
        if wanted("guards") {
            guards(args, &stage, &mut table).await?;
        }
        if wanted("streams") {
            streams(args, &stage, &mut table).await?;
        }
        stage.strike().await?;
    }
    if wanted("recovery") {
        recovery(args, &mut table).await?;
    }
    std::fs::write(&args.json, format!("{:#}\n", Value::Object(table.json)))?;
    Ok(())
}

/// Measures the time to the first token of short answers, by the number of concurrent clients.
async fn latency(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (clients, answers) in [(1, 400), (32, 60), (256, 12)] {
        let (direct, baton) = stage
            .both("bench-20-0", clients, Until::Answers(answers))
            .await?;
        for percent in [50, 99] {
            table.row(
                &format!("first token, p{percent}, {clients} at once"),
                direct.first_token.percentile(percent),
                baton.first_token.percentile(percent),
                "ms",
            );
        }
    }
    Ok(())
}

/// Measures the time from writing a token to reading it, in a paced answer.
async fn pace(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (clients, answers) in [(1, 3), (32, 3), (256, 2)] {
        let (direct, baton) = stage
            .both("bench-100-10", clients, Until::Answers(answers))
            .await?;
        for percent in [50, 99] {
            table.row(
                &format!("each token, p{percent}, {clients} streams of 100/s"),
                direct.token.percentile(percent),
                baton.token.percentile(percent),
                "ms",
            );
        }
    }
    Ok(())
}

/// Measures short answers in a closed loop, and their cost in each process.
#[expect(clippy::print_stdout, reason = "the table is the answer")]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn throughput(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let elapsed = Until::Elapsed(Duration::from_secs(args.seconds));
    stage
        .load(true, "bench-20-0", 64, Until::Answers(5))
        .run()
        .await?;
    let direct = stage.load(false, "bench-20-0", 64, elapsed).run().await?;
    let before = stage.usage();
    let baton = stage.load(true, "bench-20-0", 64, elapsed).run().await?;
    let after = stage.usage();
    check(&direct)?;
    check(&baton)?;
    table.row(
        "runs in a second, 64 at once",
        direct.answers_per_second(),
        baton.answers_per_second(),
        "1/s",
    );
    let mut sum = 0.0;
    for (name, usage) in &after {
        let spent = usage.cpu_seconds - before.get(name).map_or(0.0, |usage| usage.cpu_seconds);
        let per_thousand = spent * 1_000.0 / baton.answers as f64;
        sum += per_thousand;
        table.row(
            &format!("processor time for 1,000 runs, {name}"),
            0.0,
            per_thousand,
            "s",
        );
    }
    table.row("processor time for 1,000 runs, all", 0.0, sum, "s");
    println!(
        "({} runs, every one a committed row and a stored log)",
        baton.answers
    );
    Ok(())
}

/// Measures the time that authentication and a rate limit add to a request; the columns are without
/// and with it.
async fn guards(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let guards = baton_harness::guards::measure(&stage.baton, &stage.api_key, args.pairs).await?;
    for (what, pair) in [
        ("authentication, cached", &guards.authentication),
        ("rate limit, one request at a time", &guards.rate),
        ("rate limit, 8 callers at once", &guards.rate_of_many),
        ("rate limit, 8 clients of one caller", &guards.rate_of_one),
    ] {
        for percent in [50, 99] {
            let micros = |samples: &Samples| samples.percentile(percent) * 1_000.0;
            table.row(
                &format!("{what}, p{percent}"),
                micros(&pair.without),
                micros(&pair.with),
                "µs",
            );
        }
    }
    Ok(())
}

/// Measures many streams of a token a second, and the cost of each while it is open.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
async fn streams(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let load = stage.load(true, "bench-25-1000", args.streams, Until::Answers(1));
    let before = stage.usage();
    let (report, (peak, during)) = tokio::join!(load.run(), async {
        // All are open after ten seconds; they last twenty-five.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let peak = stage.usage();
        tokio::time::sleep(Duration::from_secs(10)).await;
        (peak, stage.usage())
    });
    check(&report?)?;
    let (mut memory, mut cpu) = (0.0, 0.0);
    for (name, usage) in &peak {
        let old = before.get(name).map_or(0, |usage| usage.memory);
        let added = usage.memory.saturating_sub(old) as f64 / args.streams as f64 / 1024.0;
        let spent = during.get(name).map_or(0.0, |later| later.cpu_seconds) - usage.cpu_seconds;
        if name.starts_with("baton") {
            memory += added;
        }
        cpu += spent / 10.0;
        table.row(
            &format!("memory for each of {} slow streams, {name}", args.streams),
            0.0,
            added,
            "KiB",
        );
    }
    table.row(
        "memory for each slow stream, all of Baton's processes",
        0.0,
        memory,
        "KiB",
    );
    table.row("processors busy with them, everything", 0.0, cpu, "cores");
    Ok(())
}

/// Measures the pauses that clients see after a killed worker, a deploy under load and a killed
/// ingress, with the default settings.
async fn recovery(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let recovery = baton_harness::recovery::measure(&args.baton, args.recoveries).await?;
    let rows = [
        (
            "worker killed, to the next attempt's first event",
            &recovery.takeover,
        ),
        (
            "worker told to stop under load, to its end",
            &recovery.drain,
        ),
        (
            "the same, longest silence of each of its streams",
            &recovery.pause,
        ),
        (
            "ingress killed, to the next event at another",
            &recovery.resume,
        ),
    ];
    for (what, samples) in rows {
        for (name, percent) in [("p50", 50), ("max", 100)] {
            let time = samples.percentile(percent);
            table.row(&format!("{what}, {name}"), 0.0, time, "ms");
        }
    }
    Ok(())
}
