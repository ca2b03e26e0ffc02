use super::*;
use crate::{CreateResponse, Invalid};

const BASE: &str = r#""model":"m","input":"hi""#;

fn parse(fields: &str) -> Result<CreateResponse, Invalid> {
    CreateResponse::parse(format!("{{{fields}}}").as_bytes())
}

fn crm() -> McpServer {
    let tool = |name: &str| McpTool {
        name: name.into(),
        offered: format!("crm__{name}"),
    };
    McpServer {
        label: "crm".into(),
        address: Some("https://crm.example/mcp".into()),
        trusts_hints: false,
        tools: vec![tool("find"), tool("pay")],
    }
}

#[test]
fn a_server_that_cannot_be_used_as_asked_is_refused_by_the_field() {
    for (tool, param, says) in [
        (
            r#""server_label":"x""#,
            "tools[0].server_label",
            "there are: crm",
        ),
        (
            r#""server_label":"crm","server_url":"https://evil.example/mcp""#,
            "tools[0].server_url",
            "registered",
        ),
        (
            r#""server_label":"crm","server_url":"https://crm.example/mcp?key=x""#,
            "tools[0].server_url",
            "registered",
        ),
        (
            r#""server_label":"crm","allowed_tools":["find","steal"]"#,
            "tools[0].allowed_tools[1]",
            "find, pay",
        ),
        (
            r#""server_label":"crm","require_approval":{"never":{"tool_names":["steal"]}}"#,
            "tools[0].require_approval.never.tool_names[0]",
            "find, pay",
        ),
        (
            r#""server_label":"crm","require_approval":{"never":{"read_only":true}}"#,
            "tools[0].require_approval.never.read_only",
            "trusts",
        ),
    ] {
        let read = parse(&format!(r#"{BASE},"tools":[{{"type":"mcp",{tool}}}]"#)).unwrap();
        let error = read.wanted_tools(&[crm()]).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{tool}: {error}");
        assert!(error.message.contains(says), "{tool}: {error}");
    }
    let clash = r#"{"type":"mcp","server_label":"crm"},{"type":"function","name":"crm__pay"}"#;
    let read = parse(&format!(r#"{BASE},"tools":[{clash}]"#)).unwrap();
    let error = read.wanted_tools(&[crm()]).unwrap_err();
    assert!(error.message.contains("crm__pay"), "{error}");
}

/// A request with one server, its tools offered.
fn offered(fields: &str) -> CreateResponse {
    let tool = format!(r#"{{"type":"mcp","server_label":"crm"{fields}}}"#);
    let mut read = parse(&format!(r#"{BASE},"tools":[{tool}]"#)).unwrap();
    read.wanted_tools(&[crm()]).unwrap();
    read.offer_tools(&[crm()], Err("no worker")).unwrap();
    read
}

#[test]
fn calls_wait_for_a_person_unless_the_request_says_otherwise() {
    for (fields, waiting) in [
        ("", "find, pay"),
        (r#","require_approval":"always""#, "find, pay"),
        (r#","require_approval":"never""#, ""),
        (
            r#","require_approval":{"never":{"tool_names":["find"]}}"#,
            "pay",
        ),
        (
            r#","require_approval":{"always":{"tool_names":["pay"]}}"#,
            "find, pay",
        ),
        (
            r#","require_approval":{"always":{"tool_names":["pay"]},"never":{"tool_names":["pay","find"]}}"#,
            "pay",
        ),
        (r#","allowed_tools":{"tool_names":["pay"]}"#, "pay"),
    ] {
        let read = offered(fields);
        let tools = read.server_tools.iter();
        let waits = tools.filter(|tool| !tool.approval.is_never());
        let waits: Vec<_> = waits.map(|tool| tool.name.replace("crm__", "")).collect();
        assert_eq!(waits.join(", "), waiting, "{fields}");
    }
    let read = offered(r#","allowed_tools":["pay"]"#);
    assert_eq!(read.left_out, ["crm__find"]);
    assert_eq!(read.settings.mcp[0].error.as_deref(), Some("no worker"));
}

#[test]
fn a_choice_of_a_servers_tool_has_its_name_for_the_model() {
    let tools = r#""tools":[{"type":"mcp","server_label":"crm"},{"type":"function","name":"f"}]"#;
    let choice = |choice: &str| {
        let mut read = parse(&format!(r#"{BASE},{tools},"tool_choice":{choice}"#))?;
        read.offer_tools(&[crm()], Err("no worker"))?;
        let given = read.params.get("tool_choice").unwrap().get().to_owned();
        Ok::<_, Invalid>(given)
    };
    let pay = r#"{"function":{"name":"crm__pay"},"type":"function"}"#;
    let one = choice(r#"{"type":"mcp","server_label":"crm","name":"pay"}"#).unwrap();
    assert_eq!(one, pay);
    let all = choice(r#"{"type":"mcp","server_label":"crm"}"#).unwrap();
    assert!(
        all.contains(r#""mode":"required""#) && all.contains("crm__find"),
        "{all}"
    );
    let some = choice(
        r#"{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"},
            {"type":"mcp","server_label":"crm","name":"pay"}]}"#,
    );
    let some = some.unwrap();
    assert!(
        some.contains(pay) && some.contains(r#""name":"f""#),
        "{some}"
    );
    assert_eq!(choice(r#""required""#).unwrap(), r#""required""#);
    let none = choice(r#"{"type":"mcp","server_label":"crm","name":"steal"}"#).unwrap_err();
    assert_eq!(none.param.as_deref(), Some("tool_choice"));
}

#[test]
fn calls_that_a_client_sends_back_are_calls_with_their_results() {
    let input = r#"[{"role":"user","content":"Pay Ada."},
        {"type":"mcp_list_tools","id":"mcpl_1","server_label":"crm","tools":[{"name":"pay","input_schema":{}}]},
        {"type":"mcp_call","id":"mcp_1","server_label":"crm","name":"pay","arguments":"{}","output":"paid","error":null,
         "approval_request_id":null,"status":"completed"},
        {"type":"mcp_call","id":"mcp_2","server_label":"old.one","name":"x","arguments":"{}","output":null,"status":"failed",
         "error":{"type":"mcp_tool_execution_error","content":[{"type":"text","text":"no money"}]}},
        {"role":"assistant","content":"Paid."}]"#;
    let mut read = parse(&format!(
        r#""model":"m","input":{input},"tools":[{{"type":"mcp","server_label":"crm"}}]"#
    ))
    .unwrap();
    read.offer_tools(&[crm()], Err("no worker")).unwrap();
    read.name_calls(Vec::new());
    let messages = read.messages(Vec::new());
    let shown: Vec<_> = messages
        .iter()
        .map(|message| {
            let calls = message.tool_calls.iter().flatten();
            let calls = calls.map(|call| format!("{} {} ", call.id, call.name()));
            let calls = calls.collect::<Vec<_>>().concat();
            format!("{}: {calls}{}", message.role, message.plain_text())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "user: Pay Ada.",
            "assistant: mcp_1 crm__pay ",
            "tool: paid",
            "assistant: mcp_2 old_one__x ",
            "tool: no money",
            "assistant: Paid.",
        ]
    );
    let items = crate::items::to_items(&messages);
    let items = crate::items::with_mcp_calls(items, &read.settings.mcp_tools);
    let kinds: Vec<_> = items
        .iter()
        .map(|item| {
            serde_json::to_value(item).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(kinds, ["message", "mcp_call", "mcp_call", "message"]);
}
