//! The invariants: sentences that hold of every run, whatever breaks. The simulation and the checker of
//! chaos name them in their findings, and docs/guarantees.md lists them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Declares the invariants by number and sentence; a number is never used again for another.
macro_rules! invariants {
    ($($number:ident: $sentence:literal,)*) => {
        /// A sentence that must hold of every run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Invariant {
            $(#[doc = $sentence] $number,)*
        }

        impl Invariant {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$number),*];

            /// Returns its number, such as `I4`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$number => stringify!($number),)*
                }
            }

            /// Returns its sentence.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$number => $sentence,)*
                }
            }
        }
    };
}

invariants! {
    I1: "Every accepted run ends, and no refused request has left a run.",
    I2: "Requests with the same `Idempotency-Key` are one run with one answer.",
    I3: "A job's id is at most one run.",
    I4: "A terminal status never changes, and its one event is the last of the log.",
    I5: "Only lost workers count as failures of a run, and no run has more than allowed.",
    I6: "A key's count of running runs and of used tokens is right, and nothing stays reserved for runs that have ended.",
    I7: "A tool call with a recorded result is not made again.",
    I8: "A run resumes from its recorded steps, whose numbers have no gap.",
    I9: "Only the newest attempt commits, and attempts count upwards.",
    I10: "After an attempt's first event there is no event of an older attempt.",
    I11: "The events of a run, with resets applied, are what the ledger has, and its cursor never goes back.",
    I12: "A call that needs a decision is made only after it, with the decided arguments, and once per decision.",
    I13: "From any cursor, on any ingress, a client gets each event once and in order, or an explicit error.",
    I14: "Clients that are slow or hostile cost bounded memory.",
    I16: "A role ends only if it is asked to, within its time, and never panics.",
    I17: "A key or session that has ended is refused everywhere within five seconds.",
    I18: "Nobody is shown, or can change, what belongs to another tenant or key.",
    I19: "No connection that a tenant or a model can cause reaches a private address.",
    I21: "Secrets are in no log, event, error or metric.",
    I22: "A row of a grouped statement is decided as if it were alone.",
    I23: "An answer that the upstream broke off is never shown, stored or charged as a whole one.",
    I24: "A message that a run accepted is applied once, or handed back by its end; its events are shown once and in order.",
    I25: "No run spends more than its own limits and its key's budget.",
    I26: "Runs of a thread work one at a time and in order, by their rules for a busy thread; their messages are in it once, or not at all after a rollback.",
    I27: "A wish for a title becomes at most one run, and its thread has the title that this run wrote, or none.",
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no invariant of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no invariant {0:?}; docs/guarantees.md lists them")]
pub struct UnknownInvariant(String);

impl FromStr for Invariant {
    type Err = UnknownInvariant;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|one| one.name() == name);
        found
            .copied()
            .ok_or_else(|| UnknownInvariant(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_each_invariant_with_its_sentence() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guarantees.md");
        let page = std::fs::read_to_string(page).unwrap();
        let row = |line: &str| {
            let (name, sentence) = line.strip_prefix("| I")?.split_once(" | ")?;
            let (sentence, _tests) = sentence.split_once(" | ")?;
            Some((format!("I{name}"), sentence.to_owned()))
        };
        let listed: Vec<_> = page.lines().filter_map(row).collect();
        let all: Vec<_> = Invariant::ALL
            .iter()
            .map(|one| (one.name().to_owned(), one.sentence().to_owned()))
            .collect();
        assert_eq!(listed, all);
    }

    #[test]
    fn a_name_leads_to_its_invariant() {
        assert_eq!("I13".parse(), Ok(Invariant::I13));
        assert!("I130".parse::<Invariant>().is_err());
    }
}
