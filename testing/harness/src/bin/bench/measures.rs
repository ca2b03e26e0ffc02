//! The measurements, one function a part of the table.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_harness::load::{Load, LoadReport, Route, Until};
use baton_harness::process_usage::Usage;
use baton_harness::samples::Samples;
use baton_harness::{guards as pairs, ledger_floor, recovery as recoveries, resumes, thread_lists};

use crate::Args;
use crate::stage::{Reports, Stage, Way, check};
use crate::table::{Figures, Table};

fn percentiles(
    table: &mut Table,
    what: impl Fn(usize) -> String,
    reports: &Reports,
    of: impl Fn(&LoadReport) -> &Samples,
) {
    for percent in [50, 99] {
        let time = |report| of(report).percentile(percent);
        let figures = Figures {
            direct: time(&reports.direct),
            bare: Some(time(&reports.bare)),
            baton: time(&reports.baton),
        };
        table.row(&what(percent), &figures, "ms");
    }
}

/// Measures the time to the first token of short answers, by the number of concurrent clients.
pub(crate) async fn latency(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (clients, answers) in [(1, 400), (32, 60), (256, 12)] {
        let until = Until::Answers(answers);
        let reports = stage.all("bench-20-0", clients, until).await?;
        let what = |percent| format!("first token, p{percent}, {clients} at once");
        percentiles(table, what, &reports, |report| &report.first_token);
    }
    Ok(())
}

/// Measures the time from writing a token to reading it, in a paced answer.
pub(crate) async fn pace(stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (clients, answers) in [(1, 3), (32, 3), (256, 2)] {
        let until = Until::Answers(answers);
        let reports = stage.all("bench-100-10", clients, until).await?;
        let what = |percent| format!("each token, p{percent}, {clients} streams of 100/s");
        percentiles(table, what, &reports, |report| &report.token);
    }
    Ok(())
}

/// The processor seconds for 1,000 runs, by process, and the runs in a second.
pub(crate) struct Cost {
    pub(crate) by_process: BTreeMap<String, f64>,
    pub(crate) answers_per_second: f64,
}

impl Cost {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) async fn measure(
        args: &Args,
        stage: &Stage,
        way: Way,
        route: Route,
    ) -> anyhow::Result<Self> {
        let load = |until| Load {
            route,
            ..stage.load(way, "bench-20-0", 64, until)
        };
        check(&load(Until::Answers(5)).run().await?)?;
        let before = stage.usage(way);
        let elapsed = Until::Elapsed(Duration::from_secs(args.seconds));
        let report = load(elapsed).run().await?;
        let after = stage.usage(way);
        check(&report)?;
        let spent = |(name, usage): (&String, &Usage)| {
            let old = before.get(name).map_or(0.0, |usage| usage.cpu_seconds);
            let seconds = usage.cpu_seconds - old;
            (name.clone(), seconds * 1_000.0 / report.answers as f64)
        };
        Ok(Self {
            by_process: after.iter().map(spent).collect(),
            answers_per_second: report.answers_per_second(),
        })
    }

    pub(crate) fn all(&self) -> f64 {
        self.by_process.values().sum()
    }
}

/// Measures short answers in a closed loop, their cost in each process, and the floors of both.
#[expect(clippy::print_stderr, reason = "a missing floor is reported")]
pub(crate) async fn throughput(
    args: &Args,
    stage: &Stage,
    table: &mut Table,
) -> anyhow::Result<()> {
    let direct = Cost::measure(args, stage, Way::Direct, Route::Chat).await?;
    let bare = Cost::measure(args, stage, Way::Bare, Route::Chat).await?;
    let baton = Cost::measure(args, stage, Way::Baton, Route::Chat).await?;
    let rate = Figures {
        direct: direct.answers_per_second,
        bare: Some(bare.answers_per_second),
        baton: baton.answers_per_second,
    };
    table.row("runs in a second, 64 at once", &rate, "1/s");
    for (name, spent) in &baton.by_process {
        let role = name.strip_prefix("baton ").unwrap_or(name);
        let figures = Figures {
            direct: 0.0,
            bare: bare.by_process.get(role).copied(),
            baton: *spent,
        };
        let what = format!("processor time for 1,000 runs, {name}");
        table.row(&what, &figures, "s");
    }
    let figures = Figures {
        direct: 0.0,
        bare: Some(bare.all()),
        baton: baton.all(),
    };
    table.row("processor time for 1,000 runs, all", &figures, "s");
    match ledger_floor::measure(Duration::from_secs(args.seconds)).await {
        Ok(floor) => {
            let what = "PostgreSQL's time for 1,000 runs by pgbench,";
            table.alone(&format!("{what} a row in a commit"), floor.single, "s");
            table.alone(
                &format!("{what} eight rows in a commit"),
                floor.grouped,
                "s",
            );
        }
        Err(error) => eprintln!("no floor of the ledger: {error:#}"),
    }
    Ok(())
}

/// Measures the processor time of responses next to that of chats, in turns, because it changes from
/// minute to minute.
pub(crate) async fn responses(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    const TURNS: u32 = 3;
    let (mut chats, mut responses) = (0.0, 0.0);
    for _ in 0..TURNS {
        for (route, sum) in [
            (Route::Chat, &mut chats),
            (Route::Responses, &mut responses),
        ] {
            let cost = Cost::measure(args, stage, Way::Baton, route).await?;
            *sum += cost.all() / f64::from(TURNS);
        }
    }
    table.alone("processor time for 1,000 chats, all", chats, "s");
    table.alone("processor time for 1,000 responses, all", responses, "s");
    let ratio = responses / chats;
    table.alone("processor time of a response, of a chat's", ratio, "×");
    Ok(())
}

/// Measures the time to the next event after a resume of a finished response.
pub(crate) async fn resume(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    for (model, content) in resumes::MODELS {
        let (url, key) = (&stage.baton, &stage.api_key);
        let measured = resumes::measure(url, key, model, args.resumes).await?;
        let after = measured.after;
        for percent in [50, 99] {
            let what = format!(
                "finished response ({content}) resumed after event {after}, first event, p{percent}"
            );
            table.alone(&what, measured.first_event.percentile(percent), "ms");
        }
    }
    Ok(())
}

/// Measures lists of threads and of their messages at the ledger.
pub(crate) async fn threads(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let (threads, messages) = (args.threads[0], args.threads[1]);
    let lists = thread_lists::measure(threads, messages).await?;
    for (what, samples) in [
        ("a page of 20 threads", &lists.threads),
        (
            "a page of 20 threads, at the server",
            &lists.threads_at_server,
        ),
        ("a page of 100 messages", &lists.messages),
        (
            "a page of 100 messages, at the server",
            &lists.messages_at_server,
        ),
        ("the one thread with a title", &lists.by_title),
        ("the one thread with a metadata field", &lists.by_metadata),
    ] {
        for (name, percent) in [("p50", 50), ("max", 100)] {
            let what = format!("{threads} threads of {messages} messages: {what}, {name}");
            table.alone(&what, samples.percentile(percent), "ms");
        }
    }
    Ok(())
}

/// Measures the time that authentication and a rate limit add to a request; the first column is
/// without and the third with it.
pub(crate) async fn guards(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let guards = pairs::measure(&stage.baton, &stage.api_key, args.pairs).await?;
    for (what, pair) in [
        ("authentication, cached", &guards.authentication),
        ("rate limit, one request at a time", &guards.rate),
        ("rate limit, 8 callers at once", &guards.rate_of_many),
        ("rate limit, 8 clients of one caller", &guards.rate_of_one),
    ] {
        for percent in [50, 99] {
            let micros = |samples: &Samples| samples.percentile(percent) * 1_000.0;
            let figures = Figures {
                direct: micros(&pair.without),
                bare: None,
                baton: micros(&pair.with),
            };
            table.row(&format!("{what}, p{percent}"), &figures, "µs");
        }
    }
    Ok(())
}

/// The memory of each process with many open streams, and the cores that they keep busy.
struct Held {
    memory: BTreeMap<String, u64>,
    cores: f64,
}

impl Held {
    /// Holds streams of a token a second open.
    async fn measure(stage: &Stage, way: Way, count: usize) -> anyhow::Result<Self> {
        let load = stage.load(way, "bench-25-1000", count, Until::Answers(1));
        let (report, (peak, during)) = tokio::join!(load.run(), async {
            // All are open after ten seconds; they last twenty-five.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let peak = stage.usage(way);
            tokio::time::sleep(Duration::from_secs(10)).await;
            (peak, stage.usage(way))
        });
        check(&report?)?;
        let seconds = |usage: &BTreeMap<String, Usage>| -> f64 {
            usage.values().map(|usage| usage.cpu_seconds).sum()
        };
        Ok(Self {
            cores: (seconds(&during) - seconds(&peak)) / 10.0,
            memory: peak
                .into_iter()
                .map(|(name, usage)| (name, usage.memory))
                .collect(),
        })
    }
}

/// The growth of memory with each stream between two numbers of streams, in KiB, by process.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn growth(few: &Held, many: &Held, streams: usize) -> BTreeMap<String, f64> {
    let of = |(name, memory): (&String, &u64)| {
        let old = few.memory.get(name).copied().unwrap_or(0);
        let added = memory.saturating_sub(old) as f64 / streams as f64 / 1024.0;
        (name.clone(), added)
    };
    many.memory.iter().map(of).collect()
}

/// Measures many streams of a token a second: the memory that each one more takes, so that a
/// start's own share drops out, and the processors that they keep busy.
pub(crate) async fn streams(args: &Args, stage: &Stage, table: &mut Table) -> anyhow::Result<()> {
    let (few, many) = (args.streams[0], args.streams[1]);
    let mut grown = Vec::new();
    let mut cores = Vec::new();
    for way in [Way::Bare, Way::Baton] {
        let small = Held::measure(stage, way, few).await?;
        let large = Held::measure(stage, way, many).await?;
        grown.push(growth(&small, &large, many.saturating_sub(few).max(1)));
        cores.push(large.cores);
    }
    let (bare, baton) = (&grown[0], &grown[1]);
    for (name, added) in baton {
        let role = name.strip_prefix("baton ").unwrap_or(name);
        let figures = Figures {
            direct: 0.0,
            bare: bare.get(role).copied(),
            baton: *added,
        };
        let what = format!("memory for each stream between {few} and {many}, {name}");
        table.row(&what, &figures, "KiB");
    }
    let figures = Figures {
        direct: 0.0,
        bare: Some(bare.values().sum()),
        baton: baton.values().sum(),
    };
    table.row("memory for each stream, all processes", &figures, "KiB");
    let figures = Figures {
        direct: 0.0,
        bare: Some(cores[0]),
        baton: cores[1],
    };
    table.row(
        &format!("processors busy with {many} streams"),
        &figures,
        "cores",
    );
    Ok(())
}

/// Measures the pauses that clients see after a killed worker, a deploy under load and a killed
/// ingress, with the default settings.
pub(crate) async fn recovery(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let recovery = recoveries::measure(&args.baton, args.recoveries).await?;
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
            table.alone(
                &format!("{what}, {name}"),
                samples.percentile(percent),
                "ms",
            );
        }
    }
    Ok(())
}
