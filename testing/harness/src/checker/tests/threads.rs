//! Threads (I26) and messages to runs that work (I24).

use baton_protocol::{RunId, RunStatus, ThreadId};

use crate::checker::{History, Record, SentMessage, TalkMessage, TalkRun, TalkThread, What, judge};

fn thread() -> ThreadId {
    "01890a5d-ac96-774b-bcce-b302099a8000".parse().unwrap()
}

fn run(n: u8) -> RunId {
    format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}")
        .parse()
        .unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn talk_run(n: u8, input: &[&str], output: &[&str]) -> TalkRun {
    TalkRun {
        id: run(n),
        thread: thread(),
        status: RunStatus::Completed,
        begun: true,
        reason: None,
        rolls_back: false,
        input: texts(input),
        output: texts(output),
        sent: Vec::new(),
    }
}

/// Two runs on a thread; the second took a message while it worked, and another was handed back.
struct Talk {
    said: Vec<(RunId, String)>,
    messages: Vec<(u8, &'static str)>,
    runs: Vec<TalkRun>,
}

impl Talk {
    fn good() -> Self {
        let first = talk_run(1, &["a"], &["A"]);
        let mut second = talk_run(2, &["a", "A", "b"], &["B", "c", "C"]);
        let sent = |status: &str, text: &str| SentMessage {
            status: status.to_owned(),
            text: text.to_owned(),
        };
        second.sent = vec![sent("applied", "c"), sent("returned", "d")];
        let said = [(1, "a"), (2, "b"), (2, "c"), (2, "d")];
        Self {
            said: said.map(|(n, text)| (run(n), text.to_owned())).to_vec(),
            messages: vec![(1, "a"), (1, "A"), (2, "b"), (2, "B"), (2, "c"), (2, "C")],
            runs: vec![first, second],
        }
    }

    fn invariants(self) -> Vec<&'static str> {
        let said = self.said.into_iter();
        let said = said.map(|(run, text)| What::Said { run, text });
        let messages = self.messages.into_iter().map(|(n, text)| TalkMessage {
            run: Some(run(n)),
            text: text.to_owned(),
        });
        let thread = What::Thread(TalkThread {
            id: thread(),
            messages: messages.collect(),
        });
        let runs = self.runs.into_iter().map(What::ThreadRun);
        let records = said.chain([thread]).chain(runs);
        let history = History {
            records: records.map(|what| Record { at: 1, what }).collect(),
            runs: Vec::new(),
            logs: Vec::new(),
        };
        let violations = judge(&history).violations;
        violations.into_iter().map(|it| it.invariant).collect()
    }
}

fn broken(breaks: impl FnOnce(&mut Talk)) -> Vec<&'static str> {
    let mut talk = Talk::good();
    breaks(&mut talk);
    talk.invariants()
}

#[test]
fn a_thread_has_the_messages_of_its_runs_in_order_none_twice_and_none_lost() {
    assert_eq!(broken(|_| {}), [""; 0]);
    let lost = broken(|talk| {
        talk.messages.remove(3);
    });
    assert_eq!(lost, ["I26"], "a message is lost");
    let swapped = broken(|talk| talk.messages.swap(2, 3));
    assert_eq!(swapped, ["I26"], "the order is another");
    let twice = broken(|talk| talk.messages.push((2, "C")));
    assert_eq!(twice, ["I26", "I26"], "a message is there twice");
    let all = broken(|talk| talk.messages.truncate(2));
    assert_eq!(all, ["I26"], "a run has left nothing");
    let blind = broken(|talk| drop(talk.runs[1].input.remove(1)));
    assert_eq!(blind, ["I26"], "a run did not see what came before");
    let mixed = broken(|talk| talk.messages.swap(1, 2));
    assert!(mixed.contains(&"I26"), "two runs at once: {mixed:?}");
    let forgotten = broken(|talk| talk.said.push((run(9), "x".to_owned())));
    assert_eq!(forgotten, ["I26"], "an accepted run is unknown");
    let open = broken(|talk| talk.runs[1].status = RunStatus::Running);
    assert_eq!(open, ["I26"], "a run has not ended");
}

#[test]
fn an_answer_that_broke_off_is_no_message_of_the_thread() {
    let cut = |talk: &mut Talk| {
        talk.messages.pop();
    };
    assert_eq!(broken(cut), ["I26"], "the run has completed");
    let cancelled = broken(|talk| {
        cut(talk);
        talk.runs[1].status = RunStatus::Cancelled;
    });
    assert_eq!(cancelled, [""; 0]);
}

#[test]
fn a_run_that_was_rolled_back_leaves_nothing() {
    let rolled_back = |talk: &mut Talk| {
        talk.runs[0].status = RunStatus::Cancelled;
        talk.runs[0].reason = Some("rolled_back".to_owned());
    };
    assert_eq!(broken(rolled_back), ["I26"], "it left messages");
    let clean = broken(|talk| {
        rolled_back(talk);
        talk.messages.drain(..2);
        talk.runs[1].input.drain(..2);
        talk.runs[1].rolls_back = true;
    });
    assert_eq!(clean, [""; 0]);
}

#[test]
fn an_accepted_message_is_applied_once_or_handed_back() {
    let lost = broken(|talk| drop(talk.runs[1].sent.pop()));
    assert_eq!(lost, ["I24"], "an accepted message is unknown");
    let waits = broken(|talk| talk.runs[1].sent[1].status = "waiting".to_owned());
    assert_eq!(waits, ["I24"], "the run has ended, and it waits");
    let both = broken(|talk| talk.runs[1].sent[0].status = "returned".to_owned());
    assert_eq!(both, ["I24"], "it was handed back, and applied");
    let neither = broken(|talk| talk.runs[1].sent[1].status = "applied".to_owned());
    assert_eq!(neither, ["I24"], "it is applied, and nowhere");
    let again = broken(|talk| {
        let sent = talk.runs[1].sent[0].clone();
        talk.runs[1].sent.push(sent);
    });
    assert_eq!(again, ["I24"], "it was taken twice");
}
