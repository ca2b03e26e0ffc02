//! Runs the fuzzer's corpus, and mutations of it, in every run of the tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use baton_hostile::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 2_000;

fn folder() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus").into()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join(target);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn each_target_has_a_corpus_and_each_corpus_a_target() {
    let mut folders: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name));
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

#[test]
fn what_was_kept_holds() {
    for (name, check) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "{name}");
        for file in files {
            check(&file);
        }
    }
}

/// Pieces that readers have failed on.
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
    "\r",
    "\u{2028}",
    "_",
    ".",
    "=",
    " ",
];

#[test]
fn what_is_like_it_holds() {
    for (name, check) in TARGETS {
        let files = corpus(name);
        let piece = prop_oneof![
            proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
            proptest::sample::select(files.clone()),
        ];
        let changes = proptest::collection::vec((any::<Index>(), any::<Index>(), piece), 1..4);
        let mut runner = TestRunner::new(Config {
            // A failing input belongs in the corpus.
            failure_persistence: None,
            ..Config::with_cases(CASES)
        });
        let inputs = (proptest::sample::select(files), changes);
        runner
            .run(&inputs, |(mut bytes, changes)| {
                for (from, length, piece) in changes {
                    let from = from.index(bytes.len() + 1);
                    let to = from + length.index((bytes.len() - from).min(12) + 1);
                    bytes.splice(from..to, piece);
                }
                check(&bytes);
                Ok(())
            })
            .unwrap_or_else(|failed| panic!("{name}: {failed}"));
    }
}
