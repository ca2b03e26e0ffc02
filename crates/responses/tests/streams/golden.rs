//! Golden files: the stream of each kind of run, byte by byte. `UPDATE_GOLDEN=1` writes them.
//! testing/compat reads the same files with the official SDK's types.

use std::path::Path;

use baton_protocol::{EventId, FinishReason};
use baton_responses::checker::StreamChecker;

use super::log::{Log, head, stream};

fn check(name: &str, fields: &str, log: &Log) -> StreamChecker {
    let frames = stream(head(fields), &log.events, None, false);
    let checker = StreamChecker::read(&frames).unwrap_or_else(|breach| panic!("{name}: {breach}"));
    checker
        .finish()
        .unwrap_or_else(|breach| panic!("{name}: {breach}"));
    compare(name, &frames);
    checker
}

/// Compares frames with their golden file.
fn compare(name: &str, frames: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.sse"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, frames).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == frames,
        "{name} is not its golden file: look at the difference, then UPDATE_GOLDEN=1\n{frames}"
    );
}

fn output(checker: &StreamChecker) -> Vec<String> {
    let response = checker.response.as_ref().unwrap();
    let items = response["output"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            format!(
                "{} {}",
                item["type"].as_str().unwrap(),
                item["status"].as_str().unwrap_or("sealed")
            )
        })
        .collect()
}

#[test]
fn text() {
    let mut log = Log::begun();
    log.text("Hello").text(", world").text("");
    log.counts("prompt_tokens_details", r#"{"cached_tokens":4}"#);
    log.completed(FinishReason::Stop);
    let checker = check("text", "", &log);
    assert_eq!(output(&checker), ["message completed"]);
    let usage = &checker.response.unwrap()["usage"];
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 4);
    assert_eq!(usage["total_tokens"], 19);
}

#[test]
fn text_with_reset() {
    let mut log = Log::begun();
    log.text("Hel").lost(EventId::new(1, 1));
    log.text("Hello").completed(FinishReason::Stop);
    let checker = check("text_with_reset", "", &log);
    assert_eq!(checker.items[0].done.as_deref(), Some("incomplete"));
    assert_eq!(checker.items[1].texts, ["Hello"]);
    assert_eq!(output(&checker), ["message completed"]);
}

#[test]
fn client_calls() {
    let mut log = Log::begun();
    log.text("Let me look.");
    log.call(0, true, "{\"city\":").call(1, true, "{}");
    log.call(0, false, "\"Oslo\"}");
    log.completed(FinishReason::ToolCalls);
    let tools = r#","tools":[{"type":"function","name":"weather","parameters":{"type":"object"}}]"#;
    let checker = check("client_calls", tools, &log);
    assert_eq!(checker.items[1].texts, [r#"{"city":"Oslo"}"#]);
    assert_eq!(
        output(&checker),
        [
            "message completed",
            "function_call completed",
            "function_call completed"
        ]
    );
}

#[test]
fn server_tool() {
    let mut log = Log::begun();
    log.turn_recorded().server_call("42").next_step();
    log.text("It is 42.").completed(FinishReason::Stop);
    let checker = check("server_tool", "", &log);
    assert_eq!(
        output(&checker),
        [
            "function_call completed",
            "function_call_output completed",
            "message completed"
        ]
    );
}

/// Two calls at a time, one of which fails: each item is open from its call's beginning to its result.
#[test]
fn mcp() {
    let mut log = Log::begun();
    log.text("I look.").turn_recorded();
    log.mcp_started(2, "crm__find").mcp_started(3, "gone__run");
    log.mcp_finished(3, "gone__run", false);
    log.mcp_finished(2, "crm__find", true);
    log.step = 4;
    log.text("Found.").completed(FinishReason::Stop);
    let checker = check("mcp", MCP, &log);
    assert_eq!(
        output(&checker),
        [
            "mcp_list_tools sealed",
            "mcp_list_tools sealed",
            "message completed",
            "mcp_call completed",
            "mcp_call failed",
            "message completed"
        ]
    );
    let response = checker.response.unwrap();
    assert_eq!(response["output"][0]["tools"][0]["name"], "find");
    assert_eq!(response["output"][0]["error"], serde_json::Value::Null);
    assert_eq!(response["output"][1]["tools"], serde_json::json!([]));
    assert!(
        response["output"][1]["error"]
            .as_str()
            .unwrap()
            .contains("cannot be used")
    );
    assert_eq!(response["output"][3]["server_label"], "crm");
    assert_eq!(response["output"][3]["name"], "find");
    assert_eq!(response["output"][3]["output"], "found");
}

/// A call that a later attempt makes again is one item; one that a cancel breaks off is incomplete on the
/// stream, and no part of the response.
#[test]
fn mcp_lost_and_cancelled() {
    let mut log = Log::begun();
    log.turn_recorded();
    log.mcp_started(2, "crm__find").mcp_started(3, "crm__pay");
    let recorded = log.mcp_finished(2, "crm__find", true).last();
    log.lost(recorded).mcp_started(3, "crm__pay").cancelled();
    let background = format!(r#"{MCP},"background":true"#);
    let checker = check("mcp_lost_and_cancelled", &background, &log);
    let done: Vec<_> = checker
        .items
        .iter()
        .filter_map(|item| item.done.as_deref())
        .collect();
    assert_eq!(done, ["completed", "completed", "completed", "incomplete"]);
    assert_eq!(
        output(&checker)[2..],
        ["mcp_call completed".to_owned()],
        "a call without a result is no item of the response"
    );
}

/// The stream of a run that waits ends with its requests, and not if it waits for anything else.
#[test]
fn mcp_approval() {
    let mut log = Log::begun();
    log.text("I ask.").turn_recorded();
    log.asked(2, "crm__pay", "approval required");
    let parked = |log: &Log| {
        let mut stream = baton_responses::ResponseStream::new(head(MCP), None);
        let mut out = bytes::BytesMut::new();
        stream.begin(&mut out);
        for event in &log.events {
            stream.write(&mut out, event);
        }
        if stream.waits_for_answers() {
            stream.park(&mut out);
        }
        String::from_utf8(out.to_vec()).unwrap()
    };
    let frames = parked(&log);
    let checker = StreamChecker::read(&frames).unwrap();
    checker.finish().unwrap();
    compare("mcp_approval", &frames);
    let expected = ["message completed", "mcp_approval_request sealed"];
    assert_eq!(output(&checker)[2..], expected);
    let response = checker.response.unwrap();
    assert_eq!(response["status"], "completed");
    assert_eq!(response["usage"]["total_tokens"], 9);

    // Somebody decides at the other door: the same run goes on, and the record has the call alone.
    let asked = log.last();
    log.lost(asked).mcp_started(2, "crm__pay");
    log.mcp_finished(2, "crm__pay", true);
    log.step = 3;
    log.text("Paid.").completed(FinishReason::Stop);
    let frames = stream(head(MCP), &log.events, None, false);
    let checker = StreamChecker::read(&frames).unwrap();
    checker.finish().unwrap();
    let expected = [
        "message completed",
        "mcp_call completed",
        "message completed",
    ];
    assert_eq!(output(&checker)[2..], expected);

    for (name, reason) in [
        ("calculator", "approval required"),
        ("crm__pay", "outcome unknown"),
    ] {
        let mut log = Log::begun();
        log.turn_recorded()
            .asked(2, "crm__pay", "approval required");
        log.asked(3, name, reason);
        assert!(
            !parked(&log).contains("response.completed"),
            "{name} {reason}"
        );
    }
}

/// The tools of the goldens of MCP servers.
const MCP: &str = r#","tools":[{"type":"mcp","server_label":"crm","server_description":"Our customers",
    "allowed_tools":["find","pay"],"require_approval":{"always":{"tool_names":["pay"]},"never":{"read_only":true}}},
    {"type":"mcp","server_label":"gone","server_url":"https://gone.example/mcp/"}]"#;

#[test]
fn compaction() {
    let mut log = Log::begun();
    log.turn_recorded()
        .server_call("42")
        .compacted()
        .next_step();
    log.text("It is 42.").completed(FinishReason::Stop);
    let fields = r#","context_management":[{"type":"compaction","compact_threshold":1000}]"#;
    let checker = check("compaction", fields, &log);
    assert_eq!(
        output(&checker),
        [
            "function_call completed",
            "function_call_output completed",
            "compaction sealed",
            "message completed"
        ]
    );
}

#[test]
fn reasoning() {
    let mut log = Log::begun();
    log.reasoning("Hm").reasoning(", yes.").text("Yes.");
    log.counts("completion_tokens_details", r#"{"reasoning_tokens":3}"#);
    log.completed(FinishReason::Stop);
    let checker = check("reasoning", r#","reasoning":{"effort":"low"}"#, &log);
    assert_eq!(
        output(&checker),
        ["reasoning completed", "message completed"]
    );
}

#[test]
fn refusal() {
    let mut log = Log::begun();
    log.refusal("I can")
        .refusal("not.")
        .completed(FinishReason::Stop);
    check("refusal", "", &log);
}

#[test]
fn failure() {
    let mut log = Log::begun();
    log.text("Hel").failed("upstream_idle_timeout");
    let checker = check("failure", "", &log);
    assert_eq!(output(&checker), ["message incomplete"]);
}

#[test]
fn cancel() {
    let mut log = Log::begun();
    log.text("Hel").cancelled();
    let checker = check("cancel", "", &log);
    assert_eq!(checker.response.unwrap()["status"], "cancelled");
}

#[test]
fn length_limit() {
    let mut log = Log::begun();
    log.text("Hello, wor").completed(FinishReason::Length);
    let checker = check("length_limit", r#","max_output_tokens":3"#, &log);
    assert_eq!(output(&checker), ["message incomplete"]);
}

#[test]
fn background() {
    let mut log = Log::begun();
    log.text("Done.").completed(FinishReason::Stop);
    let fields = r#","background":true,"service_tier":"flex","metadata":{"k":"v"},"instructions":"Be brief.""#;
    check("background", fields, &log);
}
