//! The prompts of one run, byte for byte: caches of prompts find what is repeated exactly.

use std::collections::BTreeMap;

use baton_harness::scripted_model::{Recorded, Reply};
use baton_harness::stack::Stack;
use serde_json::json;
use serde_json::value::RawValue;

use crate::fixture::{assert_whole, call, model, options};

/// The turns of the run: as many as one may have.
const TURNS: usize = 10;
/// The turn during which the worker is killed.
const KILLED: usize = 5;

/// Returns the results in a request, which are as many as the turns before it.
fn results(request: &Recorded) -> usize {
    let messages = request.body["messages"].as_array().unwrap();
    let results = messages.iter().filter(|message| message["role"] == "tool");
    results.count()
}

/// Splits a request into the bytes of its messages, without the end of the list, and its other fields.
fn split(request: &Recorded) -> (String, BTreeMap<String, String>) {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&request.bytes).unwrap();
    let texts = fields
        .into_iter()
        .map(|(name, json)| (name, json.get().to_owned()));
    let mut fields: BTreeMap<String, String> = texts.collect();
    let messages = fields.remove("messages").unwrap();
    (messages.strip_suffix(']').unwrap().to_owned(), fields)
}

/// Guards caches of prompts: each turn repeats the bytes of the one before, and adds to them; so does the
/// next attempt after a takeover.
#[tokio::test]
async fn each_turn_begins_with_the_bytes_of_the_one_before_also_after_a_takeover() {
    let model = model(|request| match (results(request), request.index) {
        // The worker dies while it waits for this answer.
        (KILLED, KILLED) => Reply::tokens(0).hang(),
        (turn, _) if turn + 1 == TURNS => Reply::text("Counted."),
        (turn, _) => {
            let sum = json!({"expression": format!("{turn} + 0.5")});
            call("\u{fc}ber \"\u{1f980}\"\n", "calculator", &sum)
        }
    })
    .await;
    let stack = Stack::start(options(&model).short_lease()).await.unwrap();
    let (ingress, _scheduler, first) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let run = json!({
        "model": "script", "input": "Count to nine \u{2028} and a half.", "params": {"temperature": 0.10},
    });
    let id = client.submit(&run).await.unwrap();
    model
        .wait_until(|counts| counts.requests == KILLED + 1)
        .await;
    first.kill().await;
    let _second = stack.worker().await.unwrap();
    let text = "\u{fc}ber \"\u{1f980}\"\n".repeat(TURNS - 1) + "Counted.";
    let (run, _) = assert_whole(&client, &id, &text).await;
    assert_eq!(run["attempt"], 2);

    let requests = model.requests();
    assert_eq!(requests.len(), TURNS + 1);
    for pair in requests.windows(2) {
        let ((before, fields), (after, same)) = (split(&pair[0]), split(&pair[1]));
        assert_eq!(fields, same);
        let added = after.strip_prefix(&before);
        assert!(added.is_some(), "{before}\nand then\n{after}");
        let repeated = pair[1].index == KILLED + 1;
        assert_eq!(
            added == Some(""),
            repeated,
            "only the takeover asks the same again"
        );
    }
}
