//! `make chaos`: breaks real processes under load, and judges what became of the promises.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use baton_harness::chaos::cast::Cast;
use baton_harness::chaos::plan::{Emphasis, REQUIRED};
use baton_harness::chaos::{self, Options};
use baton_harness::checker::{self, Judgement};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// For how many minutes things break
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Decides what breaks when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults in a minute, on average
    #[arg(long, default_value_t = 90.0)]
    faults_per_minute: f64,
    /// The emphasis of the faults
    #[arg(long, value_enum, default_value_t)]
    emphasis: Emphasis,
    /// Invariants, such as I4,I9: good is a run that breaks one of them, as a baton without one of its
    /// mechanisms must
    #[arg(long, value_delimiter = ',')]
    expect: Vec<String>,
    /// Leave out hostile clients and programs, keys that end, and people who sign in
    #[arg(long)]
    without_strangers: bool,
    /// How many clients ask at once
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Conversations that begin in a second, at most; without it, as many as come
    #[arg(long)]
    runs_per_second: Option<f64>,
    /// The history proves nothing with fewer faults [default: 15 a minute]
    #[arg(long)]
    min_faults: Option<usize>,
    /// The history proves nothing with fewer completed runs [default: 30 a minute]
    #[arg(long)]
    min_runs: Option<usize>,
    /// The baton to break
    #[arg(long, default_value = "target/release/baton")]
    baton: PathBuf,
    /// Where histories go, a folder for each seed
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Keep the history of a run that is found good, too
    #[arg(long)]
    keep: bool,
    /// Break nothing: judge the seed's last history again
    #[arg(long)]
    judge: bool,
}

/// A run of so many minutes is void if any kind of fault or attack has not occurred.
const LONG: f64 = 20.0;
/// How many of the runs must have been answered.
const COMPLETED: f64 = 0.5;
/// Limit for accepted runs to end once nothing is broken.
const CALM: Duration = Duration::from_secs(90);
/// The same where a violation is expected: the runs that do end are not what is looked for.
const CALM_IF_BROKEN: Duration = Duration::from_secs(20);
/// How many violations are shown one by one.
const SHOWN: usize = 40;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut ended = signal(SignalKind::terminate())?;
    tokio::select! {
        result = judge(&args) => result,
        // Returning stops all that was started; being ended by the signal would not.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = ended.recv() => bail!("told to stop"),
    }
}

async fn judge(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = args.folder.join(args.seed.to_string());
    let (judgement, void) = if args.judge {
        (checker::judge_folder(&folder)?, Vec::new())
    } else {
        let options = Options {
            baton: args.baton.clone(),
            seed: args.seed,
            time: Duration::from_secs_f64(args.minutes * 60.0),
            pause: Duration::from_secs_f64(60.0 / args.faults_per_minute),
            emphasis: args.emphasis,
            calm: if args.expect.is_empty() {
                CALM
            } else {
                CALM_IF_BROKEN
            },
            clients: args.clients,
            strangers: !args.without_strangers,
            per_second: args.runs_per_second,
            folder: folder.clone(),
        };
        let judgement = chaos::run(&options).await?;
        let void = void(&judgement, args);
        (judgement, void)
    };
    report(&judgement, args, &void);
    let good = if args.expect.is_empty() {
        judgement.violations.is_empty() && void.is_empty()
    } else {
        let mut violations = judgement.violations.iter();
        violations.any(|violation| args.expect.iter().any(|name| name == violation.invariant))
    };
    if good && !args.keep && !args.judge {
        std::fs::remove_dir_all(&folder)?;
        // Not if there is another seed's history in it.
        let _kept = std::fs::remove_dir(&args.folder);
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why the history proves nothing, if it does not.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn void(judgement: &Judgement, args: &Args) -> Vec<String> {
    let least = |given: Option<usize>, a_minute: f64| {
        given.map_or(a_minute * args.minutes, |given| given as f64)
    };
    let completed = judgement.completed() as f64;
    let wanted = [
        (
            "faults fired",
            judgement.fault_count() as f64,
            least(args.min_faults, 15.0),
        ),
        ("runs completed", completed, least(args.min_runs, 30.0)),
        (
            "of the runs completed",
            completed,
            COMPLETED * judgement.accepted as f64,
        ),
    ];
    let wanted = wanted
        .into_iter()
        .filter(|(_, have, want)| have < want)
        .map(|(what, have, want)| format!("only {have} {what}, {want:.0} wanted"));
    let counts = [&judgement.faults, &judgement.attacks, &judgement.doings];
    let missing = REQUIRED
        .into_iter()
        .chain(Cast::required())
        .filter(|kind| args.minutes >= LONG && !counts.iter().any(|all| all.contains_key(*kind)))
        .map(|kind| format!("no \"{kind}\" in so long a run"));
    wanted.chain(missing).collect()
}

#[expect(clippy::print_stdout, reason = "the report is the answer")]
fn report(judgement: &Judgement, args: &Args, void: &[String]) {
    println!("seed {}, {} minutes", args.seed, args.minutes);
    println!("faults: {}", judgement.fault_count());
    list("  by kind", &judgement.faults);
    list("attacks", &judgement.attacks);
    list("also", &judgement.doings);
    println!(
        "runs: {} accepted, {} ended, {} of them by a second or later attempt, {} takeovers; \
         {} tool calls, {} events followed",
        judgement.accepted,
        judgement.ended(),
        judgement.handed_on,
        judgement.takeovers,
        judgement.tool_calls,
        judgement.events
    );
    list("  by outcome", &judgement.outcomes);
    list("  decided by the operator", &judgement.decisions);
    list("  chats by end", &judgement.chats);
    list("  refusals", &judgement.refused);
    println!(
        "logs that may have been lost before they were read: {}; followers that were told so: {}",
        judgement.log_lost, judgement.expired
    );
    times("longest silence of each followed run", &judgement.pauses);
    times(
        "silence before each attempt that followed another",
        &judgement.recoveries,
    );
    list("ends of processes", &judgement.ends);
    let memory = judgement.memory.iter();
    let memory: Vec<_> = memory
        .map(|(role, bytes)| format!("{role} {}", bytes >> 20))
        .collect();
    println!("most memory, MiB: {}", memory.join(", "));
    for why in void {
        println!("VOID: {why}");
    }
    println!("violations: {}", judgement.violations.len());
    let mut by_invariant: BTreeMap<_, usize> = BTreeMap::new();
    for violation in &judgement.violations {
        *by_invariant.entry(violation.invariant).or_default() += 1;
    }
    if !by_invariant.is_empty() {
        list("  by invariant", &by_invariant);
    }
    for violation in judgement.violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
}

#[expect(clippy::print_stdout, reason = "the report is the answer")]
fn list(name: &str, counts: &BTreeMap<impl std::fmt::Display, usize>) {
    let counts: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    println!("{name}: {}", counts.join("; "));
}

#[expect(clippy::print_stdout, reason = "the report is the answer")]
fn times(name: &str, sorted: &[u64]) {
    let at = |percent: usize| {
        let index = sorted.len() * percent / 100;
        let index = index.min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or(0)
    };
    println!(
        "{name}, ms: p50 {}, p90 {}, p99 {}, max {}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}
