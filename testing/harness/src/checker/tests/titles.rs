//! Titles of threads by a model (I27).

use baton_protocol::RunStatus;
use chrono::DateTime;

use crate::chaos::outside::Prompt;
use crate::checker::{History, Record, TalkRun, TalkThread, TalkTitle, What, judge};

fn said(id: u64) -> String {
    Prompt {
        id,
        words: 2,
        gap_ms: 1,
        tool_turns: 1,
    }
    .text()
}

fn by_model(title: &str) -> TalkTitle {
    TalkTitle {
        by_model: Some(title.to_owned()),
        ..TalkTitle::default()
    }
}

fn given() -> TalkTitle {
    TalkTitle {
        is_given: true,
        ..TalkTitle::default()
    }
}

fn wished() -> TalkTitle {
    TalkTitle {
        is_wished: true,
        ..TalkTitle::default()
    }
}

/// Returns the findings about a thread with this title and one run, which has the messages 7 and 8. The model
/// was asked for a title by these messages.
fn found(title: TalkTitle, asked: &[u64]) -> Vec<String> {
    let thread = "01890a5d-ac96-774b-bcce-b302099a8000".parse().unwrap();
    let at = DateTime::from_timestamp_millis(1_000).unwrap();
    let talked = TalkRun {
        id: "01890a5d-ac96-774b-bcce-b302099a8001".parse().unwrap(),
        thread,
        status: RunStatus::Cancelled,
        accepted: at,
        began: None,
        ended: Some(at),
        reason: Some("rolled_back".to_owned()),
        rule: Some("queue".to_owned()),
        input: vec![said(7), said(8)],
        output: Vec::new(),
        answers: Vec::new(),
        sent: Vec::new(),
    };
    let thread = TalkThread {
        id: thread,
        messages: Vec::new(),
        title,
    };
    let mut records = vec![What::Thread(thread), What::ThreadRun(talked)];
    let asked = asked.iter().map(|id| What::Titling { source: said(*id) });
    // A second attempt asks again.
    records.extend(asked.clone().chain(asked));
    let records = records.into_iter().map(|what| Record { at: 1_000, what });
    let judged = judge(&History {
        records: records.collect(),
        ..History::default()
    });
    let found = judged.violations.iter().map(ToString::to_string);
    found.filter(|found| found.starts_with("I27")).collect()
}

#[test]
fn a_thread_with_the_title_that_was_asked_for_or_with_none_is_right() {
    let none: [String; 0] = [];
    assert_eq!(found(by_model("7·0 7·1"), &[7]), none);
    assert_eq!(found(TalkTitle::default(), &[7]), none);
    for title in [TalkTitle::default(), given(), wished()] {
        assert_eq!(found(title, &[]), none);
    }
}

#[test]
fn a_wish_that_is_answered_twice_or_otherwise_is_found() {
    for (title, asked, part) in [
        (by_model("7·0 7·1"), &[][..], "was asked for"),
        (by_model("Rome"), &[7], "was asked for"),
        (by_model("7·0 7·1"), &[7, 8], "asked for titles by"),
        (given(), &[7], "the model was asked"),
        (wished(), &[7], "the model was asked"),
        (wished(), &[9], "which no run has"),
    ] {
        let found = found(title, asked);
        assert_eq!(found.len(), 1, "{part}: {found:?}");
        assert!(found[0].contains(part), "{part}: {found:?}");
    }
}
