//! The roles' log lines: one for each request and one for each run, with the field names that
//! `docs/logs.md` lists.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::{Map, Value, json};

use crate::fixture::{call, chat, has_tool_result, model, options};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A line with the fields of its spans, in the view of a reader of logs.
type Line = Map<String, Value>;

/// Returns the lines with this message, once there are that many.
async fn until_lines(stack: &Stack, message: &str, count: usize) -> Vec<Line> {
    let found = async {
        loop {
            let lines: Vec<_> = lines(&stack.logged().unwrap())
                .into_iter()
                .filter(|line| line["message"] == message)
                .collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("there is no line `{message}`"))
}

/// # Panics
///
/// If a line is not JSON.
fn lines(logged: &str) -> Vec<Line> {
    let complete = logged.lines().filter(|line| line.ends_with('}'));
    complete
        .map(|line| {
            let mut line: Line = serde_json::from_str(line).unwrap();
            if let Some(Value::Array(spans)) = line.remove("spans") {
                for span in spans {
                    let Value::Object(mut fields) = span else {
                        panic!("a span is an object")
                    };
                    fields.remove("name");
                    line.extend(fields);
                }
            }
            line
        })
        .collect()
}

/// Returns the field names of `docs/logs.md`: the first column of its tables.
fn documented() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/logs.md");
    let page = std::fs::read_to_string(page).unwrap();
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Guards the lines that support looks for: one per run and one per request, connected by their
/// ids, and without a field that the page does not list.
#[tokio::test]
async fn a_run_leaves_one_line_in_the_worker_and_its_request_one_in_the_ingress() {
    let asked = AtomicBool::new(false);
    let model = model(move |request| {
        if has_tool_result(request) {
            if asked.swap(true, Ordering::Relaxed) {
                Reply::text("It is 127.05.")
            } else {
                Reply::status(503)
            }
        } else {
            call(
                "Let me see. ",
                "calculator",
                &json!({"expression": "15% of 847"}),
            )
        }
    })
    .await;
    let stack = Stack::start(options(&model).set("RUST_LOG", "info"))
        .await
        .unwrap();
    let (ingress, _worker) = (
        stack.ingress().await.unwrap(),
        stack.worker().await.unwrap(),
    );
    let client = stack.client(&ingress);
    let trace = [("traceparent", TRACE)];
    let mut answer = client.chat_with(&chat(), &trace).await.unwrap();
    answer.finish().await.unwrap();
    assert!(answer.done, "{:?}", answer.error);
    drop(answer);

    let ended = until_lines(&stack, "run ended", 1).await;
    let answered = until_lines(&stack, "answered", 1).await;
    let chats: Vec<_> = answered
        .iter()
        .filter(|line| line["route"] == "/v1/chat/completions")
        .collect();
    let ([ended], [answered]) = (&ended[..], &chats[..]) else {
        panic!("one line each: {ended:#?} {chats:#?}")
    };
    assert_eq!(ended["status"], "completed");
    assert_eq!(
        (&ended["turns"], &ended["tool_calls"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(ended["attempt"], 1);
    for name in [
        "input_tokens",
        "output_tokens",
        "queue_wait_ms",
        "first_token_ms",
        "duration_ms",
    ] {
        assert!(ended[name].is_number(), "{name}: {ended:#?}");
    }
    for name in ["run.id", "tenant.id", "request.id", "trace.id"] {
        assert!(ended[name].is_string(), "{name}: {ended:#?}");
        assert_eq!(ended[name], answered[name], "{name}");
    }
    assert_eq!(ended["trace.id"], TRACE.split('-').nth(1).unwrap());
    let again = until_lines(&stack, "the model server is asked again", 1).await;
    for name in ["run.id", "tenant.id", "request.id", "trace.id", "attempt"] {
        assert_eq!(again[0][name], ended[name], "{name}");
    }
    // The first turn is step 1, its call is step 2.
    assert_eq!(again[0]["step"], 3);
    assert_eq!(
        (&answered["status"], &answered["method"]),
        (&json!(200), &json!("POST"))
    );
    assert_eq!(answered["stream.end"], "finished");
    assert_eq!(answered["client.address"], "127.0.0.1");
    assert!(
        answered["caller"].as_str().unwrap().starts_with("api_key:"),
        "{answered:#?}"
    );
    assert!(answered["bytes"].as_u64().unwrap() > 100, "{answered:#?}");
    let (head, whole) = (&answered["head_ms"], &answered["duration_ms"]);
    assert!(head.as_f64().unwrap() <= whole.as_f64().unwrap());

    let starts = until_lines(&stack, "starting", 2).await;
    let roles: BTreeSet<_> = starts
        .iter()
        .map(|line| line["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, BTreeSet::from(["ingress", "worker"]));

    let documented = documented();
    for line in lines(&stack.logged().unwrap()) {
        for name in line.keys() {
            assert!(
                documented.contains(name),
                "docs/logs.md lacks {name}: {line:#?}"
            );
        }
    }
}
