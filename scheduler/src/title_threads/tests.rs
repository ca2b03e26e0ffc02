use baton_protocol::{RunId, TenantId, ThreadId};
use baton_service::{Clock as _, SystemClock};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::*;

fn title(finish_reason: Option<FinishReason>, message: Option<Value>) -> Option<String> {
    let now = SystemClock.now();
    title_of(&EndedTitleRun {
        tenant: TenantId::new(now),
        run: RunId::new(now),
        thread: ThreadId::new(now),
        finish_reason,
        message: message.map(|message| to_raw_value(&message).unwrap()),
    })
}

fn of_text(text: &str) -> Option<String> {
    let message = json!({"role": "assistant", "content": text});
    title(Some(FinishReason::Stop), Some(message))
}

#[test]
fn a_title_is_the_first_line_without_marks_and_controls() {
    for (said, expected) in [
        ("A trip to Rome", "A trip to Rome"),
        (
            "\n\n**\"A trip to  Rome\"**\nIt is short.",
            "A trip to Rome",
        ),
        ("# Vacances d'été", "Vacances d'été"),
        ("„Nach Rom“", "Nach Rom"),
        ("A\u{7}\u{0} trip", "A trip"),
    ] {
        assert_eq!(of_text(said).as_deref(), Some(expected), "{said:?}");
    }
    assert_eq!(of_text(&"ö".repeat(9_000)).unwrap().chars().count(), MOST);
}

#[test]
fn an_answer_that_is_cut_or_empty_is_no_title() {
    for said in ["", " \n ", "***", "\u{0}"] {
        assert_eq!(of_text(said), None, "{said:?}");
    }
    let message = json!({"role": "assistant", "content": "A trip"});
    for reason in [None, Some(FinishReason::Length)] {
        assert_eq!(title(reason, Some(message.clone())), None, "{reason:?}");
    }
    assert_eq!(title(Some(FinishReason::Stop), None), None);
    let silent = json!({"role": "assistant", "content": null, "refusal": "No."});
    assert_eq!(title(Some(FinishReason::Stop), Some(silent)), None);
}
