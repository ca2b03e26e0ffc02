//! `make chaos`: breaks real processes under load, and judges whether the promises were kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use baton_harness::chaos::cast::Cast;
use baton_harness::chaos::plan::{Emphasis, REQUIRED};
use baton_harness::chaos::{self, Options};
use baton_harness::checker::{self, Judgement};
use baton_invariants::Invariant;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// The minutes during which things break
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The seed of the schedule of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults in a minute, on average
    #[arg(long, default_value_t = 90.0)]
    faults_per_minute: f64,
    /// The emphasis of the faults
    #[arg(long, value_enum, default_value_t)]
    emphasis: Emphasis,
    /// Expected violations, such as I4,I9: the run succeeds if it breaks one of them, as a baton
    /// without one of its mechanisms must
    #[arg(long, value_delimiter = ',')]
    expect: Vec<Invariant>,
    /// Leave out hostile clients and programs, expiring keys, and people who sign in
    #[arg(long)]
    without_strangers: bool,
    /// The number of concurrent clients
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// The most conversations that begin in a second; without it, no limit
    #[arg(long)]
    runs_per_second: Option<f64>,
    /// The fewest faults for a valid history [default: 15 a minute]
    #[arg(long)]
    min_faults: Option<usize>,
    /// The fewest completed runs for a valid history [default: 30 a minute]
    #[arg(long)]
    min_runs: Option<usize>,
    /// The baton to break
    #[arg(long, default_value = "target/release/baton")]
    baton: PathBuf,
    /// An earlier version of it: the database begins as its own and is then migrated, and each role
    /// changes between the two versions whenever it is started
    #[arg(long)]
    older: Option<PathBuf>,
    /// The folder for histories, with a subfolder for each seed
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// Keep the history of a good run too
    #[arg(long)]
    keep: bool,
    /// Break nothing, and judge the seed's last history again
    #[arg(long)]
    judge: bool,
}

/// A run of this many minutes is void if any kind of fault or attack has not occurred.
const LONG: f64 = 20.0;
/// The share of the runs that must have been answered.
const COMPLETED: f64 = 0.5;
/// The time for accepted runs to end once nothing is broken.
const CALM: Duration = Duration::from_secs(90);
/// The same if a violation is expected: then the runs that do end are of no interest.
const CALM_IF_BROKEN: Duration = Duration::from_secs(20);
/// The number of violations that are listed one by one.
const SHOWN: usize = 40;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut ended = signal(SignalKind::terminate())?;
    tokio::select! {
        result = judge(&args) => result,
        // Returning stops everything that was started; dying of the signal would not.
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
            older: args.older.clone(),
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
        violations.any(|violation| args.expect.contains(&violation.invariant))
    };
    if good && !args.keep && !args.judge {
        std::fs::remove_dir_all(&folder)?;
        // This fails if the folder holds another seed's history, and then it must stay.
        let _kept = std::fs::remove_dir(&args.folder);
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the reasons why the history proves nothing.
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
