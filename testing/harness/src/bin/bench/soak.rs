//! Half the load for several minutes: memory and latency at the end beside those of the first minute.

use std::time::Duration;

use baton_harness::load::{LoadReport, Route, Until};

use crate::Args;
use crate::measures::Cost;
use crate::stage::{Stage, Way, check};
use crate::table::{Figures, Table};

/// Twenty tokens in a second.
const MODEL: &str = "bench-20-50";
const MINUTE: Duration = Duration::from_mins(1);

/// Measures how memory and the time to the first token change under a steady load. The load is half
/// the runs that a closed loop does in a second; each takes a second.
pub(crate) async fn measure(args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let stage = Stage::set(args, 1).await?;
    let full = Cost::measure(args, &stage, Way::Baton, Route::Chat).await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number"
    )]
    let clients = (full.answers_per_second / 2.0).max(1.0) as usize;
    let first = minute(&stage, clients).await?;
    let memory_before = stage.usage(Way::Baton);
    let mut last = None;
    for _ in 1..args.minutes {
        last = Some(minute(&stage, clients).await?);
    }
    let memory_after = stage.usage(Way::Baton);
    let last = last.as_ref().unwrap_or(&first);
    let runs = format!("{clients} runs of a second at once");
    for percent in [50, 99] {
        let what = format!("first token, p{percent}, {runs}, first and last minute");
        let figures = Figures {
            direct: first.first_token.percentile(percent),
            bare: None,
            baton: last.first_token.percentile(percent),
        };
        table.row(&what, &figures, "ms");
    }
    for (name, usage) in &memory_after {
        let before = memory_before.get(name).map_or(0, |usage| usage.memory);
        let what = format!("memory, {name}, after the first and the last minute");
        let figures = Figures {
            direct: mebibytes(before),
            bare: None,
            baton: mebibytes(usage.memory),
        };
        table.row(&what, &figures, "MiB");
    }
    stage.strike().await
}

async fn minute(stage: &Stage, clients: usize) -> anyhow::Result<LoadReport> {
    let load = stage.load(Way::Baton, MODEL, clients, Until::Elapsed(MINUTE));
    let report = load.run().await?;
    check(&report)?;
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
