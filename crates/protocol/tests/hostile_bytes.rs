//! What crosses a process boundary is read by whoever is handed it: bytes that are none of ours, or
//! nearly ours, are refused and never a panic; what is accepted can be written and read again.
//!
//! These are random mutations of kept seeds; `fuzz/` looks for the rest, guided by coverage.

use baton_protocol::{Event, Job};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const SEEDS: &[&str] = &[
    include_str!("../src/golden/job.v1.run.json"),
    include_str!("../src/golden/job.v1.submit.json"),
    r#"{"v":1,"id":4294967298,"prev":4294967297,"type":"text.delta","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"step":1,"at":"2026-01-01T00:00:00.000Z","data":{"text":"hi"}}"#,
    r#"{"v":1,"id":4294967299,"prev":4294967298,"type":"run.cancelled","run_id":"01890a5d-ac96-774b-bcce-b302099a8057","attempt":1,"step":1,"at":"2026-01-01T00:00:00.000Z","data":{"reason":"api_request"}}"#,
];

/// Pieces that readers of JSON have stumbled over.
const PIECES: &[&str] = &[
    "",
    "\0",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "-0",
    "1e999",
    "18446744073709551616",
    "-9223372036854775809",
    "\u{feff}",
    "\n",
    "\u{2028}",
];

/// A seed with some of its parts replaced, and bytes of no kind.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 0..6),
        select(SEEDS).prop_map(|seed| seed.as_bytes().to_vec()),
    ];
    let changes = vec((any::<Index>(), any::<Index>(), piece), 0..5);
    let mutated = (select(SEEDS), changes).prop_map(|(seed, changes)| {
        let mut bytes = seed.trim().as_bytes().to_vec();
        for (from, length, piece) in changes {
            let from = from.index(bytes.len() + 1);
            let to = from + length.index((bytes.len() - from).min(12) + 1);
            bytes.splice(from..to, piece);
        }
        bytes
    });
    prop_oneof![9 => mutated, 1 => vec(any::<u8>(), 0..200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn any_bytes_are_a_job_or_are_refused(bytes in bytes()) {
        if let Ok(job) = Job::decode(&bytes) {
            let written = job.encode();
            prop_assert_eq!(Job::decode(&written).unwrap().encode(), written);
        }
    }

    #[test]
    fn any_bytes_are_an_event_or_are_refused(bytes in bytes()) {
        for line in Event::lines(&bytes) {
            if let Ok(event) = Event::decode(line) {
                let mut written = Vec::new();
                event.encode_into(&mut written);
                prop_assert_eq!(Event::decode(&written).unwrap().data, event.data);
            }
        }
    }
}
