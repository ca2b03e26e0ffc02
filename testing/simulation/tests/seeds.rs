//! Many seeds with every rate of faults: none breaks a promise, and every kind of fault has struck.
//!
//! To see everything that happens in one seed:
//!
//! ```text
//! BATON_SIMULATION_SEED=42 cargo test -p baton-simulation --test seeds -- --nocapture one_seed
//! ```

use std::fmt::Write as _;
use std::ops::Range;

use baton_simulation::{Counts, Setup, simulate};

/// The seeds of one test; the tests run in parallel.
const EACH: u64 = 500;

fn all_is_well(seeds: Range<u64>) {
    let mut counts = Counts::default();
    let mut broken = String::new();
    let many = seeds.end - seeds.start;
    for seed in seeds {
        let report = simulate(seed, Setup::default());
        counts += &report.counts;
        for accusation in &report.accusations {
            let _ = writeln!(broken, "seed {seed}: {accusation}");
        }
    }
    assert!(
        broken.is_empty(),
        "{broken}\nto see what happened:\n  BATON_SIMULATION_SEED=<seed> \
         cargo test -p baton-simulation --test seeds -- --nocapture one_seed"
    );
    // Fewer would prove nothing: the least number of each in a hundred seeds.
    let at_least = [
        ("crashes", counts.crashes, 200),
        ("freezes", counts.freezes, 150),
        ("stops", counts.stops, 80),
        ("partitions", counts.partitions, 60),
        ("workers that the broker lost sight of", counts.unseen, 60),
        ("runs taken early", counts.taken_early, 15),
        ("wiped jobs", counts.wiped_jobs, 20),
        ("lost messages", counts.lost_messages, 300),
        ("unanswered requests", counts.unanswered, 400),
        ("events heard twice", counts.heard_twice, 40),
        ("redeliveries", counts.redeliveries, 80),
        ("jobs published again", counts.republished, 10),
        ("expired leases", counts.expired_leases, 20),
        ("hand-overs", counts.hand_overs, 8),
        ("later attempts", counts.resets, 60),
        ("refused appends", counts.refused_appends, 40),
        ("lost acks of appends", counts.lost_acks, 20),
        ("gaps that followers noticed", counts.gaps, 20),
        ("reconnects", counts.reconnects, 100),
        ("cancels of idle runs", counts.cancelled_while_idle, 3),
        ("cancels of runs at work", counts.cancelled_at_work, 3),
        ("ends told by others", counts.told_by_others, 10),
        ("parked runs", counts.parked, 5),
        ("answers that broke off", counts.broken_turns, 5),
        ("withdrawn answers", counts.withdrawn_turns, 2),
        ("refused events", counts.refused_events, 10),
        ("logs at their limit", counts.full_logs, 2),
        ("waits for the budget", counts.budget_waits, 2),
        ("spent budgets", counts.spent_budgets, 2),
        ("runs of a revoked key", counts.revoked, 2),
        ("decisions", counts.decided, 5),
        ("decisions that came too late", counts.decided_too_late, 2),
        ("messages to runs", counts.sent_inputs, 60),
        ("messages after the end", counts.refused_inputs, 10),
        ("applied messages", counts.applied_inputs, 30),
        ("messages that were handed back", counts.returned_inputs, 3),
        ("ends that gave way", counts.ends_given_way, 3),
        ("claims that waited for the thread", counts.thread_waits, 10),
        ("refused runs", counts.refused_runs, 5),
        ("requests that joined a run", counts.steered, 5),
        ("replaced runs", counts.replaced, 10),
        ("runs that were rolled back", counts.rolled_back, 2),
        ("completed runs", counts.completed, 120),
    ];
    for (what, count, least) in at_least {
        let least = least * many / 100;
        assert!(
            count >= least,
            "the run is void: {what}: {count}, not {least}"
        );
    }
    // Rarer than once in a hundred seeds, but required.
    assert!(
        counts.refused_commits > 0,
        "no replaced worker tried to commit"
    );
    assert!(
        counts.refused_zombies > 0,
        "no replaced worker tried to append"
    );
}

#[test]
fn the_first_five_hundred_seeds_keep_every_promise() {
    all_is_well(0..EACH);
}

#[test]
fn the_second_five_hundred_seeds_keep_every_promise() {
    all_is_well(EACH..2 * EACH);
}

#[test]
fn the_third_five_hundred_seeds_keep_every_promise() {
    all_is_well(2 * EACH..3 * EACH);
}

#[test]
fn the_fourth_five_hundred_seeds_keep_every_promise() {
    all_is_well(3 * EACH..4 * EACH);
}

/// Plays the given seed, or shows on some seeds that each always plays the same.
#[test]
fn one_seed_is_played_again_exactly() {
    let setup = Setup {
        trace: true,
        ..Setup::default()
    };
    if let Ok(seed) = std::env::var("BATON_SIMULATION_SEED") {
        let report = simulate(seed.parse().expect("a number"), setup);
        for line in &report.trace {
            println!("{line}");
        }
        println!("{:#?}", report.counts);
        assert!(report.accusations.is_empty(), "see above");
        return;
    }
    for seed in 0..20 {
        let (first, again) = (simulate(seed, setup), simulate(seed, setup));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, again.trace, "seed {seed}");
    }
}
