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

const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn question(step: u32) -> String {
    format!(
        r#"{{"type":"mcp_approval_request","id":"mcpr_{RUN}_{step}","server_label":"crm","name":"pay","arguments":"{{}}"}}"#
    )
}

fn answer(step: u32, approve: bool) -> String {
    format!(
        r#"{{"type":"mcp_approval_response","approval_request_id":"mcpr_{RUN}_{step}","approve":{approve},"reason":"no"}}"#
    )
}

fn with_input(items: &[String], fields: &str) -> Result<CreateResponse, Invalid> {
    let tools = r#""tools":[{"type":"mcp","server_label":"crm"}]"#;
    parse(&format!(
        r#""model":"m","input":[{}],{tools}{fields}"#,
        items.join(",")
    ))
}

#[test]
fn answers_are_at_the_end_of_an_input_and_of_one_response() {
    let user = r#"{"role":"user","content":"x"}"#.to_owned();
    let other = answer(2, true).replace("01890a5d", "01890a5e");
    let previous = format!(r#","previous_response_id":"resp_{RUN}""#);
    let strange = previous.replace("01890a5d", "01890a5e");
    let conversation = format!(r#","conversation":"conv_{RUN}""#);
    for (items, fields, param) in [
        (
            vec![answer(2, true).replace("mcpr_", "mcp_")],
            "",
            "input[0].approval_request_id",
        ),
        (
            vec![answer(2, true), answer(2, false)],
            "",
            "input[1].approval_request_id",
        ),
        (
            vec![answer(2, true), other],
            "",
            "input[1].approval_request_id",
        ),
        (
            vec![question(2), answer(2, true), user.clone()],
            "",
            "input[1]",
        ),
        (vec![question(2), user.clone()], "", "input[0]"),
        (vec![answer(2, false), user.clone()], "", "input[0]"),
        (vec![user.clone(), answer(2, true)], &previous, "input"),
        (vec![answer(2, true)], &strange, "previous_response_id"),
        (vec![answer(2, true)], &conversation, "conversation"),
    ] {
        let error = with_input(&items, fields).unwrap_err();
        assert_eq!(
            error.param.as_deref(),
            Some(param),
            "{items:?}{fields}: {error}"
        );
    }
}

#[test]
fn answered_calls_are_approved_as_they_waited_or_have_their_rejection_as_a_result() {
    let waiting = |step: u32| WaitingCall {
        step,
        call_id: format!("call_{step}"),
        offered: "crm__pay".into(),
        arguments: r#"{"amount":7}"#.into(),
    };
    let user = r#"{"role":"user","content":"x"}"#.to_owned();
    let whole = [
        user,
        question(2),
        question(3),
        answer(2, true),
        answer(3, false),
    ];
    let previous = format!(r#","previous_response_id":"resp_{RUN}""#);
    for (items, fields, roles) in [
        (&whole[..], "", &["user", "assistant", "tool"][..]),
        (&whole[3..], &*previous, &["tool"][..]),
    ] {
        let mut read = with_input(items, fields).unwrap();
        let unknown = read.apply_answers(&[waiting(2), waiting(3)]).unwrap_err();
        assert_eq!(
            unknown.param.as_deref(),
            Some("tools"),
            "no tool is offered yet"
        );
        let mut read = with_input(items, fields).unwrap();
        read.offer_tools(&[crm()], Err("no worker")).unwrap();
        let missing = read.apply_answers(&[waiting(2), waiting(4)]).unwrap_err();
        assert_eq!(missing.code, "approval_missing");
        let mut read = with_input(items, fields).unwrap();
        read.offer_tools(&[crm()], Err("no worker")).unwrap();
        read.apply_answers(&[waiting(2), waiting(3)]).unwrap();
        let approved: Vec<_> = read
            .server_tools
            .iter()
            .flat_map(|tool| &tool.approved)
            .collect();
        assert_eq!(approved.len(), 1);
        assert_eq!(
            (&*approved[0].id, &*approved[0].arguments),
            ("call_2", r#"{"amount":7}"#)
        );
        let messages = read.messages(Vec::new());
        let shown: Vec<_> = messages.iter().map(|message| &*message.role).collect();
        assert_eq!(shown, roles);
        let result = messages.last().unwrap();
        assert_eq!(result.tool_call_id.as_deref(), Some("call_3"));
        assert!(
            result.plain_text().ends_with("The reason: no"),
            "{result:?}"
        );
    }
}
