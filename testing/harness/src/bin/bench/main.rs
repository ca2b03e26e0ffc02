//! `make bench`: measures the cost that Baton adds to an upstream, all in one run.
//!
//! The upstream, the load and Baton share the machine. So each figure is next to two others that
//! were measured just before it, of the upstream alone and of a bare pipe over the broker: ratios
//! hold even if absolute times drift.

mod growth;
mod measures;
mod soak;
mod stage;
mod table;
mod telemetry;

use std::path::PathBuf;

use baton_harness::{bare_pipe, bench_upstream};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

use stage::Stage;
use table::Table;

#[derive(Parser)]
pub(crate) struct Args {
    /// The baton to measure
    #[arg(long, default_value = "target/dist/baton")]
    baton: PathBuf,
    /// The JSON file for the figures
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Seconds of each closed-loop throughput measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The numbers of slow streams to hold open, first the fewer
    #[arg(long, value_delimiter = ',', default_value = "500,2000", num_args = 2)]
    streams: Vec<usize>,
    /// The number of measurements of each recovery
    #[arg(long, default_value_t = 5)]
    recoveries: usize,
    /// The number of pairs of requests for each guard
    #[arg(long, default_value_t = 4_000)]
    pairs: usize,
    /// The number of resumes of a finished response
    #[arg(long, default_value_t = 200)]
    resumes: usize,
    /// The number of threads to list, and of the messages of each
    #[arg(long, value_delimiter = ',', default_value = "10000,100", num_args = 2)]
    threads: Vec<usize>,
    /// The minutes of the soak
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only these parts, with commas between: streams, latency, pace, throughput, responses,
    /// resume, guards, threads, recovery; and growth, soak and telemetry, which are measured on request only
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The upstream alone; prints its port
    Upstream,
    /// The ingress of the bare pipe; prints its port
    BareIngress {
        /// The address of its nats-server
        nats: String,
    },
    /// The worker of the bare pipe
    BareWorker {
        /// The address of its nats-server
        nats: String,
        /// The upstream's address, with `/v1`
        upstream: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match &args.command {
        Some(Part::Upstream) => bench_upstream::serve(listen().await?).await,
        Some(Part::BareIngress { nats }) => bare_pipe::ingress(nats, listen().await?).await,
        Some(Part::BareWorker { nats, upstream }) => {
            println_line("ready");
            bare_pipe::worker(nats, upstream).await
        }
        None => bench(&args).await,
    }
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println_line(&listener.local_addr()?.port().to_string());
    Ok(listener)
}

#[expect(clippy::print_stdout, reason = "the parent process reads the line")]
fn println_line(line: &str) {
    println!("{line}");
}

/// The parts that are measured on one deployment.
const STAGED: [&str; 7] = [
    "streams",
    "latency",
    "pace",
    "throughput",
    "responses",
    "resume",
    "guards",
];

async fn bench(args: &Args) -> anyhow::Result<()> {
    // The client of resumes wants a provider although it speaks plain HTTP.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut table = Table::begin();
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    if STAGED.into_iter().any(wanted) {
        let stage = Stage::set(args, 1).await?;
        // First, because the allocator keeps memory that a load has had.
        if wanted("streams") {
            measures::streams(args, &stage, &mut table).await?;
        }
        if wanted("latency") {
            measures::latency(&stage, &mut table).await?;
        }
        if wanted("pace") {
            measures::pace(&stage, &mut table).await?;
        }
        if wanted("throughput") {
            measures::throughput(args, &stage, &mut table).await?;
        }
        if wanted("responses") {
            measures::responses(args, &stage, &mut table).await?;
        }
        if wanted("resume") {
            measures::resume(args, &stage, &mut table).await?;
        }
        if wanted("guards") {
            measures::guards(args, &stage, &mut table).await?;
        }
        stage.strike().await?;
    }
    if wanted("threads") {
        measures::threads(args, &mut table).await?;
    }
    if wanted("recovery") {
        measures::recovery(args, &mut table).await?;
    }
    let asked = |part: &str| args.only.iter().any(|only| only == part);
    if asked("growth") {
        growth::measure(args, &mut table).await?;
    }
    if asked("soak") {
        soak::measure(args, &mut table).await?;
    }
    if asked("telemetry") {
        Box::pin(telemetry::measure(args, &mut table)).await?;
    }
    std::fs::write(&args.json, format!("{:#}\n", table.into_json()))?;
    Ok(())
}
