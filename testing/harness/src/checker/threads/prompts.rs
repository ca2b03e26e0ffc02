//! Judges what the model was sent (I24): each conversation is a beginning of what one run has recorded, and
//! a run that has completed was asked with all of its messages.

use std::collections::HashSet;

use baton_invariants::Invariant;

use super::TalkRun;
use crate::chaos::outside::Prompt;
use crate::checker::judgement::Judgement;

/// Compares the prompts of all conversations with the runs.
pub(super) fn judge<'a>(
    prompted: &HashSet<Vec<u64>>,
    runs: impl Iterator<Item = &'a TalkRun>,
    judgement: &mut Judgement,
) {
    let mut right = HashSet::new();
    for run in runs.filter(|run| run.began.is_some()) {
        let ids = |texts: &[String]| -> Vec<u64> {
            let prompts = texts.iter().filter_map(|text| Prompt::read(text));
            prompts.map(|prompt| prompt.id).collect()
        };
        let (mut shown, taken) = (ids(&run.input), ids(&run.output));
        right.insert(shown.clone());
        for prompt in taken {
            shown.push(prompt);
            right.insert(shown.clone());
        }
        if run.has_answered() && !prompted.contains(&shown) {
            let found = format!("has completed, and the model was never sent {shown:?}");
            judgement.accuse(Invariant::I24, Some(run.id), found);
        }
    }
    for conversation in prompted {
        if !right.contains(conversation) {
            let found = format!("the model was sent {conversation:?}, and no run has these");
            judgement.accuse(Invariant::I24, None, found);
        }
    }
}
