//! Judges the roles' processes: they end only when asked to, and in time; their memory is bounded
//! (I14, I16).

use baton_invariants::Invariant;

use super::history::{Asked, What};
use super::judgement::Judgement;

/// The time after which a stop is given up on. It is far beyond the deadlines in the settings,
/// because the rule looks for a stop that never comes.
const STOPS_WITHIN_MS: u64 = 45_000;
/// The same after a second signal, which ends the process at once.
const ENDS_WITHIN_MS: u64 = 15_000;
/// The time within which a starting role gives up on a server that it cannot reach.
const STARTS_WITHIN_MS: u64 = 60_000;
/// Far more than any role holds, as long as it bounds what it keeps for its clients.
const MEMORY: u64 = 1 << 30;

pub(super) fn see(what: &What, judgement: &mut Judgement) {
    match what {
        What::Ended {
            role,
            asked,
            status,
            took_ms,
            lived_ms,
        } => {
            let name = format!("{role} {}: {status}", name(*asked));
            if !asked.killed && !asked.frozen {
                let limit = match asked.terminations {
                    0 => u64::MAX,
                    1 => STOPS_WITHIN_MS,
                    _ => ENDS_WITHIN_MS,
                };
                if *took_ms > limit {
                    let what = format!("{name} after {took_ms} ms");
                    judgement.accuse(Invariant::I16, None, what);
                }
            }
            // A starting role may end because a server is away; later it must wait for the server.
            let asked_nothing = !asked.killed && !asked.frozen && asked.terminations == 0;
            if asked_nothing && *lived_ms > STARTS_WITHIN_MS {
                let what = format!("{name} after it had lived for {lived_ms} ms");
                judgement.accuse(Invariant::I16, None, what);
            }
            // No role may crash, whatever is broken around it.
            let known = matches!(status, 0 | 1) || (asked.terminations > 1 && *status == 128 + 15);
            if !asked.killed && !known {
                judgement.accuse(
                    Invariant::I16,
                    None,
                    format!("an end without a reason: {name}"),
                );
            }
            *judgement.ends.entry(name).or_default() += 1;
        }
        What::Memory { role, resident } => {
            let most = judgement.memory.entry(role.clone()).or_default();
            let before = std::mem::replace(most, (*most).max(*resident));
            if *resident > MEMORY && before <= MEMORY {
                let what = format!("{role} holds {} MiB", resident >> 20);
                judgement.accuse(Invariant::I14, None, what);
            }
        }
        _ => {}
    }
}

const fn name(asked: Asked) -> &'static str {
    match (asked.killed, asked.terminations) {
        (true, _) => "killed",
        (false, 0) => "by itself",
        (false, 1) => "told to stop",
        (false, _) => "told twice",
    }
}
