//! Threads (I26) and messages to runs that work (I24).

use baton_protocol::event::{InputAccepted, InputApplied};
use baton_protocol::{EventData, EventId, MessageId, RunId, RunStatus, ThreadId, Usage};
use chrono::{DateTime, Utc};

use super::{event, line, reset};
use crate::chaos::outside::Prompt;
use crate::checker::{
    History, LedgerRun, Record, RunLog, SentMessage, TalkMessage, TalkRun, TalkThread, TalkTitle,
    What, WithdrawnAs, judge,
};

fn thread() -> ThreadId {
    "01890a5d-ac96-774b-bcce-b302099a8000".parse().unwrap()
}

fn run(n: u8) -> RunId {
    format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}")
        .parse()
        .unwrap()
}

fn message(n: u8) -> MessageId {
    MessageId::from_uuid(run(n).as_uuid())
}

fn at(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap()
}

/// Returns the message with this number.
fn said(id: u64) -> String {
    Prompt {
        id,
        words: 1,
        gap_ms: 1,
        tool_turns: 0,
    }
    .text()
}

/// Returns messages: those with a number, and answers.
fn texts(texts: &[&str]) -> Vec<String> {
    let text = |text: &&str| text.parse().map_or_else(|_| (*text).to_owned(), said);
    texts.iter().map(text).collect()
}

/// A run that is accepted at 1,000 · n, begins 100 ms later, and takes half a second.
fn talk_run(n: u8, input: &[&str], output: &[&str]) -> TalkRun {
    let accepted = i64::from(n) * 1_000;
    let output = texts(output);
    let answers = output.iter().enumerate();
    let answers = answers.filter(|(_, text)| Prompt::read(text).is_none());
    TalkRun {
        id: run(n),
        thread: thread(),
        status: RunStatus::Completed,
        accepted: at(accepted),
        began: Some(at(accepted + 100)),
        ended: Some(at(accepted + 600)),
        reason: None,
        rule: Some("queue".to_owned()),
        input: texts(input),
        answers: answers.map(|(place, _)| place).collect(),
        output,
        sent: Vec::new(),
    }
}

/// Two runs on a thread; the second took a message while it worked, and another one that was cancelled
/// handed its own back.
struct Talk {
    said: Vec<(u64, RunId, String)>,
    also: Vec<What>,
    prompted: Vec<Vec<u64>>,
    messages: Vec<(u8, String)>,
    runs: Vec<TalkRun>,
    log: Vec<EventData>,
}

impl Talk {
    fn good() -> Self {
        let first = talk_run(1, &["1"], &["A"]);
        let mut second = talk_run(2, &["1", "A", "2"], &["B", "3", "C"]);
        let sent = |n: u8, status: &str, step, id| SentMessage {
            id: message(n),
            status: status.to_owned(),
            step,
            text: said(id),
        };
        second.sent = vec![sent(11, "applied", Some(2), 3)];
        let mut third = talk_run(3, &["1", "A", "2", "B", "3", "C", "4"], &["D"]);
        third.status = RunStatus::Cancelled;
        third.reason = Some("api_request".to_owned());
        third.sent = vec![sent(12, "returned", None, 5)];
        let said_at = [
            (1_010, 1, 1),
            (2_010, 2, 2),
            (2_300, 2, 3),
            (3_010, 3, 4),
            (3_200, 3, 5),
        ];
        let left = [(1, "1"), (1, "A"), (2, "2"), (2, "B"), (2, "3"), (2, "C")];
        let left = left.into_iter().chain([(3, "4"), (3, "D")]);
        let accepted = InputAccepted {
            id: message(11),
            position: 1,
        };
        let applied = InputApplied {
            id: message(11),
            step: 2,
        };
        Self {
            said: said_at.map(|(at, n, id)| (at, run(n), said(id))).to_vec(),
            also: Vec::new(),
            prompted: vec![vec![1], vec![1, 2], vec![1, 2, 3], vec![1, 2, 3, 4]],
            messages: left
                .map(|(n, text)| (n, texts(&[text]).remove(0)))
                .collect(),
            runs: vec![first, second, third],
            log: vec![
                EventData::InputAccepted(accepted),
                EventData::InputApplied(applied),
            ],
        }
    }

    fn found(self) -> Vec<(&'static str, String)> {
        let said = self.said.into_iter();
        let said = said.map(|(at, run, text)| (at, What::Said { run, text }));
        let messages = self.messages.into_iter().map(|(n, text)| TalkMessage {
            run: Some(run(n)),
            text,
        });
        let thread = What::Thread(TalkThread {
            id: thread(),
            messages: messages.collect(),
            title: TalkTitle {
                is_given: true,
                ..TalkTitle::default()
            },
        });
        let prompted = self.prompted.into_iter();
        let prompted = prompted.map(|prompts| What::Prompted { prompts });
        let runs = self.runs.into_iter().map(What::ThreadRun);
        let later = prompted.chain(self.also).chain([thread]).chain(runs);
        let records = said.chain(later.map(|what| (9_000, what)));
        let records = records.map(|(at, what)| Record { at, what });
        let mut last = EventId::ORIGIN;
        let log = self.log.into_iter().zip(1..).map(|(data, n)| {
            let id = EventId::new(1, n);
            let prev = std::mem::replace(&mut last, id);
            let mut event = event(id, prev, data);
            event.run_id = run(2);
            line(&event)
        });
        let log = RunLog {
            run: run(2),
            read_at: 10_000,
            lines: log.collect(),
        };
        let history = History {
            records: records.collect(),
            runs: vec![ledger_run()],
            logs: vec![log],
        };
        let violations = judge(&history).violations.into_iter();
        let of_threads = violations.filter(|it| matches!(it.invariant.name(), "I24" | "I26"));
        of_threads
            .map(|it| (it.invariant.name(), it.found))
            .collect()
    }
}

/// The second run in the ledger, as far as its log is judged here.
fn ledger_run() -> LedgerRun {
    LedgerRun {
        model: "talk".to_owned(),
        id: run(2),
        status: RunStatus::Completed,
        finish_reason: None,
        usage: Usage::default(),
        attempt: 1,
        last_event_id: EventId::new(1, 2),
        prompt: None,
        created_at: at(2_000),
        finished_at: Some(at(2_600)),
        output: Vec::new(),
        error: None,
        steps: Vec::new(),
        approvals: Vec::new(),
    }
}

/// Returns the invariants that are broken by a change to the good history.
fn broken(breaks: impl FnOnce(&mut Talk)) -> Vec<&'static str> {
    let mut talk = Talk::good();
    breaks(&mut talk);
    let mut found: Vec<_> = talk.found().into_iter().map(|(it, _)| it).collect();
    found.dedup();
    found
}

/// Returns what is found, for people, after a change to the good history.
fn finding(breaks: impl FnOnce(&mut Talk)) -> String {
    let mut talk = Talk::good();
    breaks(&mut talk);
    let found: Vec<_> = talk.found().into_iter().map(|(_, found)| found).collect();
    found.join("\n")
}

#[test]
fn a_good_history_has_no_fault() {
    assert_eq!(finding(|_| {}), "");
}

#[test]
fn a_thread_has_the_messages_of_its_runs_in_order_none_twice_and_none_lost() {
    let lost = broken(|talk| drop(talk.messages.remove(3)));
    assert_eq!(lost, ["I26"], "a message is lost");
    let swapped = broken(|talk| talk.messages.swap(2, 3));
    assert_eq!(swapped, ["I26"], "the order is another");
    let twice = finding(|talk| talk.messages.push((3, "D".to_owned())));
    assert!(twice.contains("has `D` twice"), "{twice}");
    let all = finding(|talk| talk.messages.truncate(6));
    assert!(all.contains("has left none"), "{all}");
    let blind = finding(|talk| drop(talk.runs[1].input.remove(1)));
    assert!(blind.contains("did not begin with all"), "{blind}");
    let mixed = broken(|talk| talk.messages.swap(1, 2));
    assert!(mixed.contains(&"I26"), "two runs at once: {mixed:?}");
    let forgotten = finding(|talk| talk.said.push((4_000, run(9), "x".to_owned())));
    assert!(forgotten.contains("not in the ledger"), "{forgotten}");
    let open = finding(|talk| talk.runs[2].status = RunStatus::Running);
    assert!(open.contains("has not ended"), "{open}");
}

#[test]
fn an_answer_that_broke_off_is_no_message_of_the_thread() {
    let cut = |talk: &mut Talk| drop(talk.messages.pop());
    assert_eq!(broken(cut), [""; 0], "the run was cancelled");
    let completed = finding(|talk| {
        cut(talk);
        talk.runs[2].status = RunStatus::Completed;
    });
    assert!(completed.contains("has left other messages"), "{completed}");
    let earlier = finding(|talk| {
        talk.runs[2].output.push("E".to_owned());
        talk.runs[2].answers.push(1);
        cut(talk);
    });
    assert!(earlier.contains("has left other messages"), "{earlier}");
}

#[test]
fn a_run_that_was_rolled_back_leaves_nothing() {
    let rolled_back = |talk: &mut Talk| {
        talk.runs[1].status = RunStatus::Cancelled;
        talk.runs[1].reason = Some("rolled_back".to_owned());
        talk.runs[2].rule = Some("rollback".to_owned());
        // The second run still worked.
        talk.runs[1].ended = Some(at(3_050));
    };
    let left = finding(rolled_back);
    assert!(left.contains("was rolled back"), "it left messages: {left}");
    let clean = |talk: &mut Talk| {
        rolled_back(talk);
        talk.messages.drain(2..6);
        talk.runs[2].input.drain(2..6);
        talk.prompted[3] = vec![1, 4];
    };
    assert_eq!(finding(clean), "");
    let by_nobody = finding(|talk| {
        clean(talk);
        talk.runs[2].rule = Some("queue".to_owned());
    });
    assert!(by_nobody.contains("nobody asked for that"), "{by_nobody}");
    let too_late = finding(|talk| {
        clean(talk);
        talk.runs[1].status = RunStatus::Completed;
        talk.runs[1].ended = Some(at(2_600));
        talk.runs[1].reason = None;
    });
    assert!(too_late.contains("has left none"), "{too_late}");
}

#[test]
fn one_run_of_a_thread_is_at_work_at_a_time_in_the_order_of_acceptance() {
    let at_once = finding(|talk| talk.runs[1].ended = Some(at(3_400)));
    assert!(at_once.contains("began before the end of"), "{at_once}");
    let barely = finding(|talk| talk.runs[1].ended = Some(at(3_300)));
    assert_eq!(barely, "", "the clock is read a little before the look");
    let overtaken = |known: u64| {
        finding(|talk| {
            talk.said[1].0 = known;
            let times = (at(3_700), at(3_800));
            (talk.runs[1].began, talk.runs[1].ended) = (Some(times.0), Some(times.1));
        })
    };
    let found = overtaken(3_050);
    assert!(found.contains("began before 01890a5d"), "{found}");
    // The other run may have been accepted in that moment.
    assert!(!overtaken(3_150).contains("began before"));
    let replaced = finding(|talk| {
        talk.runs[2].rule = Some("interrupt".to_owned());
        (talk.runs[1].began, talk.runs[1].ended) = (Some(at(3_050)), Some(at(3_080)));
    });
    assert!(replaced.contains("after it was replaced by"), "{replaced}");
}

#[test]
fn a_cancel_has_a_reason_that_somebody_gave() {
    let strange = finding(|talk| talk.runs[2].reason = Some("interrupted".to_owned()));
    assert!(strange.contains("nobody asked"), "{strange}");
}

#[test]
fn a_refused_message_is_nowhere() {
    let unsaid = |id| What::Unsaid { text: said(id) };
    let kept = finding(|talk| talk.also.push(unsaid(2)));
    assert!(kept.contains("which was refused"), "{kept}");
    assert_eq!(finding(|talk| talk.also.push(unsaid(7))), "");
}

#[test]
fn an_accepted_message_is_applied_once_or_handed_back() {
    let lost = finding(|talk| drop(talk.runs[2].sent.pop()));
    assert!(lost.contains("has lost the accepted message"), "{lost}");
    let waits = finding(|talk| talk.runs[2].sent[0].status = "waiting".to_owned());
    assert!(waits.contains("lets it wait"), "{waits}");
    let both = finding(|talk| talk.runs[1].sent[0].status = "returned".to_owned());
    assert!(both.contains("though it was handed back"), "{both}");
    let neither = finding(|talk| talk.runs[2].sent[0].status = "applied".to_owned());
    assert!(neither.contains("though it is applied"), "{neither}");
    let unanswered = finding(|talk| {
        talk.runs[2].status = RunStatus::Completed;
        talk.runs[2].reason = None;
    });
    assert!(unanswered.contains("ended with an answer"), "{unanswered}");
    let again = finding(|talk| {
        let sent = talk.runs[1].sent[0].clone();
        talk.runs[1].sent.push(sent);
    });
    assert!(again.contains("was sent it twice"), "{again}");
    let elsewhere = finding(|talk| talk.said[2].1 = run(1));
    assert!(elsewhere.contains("given another run"), "{elsewhere}");
    let shared = finding(|talk| {
        let sent = talk.runs[1].sent[0].clone();
        talk.runs[0].sent.push(sent);
    });
    assert!(shared.contains("shares with another run"), "{shared}");
}

#[test]
fn a_withdrawn_message_is_nowhere() {
    let withdrawn = |end| {
        finding(|talk| {
            talk.also.push(What::Withdrawn { text: said(5), end });
        })
    };
    let there = withdrawn(WithdrawnAs::Gone);
    assert!(there.contains("has the withdrawn message"), "{there}");
    assert_eq!(withdrawn(WithdrawnAs::Asked), "");
    let gone = |end| {
        finding(|talk| {
            talk.runs[2].sent.clear();
            talk.also.push(What::Withdrawn { text: said(5), end });
        })
    };
    assert_eq!(gone(WithdrawnAs::Gone), "");
    assert_eq!(gone(WithdrawnAs::Asked), "", "the answer was lost");
    let kept = gone(WithdrawnAs::Kept);
    assert!(kept.contains("has lost the accepted message"), "{kept}");
}

#[test]
fn the_model_is_sent_what_is_recorded() {
    let early = finding(|talk| talk.prompted.push(vec![1, 3]));
    assert!(early.contains("no run has these"), "{early}");
    let unsent = finding(|talk| drop(talk.prompted.remove(2)));
    assert!(unsent.contains("the model was never sent"), "{unsent}");
}

#[test]
fn the_events_of_a_message_are_shown_once_and_in_order() {
    let swapped = finding(|talk| talk.log.swap(0, 1));
    assert!(swapped.contains("is shown as applied first"), "{swapped}");
    let ended_by_another = finding(|talk| {
        talk.log.pop();
        talk.runs[1].status = RunStatus::Cancelled;
        talk.runs[1].reason = Some("api_request".to_owned());
    });
    assert_eq!(ended_by_another, "");
    for place in 0..2 {
        let missing = finding(|talk| drop(talk.log.remove(place)));
        assert!(missing.contains("not shown as that once"), "{missing}");
        let twice = finding(|talk| talk.log.push(talk.log[place].clone()));
        assert!(twice.contains("not shown as that once"), "{twice}");
    }
    let unknown = finding(|talk| {
        talk.log.push(EventData::InputApplied(InputApplied {
            id: message(99),
            step: 9,
        }));
    });
    assert!(unknown.contains("was not sent it"), "{unknown}");
    let shown_again = finding(|talk| {
        let accepted = talk.log[0].clone();
        talk.log.insert(1, accepted);
        talk.log.insert(1, reset(EventId::ORIGIN));
    });
    assert_eq!(shown_again, "", "a reset withdrew the first");
}
