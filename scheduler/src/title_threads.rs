//! Gives threads the titles that models were asked for.

use baton_protocol::FinishReason;
use baton_protocol::compaction::summary_text;
use baton_store::{EndedTitleRun, Store};

use crate::metrics;

/// The most runs of one look; the next takes the rest.
const RUNS: u32 = 1_000;
/// The most characters of a title by a model.
const MOST: usize = 120;
/// The marks that models put around titles.
const MARKS: [char; 12] = ['"', '\'', '`', '*', '#', '_', '“', '”', '„', '«', '»', ' '];

/// Uses the answers of the runs that were to title threads and have ended. A thread that has a title by now
/// keeps it, and one without a usable answer stays without.
pub async fn title_threads(store: &Store) -> anyhow::Result<()> {
    let system = store.system();
    for ended in system.ended_title_runs(RUNS).await? {
        let title = title_of(&ended);
        let given = system.give_title(&ended, title.as_deref()).await?;
        metrics::thread_titled(given);
    }
    Ok(())
}

/// Returns the title that a model wrote: its first line, without marks around it. `None` if it did not finish,
/// or wrote none.
fn title_of(ended: &EndedTitleRun) -> Option<String> {
    if ended.finish_reason != Some(FinishReason::Stop) {
        return None;
    }
    let said = summary_text(ended.message.as_deref()?);
    let line = said.lines().find(|line| !bare(line).is_empty())?;
    let words: Vec<&str> = bare(line).split_whitespace().collect();
    let words = words.join(" ");
    let shown = words.chars().filter(|c| !c.is_control());
    Some(shown.take(MOST).collect())
}

fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c.is_control() || MARKS.contains(&c))
}

#[cfg(test)]
mod tests;
