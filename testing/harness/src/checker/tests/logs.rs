//! The rules for logs.

use super::*;

#[test]
fn a_log_without_its_one_end_breaks_i4() {
    assert!(logged(&events()[..6]).contains(&"I4"));
    let mut twice = events();
    let last = EventId::new(2, 5);
    twice.push(event(last.next(), last, completed()));
    assert!(logged(&twice).contains(&"I4"));
    let mut further = events();
    further.push(event(last.next(), last, text("!")));
    assert!(logged(&further).contains(&"I4"));
    assert_eq!(after(|history| history.logs.clear()), ["I4"]);
    let failed = after(|history| history.runs[0].status = RunStatus::Failed);
    assert_eq!(failed, ["I4"]);
}

#[test]
fn an_attempt_without_reset_breaks_i9_and_a_replaced_worker_i10() {
    let mut unset = events();
    unset[2].data = text("");
    assert!(logged(&unset).contains(&"I9"));
    let mut zombie = events();
    let (late, end) = (EventId::new(1, 3), EventId::new(2, 5));
    zombie.insert(6, event(late, EventId::new(2, 4), text("zombie")));
    zombie[7] = event(end, late, completed());
    assert!(logged(&zombie).contains(&"I10"));
    assert!(shown(&zombie).contains(&"I10"));
}

#[test]
fn a_text_that_is_not_the_stored_one_breaks_i11() {
    let mut other = events();
    other[4].data = text("p");
    assert_eq!(logged(&other), ["I11"]);
    assert_eq!(shown(&other), ["I11"]);
    let message = json!({"role": "assistant", "content": "hel"});
    let cut = after(|history| history.runs[0].output = vec![message]);
    assert_eq!(cut, ["I11"]);
    assert_eq!(after(|history| note(history, chat("hel", "done"))), ["I11"]);
    assert_eq!(after(|history| note(history, chat("lo", "cut"))), ["I11"]);
    assert!(after(|history| note(history, chat("hel", "cut"))).is_empty());
}

#[test]
fn a_recorded_call_whose_end_is_not_shown_or_stands_twice_breaks_i11() {
    let mut silent = events();
    silent[5].data = text("");
    assert_eq!(logged(&silent), ["I11"]);
    let mut twice = events();
    twice[3].data = counted();
    assert!(logged(&twice).contains(&"I11"));
    let of_a_call_that_is_left_to_the_next_run = after(|history| {
        history.logs[0].lines = silent.iter().map(line).collect();
        let run = &mut history.runs[0];
        run.finish_reason = Some("tool_calls".to_owned());
        for step in &mut run.steps {
            if matches!(step.kind, StepKind::Call { .. }) {
                step.finished_at = None;
            }
        }
    });
    assert!(!of_a_call_that_is_left_to_the_next_run.contains(&"I11"));
}
