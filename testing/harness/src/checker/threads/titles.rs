//! Judges titles by a model (I27). The run that asks for a title is not kept, so the requests to the model show
//! it: each has the message of one run of the thread, and a second run for a title would have another one.

use std::collections::{BTreeSet, HashMap};

use baton_invariants::Invariant;
use baton_protocol::ThreadId;
use serde::{Deserialize, Serialize};

use super::{TalkRun, TalkThread};
use crate::chaos::outside::Prompt;
use crate::checker::judgement::Judgement;

/// The title of a thread when all was quiet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkTitle {
    /// The title, unless its talker gave it.
    pub by_model: Option<String>,
    /// Whether its talker gave it.
    pub is_given: bool,
    /// Whether no run has taken the wish for one so far.
    pub is_wished: bool,
}

/// Compares the titles of threads with the messages that the model was to make titles from.
pub(super) fn judge<'a>(
    threads: &[TalkThread],
    runs: impl Iterator<Item = &'a TalkRun>,
    sources: &BTreeSet<String>,
    judgement: &mut Judgement,
) {
    let inputs = runs.flat_map(|run| run.input.iter().map(|text| (&**text, run.thread)));
    let of_text: HashMap<&str, ThreadId> = inputs.collect();
    let mut of_thread: HashMap<ThreadId, Vec<&str>> = HashMap::new();
    for source in sources {
        if let Some(thread) = of_text.get(&**source) {
            of_thread.entry(*thread).or_default().push(source);
        } else {
            let found = format!("the model was asked for a title by `{source}`, which no run has");
            judgement.accuse(Invariant::I27, None, found);
        }
    }
    for thread in threads {
        let sources = of_thread.get(&thread.id).map_or(&[][..], Vec::as_slice);
        if let Some(found) = wrong(&thread.title, sources) {
            let found = format!("thread {}: {found}", thread.id);
            judgement.accuse(Invariant::I27, None, found);
        }
    }
}

/// Returns what is wrong about a thread's title; `None` if nothing is. A run that was to write one may have
/// failed, before or after the model was asked.
fn wrong(title: &TalkTitle, sources: &[&str]) -> Option<String> {
    if sources.len() > 1 {
        return Some(format!("the model was asked for titles by {sources:?}"));
    }
    if let Some(source) = sources.first()
        && (title.is_given || title.is_wished)
    {
        return Some(format!(
            "the model was asked by `{source}`, and it has {title:?}"
        ));
    }
    let written = sources.first().and_then(|source| Prompt::read(source));
    let written = written.map(|prompt| prompt.title());
    let by_model = title.by_model.as_ref();
    by_model
        .filter(|title| written.as_ref() != Some(title))
        .map(|title| format!("has the title {title:?}, and {written:?} was asked for"))
}
