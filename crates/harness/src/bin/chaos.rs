//! `make chaos`: breaks real processes under load, and judges what became of the promises.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use baton_harness::chaos::{self, Options};
use baton_harness::checker::{self, History, Judgement};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// For how many minutes things break
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Decides what breaks when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The baton to break
    #[arg(long, default_value = "target/release/baton")]
    baton: PathBuf,
    /// Where histories go, a folder for each seed
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Break nothing: judge the seed's last history again
    #[arg(long)]
    judge: bool,
}

/// A history with less than this proves nothing; each minute, from the first.
const FAULTS_A_MINUTE: f64 = 30.0;
const RUNS_A_MINUTE: f64 = 60.0;
/// How many of the runs must have been answered.
const COMPLETED: f64 = 0.6;
/// How many violations are shown one by one.
const SHOWN: usize = 40;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let folder = args.folder.join(args.seed.to_string());
    let judgement = if args.judge {
        checker::judge(&History::read(&folder)?)
    } else {
        let options = Options {
            baton: args.baton,
            seed: args.seed,
            time: Duration::from_secs_f64(args.minutes * 60.0),
            folder,
        };
        chaos::run(&options).await?
    };
    let void = if args.judge {
        Vec::new()
    } else {
        void(&judgement, args.minutes)
    };
    report(&judgement, &void);
    Ok(if judgement.violations.is_empty() && void.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why the history proves nothing, if it does not.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn void(judgement: &Judgement, minutes: f64) -> Vec<String> {
    let faults = judgement.fault_count() as f64;
    let completed = judgement.completed() as f64;
    let accepted = judgement.accepted as f64;
    let wanted = [
        ("faults fired", faults, FAULTS_A_MINUTE * minutes),
        ("runs completed", completed, RUNS_A_MINUTE * minutes),
        ("of the runs completed", completed, COMPLETED * accepted),
    ];
    wanted
        .into_iter()
        .filter(|(_, have, want)| have < want)
        .map(|(what, have, want)| format!("only {have} {what}, {want:.0} wanted"))
        .collect()
}

#[expect(clippy::print_stdout, reason = "the report is the answer")]
fn report(judgement: &Judgement, void: &[String]) {
    let list = |name: &str, counts: &std::collections::BTreeMap<String, usize>| {
        let counts: Vec<_> = counts
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        println!("{name}: {}", counts.join(", "));
    };
    println!("faults: {}", judgement.fault_count());
    list("  by kind", &judgement.faults);
    println!(
        "runs: {} accepted, {} handed on to another attempt, {} tool calls, {} events followed",
        judgement.accepted, judgement.handed_on, judgement.tool_calls, judgement.events
    );
    list("  by outcome", &judgement.outcomes);
    list("  chats by end", &judgement.chats);
    list("  refusals", &judgement.refused);
    let at = |percent: usize| {
        let index = judgement.pauses.len() * percent / 100;
        let index = index.min(judgement.pauses.len().saturating_sub(1));
        judgement.pauses.get(index).copied().unwrap_or(0)
    };
    println!(
        "longest silence of each followed run, ms: p50 {}, p90 {}, p99 {}, max {}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
    for why in void {
        println!("VOID: {why}");
    }
    println!("violations: {}", judgement.violations.len());
    for violation in judgement.violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
}
