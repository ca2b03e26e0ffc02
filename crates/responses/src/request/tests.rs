use super::params::{MAX_TRAVELLING_BYTES, MAX_TRAVELLING_FIELDS};
use super::*;
use crate::fields::{FIELDS, Use};

const BASE: &str = r#""model":"m","input":"hi""#;

fn parse(fields: &str) -> Result<CreateResponse, Invalid> {
    CreateResponse::parse(format!("{{{fields}}}").as_bytes())
}

/// Writes a body with one field, which may be a path, set to a value.
fn body_with(field: &str, value: &str) -> String {
    let mut fields: Vec<(String, String)> = [("model", "\"m\""), ("input", "\"hi\"")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let (name, value) = match field.split_once('.') {
        Some((outer, inner)) => (outer, format!(r#"{{"{inner}":{value}}}"#)),
        None => (field, value.to_owned()),
    };
    fields.retain(|(known, _)| known != name);
    fields.push((name.to_owned(), value));
    if name == "agent" {
        fields.retain(|(known, _)| known != "model");
    }
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!(r#""{name}":{value}"#))
        .collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn every_field_of_the_table_is_read_as_it_says() {
    for field in FIELDS {
        for value in field.accepted {
            let body = body_with(field.name, value);
            let read = CreateResponse::parse(body.as_bytes());
            let read = read.unwrap_or_else(|error| panic!("{body}: {error}"));
            if let Use::PassedOn(name) = field.used
                && !["{\"type\":\"text\"}", "null"].contains(value)
                && !["tool_choice", "parallel_tool_calls"].contains(&field.name)
            {
                assert!(read.params.get(name).is_some(), "{body}");
            }
        }
        for value in field.refused {
            let body = body_with(field.name, value);
            let error = CreateResponse::parse(body.as_bytes());
            let Err(error) = error else {
                panic!("{body} was accepted")
            };
            let param = error.param.unwrap_or_default();
            assert!(param.starts_with(field.name), "{body}: {param}");
            assert!(
                error.message.contains(field.name),
                "{body}: {}",
                error.message
            );
        }
    }
}

#[test]
fn a_field_that_the_table_does_not_name_travels() {
    let read = parse(&format!(r#"{BASE},"top_k":[ 1.10 ],"seed":7"#)).unwrap();
    assert_eq!(read.params.as_raw().get(), r#"{"top_k":[ 1.10 ],"seed":7}"#);
}

#[test]
fn fields_get_the_names_of_the_chat_api() {
    let read = parse(&format!(
        r#"{BASE},"max_output_tokens":9,"reasoning":{{"effort":"low"}},"text":{{"format":{{"type":"json_schema",
        "name":"n","schema":{{"b":1,"a":2}},"strict":true}},"verbosity":"low"}},
        "tools":[{{"type":"function","name":"f","parameters":{{"b":1,"a":2}}}}],"tool_choice":{{"type":"function","name":"f"}}"#
    ))
    .unwrap();
    let params = read.params.as_raw().get();
    for part in [
        r#""max_completion_tokens":9"#,
        r#""reasoning_effort":"low""#,
        r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"b":1,"a":2},"strict":true}}"#,
        r#""verbosity":"low""#,
        r#""tool_choice":{"function":{"name":"f"},"type":"function"}"#,
    ] {
        assert!(params.contains(part), "{part} in {params}");
    }
    assert_eq!(
        read.tools.unwrap().get(),
        r#"[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2}}}]"#
    );
    assert_eq!(
        read.settings.tools.get(),
        r#"[{"type":"function","name":"f","description":null,"parameters":{"b":1,"a":2},"strict":false}]"#
    );
    assert_eq!(
        read.settings.text.get(),
        r#"{"format":{"type":"json_schema","name":"n","description":null,"schema":{"b":1,"a":2},"strict":true},"verbosity":"low"}"#
    );
}

#[test]
fn a_refusal_names_the_path() {
    for (fields, param) in [
        (r#""input":"hi""#.to_owned(), Some("model")),
        (r#""model":"m""#.to_owned(), Some("input")),
        (r#""model":"m","input":{}"#.to_owned(), Some("input")),
        (r#""model":"m","input":[7]"#.to_owned(), Some("input[0]")),
        (
            r#""model":"m","input":[{"role":"user","content":"x"},{"role":"robot","content":"x"}]"#.to_owned(),
            Some("input[1].role"),
        ),
        (
            r#""model":"m","input":[{"role":"user"}]"#.to_owned(),
            Some("input[0].content"),
        ),
        (
            r#""model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_image","image_url":7}]}]"#.to_owned(),
            Some("input[0].content[1].image_url"),
        ),
        (
            r#""model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"file:///x"}]}]"#.to_owned(),
            Some("input[0].content[0].image_url"),
        ),
        (
            r#""model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]"#.to_owned(),
            Some("input[0].content[0].file_id"),
        ),
        (
            r#""model":"m","input":[{"role":"user","content":[{"type":"output_text","text":"x"}]}]"#.to_owned(),
            Some("input[0].content[0].type"),
        ),
        (
            r#""model":"m","input":[{"role":"user","content":"x","colour":1}]"#.to_owned(),
            Some("input[0].colour"),
        ),
        (
            r#""model":"m","input":[{"type":"function_call","call_id":"c","name":"f"}]"#.to_owned(),
            Some("input[0].arguments"),
        ),
        (
            r#""model":"m","input":[{"type":"function_call_output","call_id":"c","output":7}]"#.to_owned(),
            Some("input[0].output"),
        ),
        (
            r#""model":"m","input":[{"type":"reasoning","encrypted_content":"x","summary":[]}]"#.to_owned(),
            Some("input[0].encrypted_content"),
        ),
        (
            r#""model":"m","input":[{"type":"mcp_call","server_label":"s","name":"n","arguments":"{}"}]"#.to_owned(),
            Some("input[0]"),
        ),
        (
            r#""model":"m","input":[{"type":"mcp_list_tools","server_label":"s","tools":[{}]}]"#.to_owned(),
            Some("input[0].tools[0].name"),
        ),
        (
            r#""model":"m","input":[{"type":"mcp_approval_response"}]"#.to_owned(),
            Some("input[0].approval_request_id"),
        ),
        (
            format!(r#"{BASE},"tools":[{{"type":"function","name":"f"}},{{"type":"function","name":"f"}}]"#),
            Some("tools[1].name"),
        ),
        (
            format!(r#"{BASE},"tools":[{{"type":"function","name":"f","parameters":[]}}]"#),
            Some("tools[0].parameters"),
        ),
        (format!(r#"{BASE},"stream":true,"stream":true"#), Some("stream")),
        (format!(r#"{BASE},"x":"\ud800""#), Some("x")),
        (format!(r#"{BASE},"metadata":{{"k":"\ud800"}}"#), Some("metadata.k")),
        (r#""model":"m\n","input":"x""#.to_owned(), Some("model")),
        ("7".to_owned(), None),
    ] {
        let error = parse(&fields).unwrap_err();
        assert_eq!(error.param.as_deref(), param, "{fields}: {error}");
    }
    assert_eq!(
        CreateResponse::parse(b"[]").unwrap_err().param,
        None,
        "an array"
    );
}

#[test]
fn what_travels_is_limited() {
    let large = format!(r#"{BASE},"x":"{}""#, "y".repeat(MAX_TRAVELLING_BYTES));
    assert_eq!(parse(&large).unwrap_err().code, "fields_too_large");
    let many: Vec<_> = (0..=MAX_TRAVELLING_FIELDS)
        .map(|n| format!(r#""f{n}":0"#))
        .collect();
    let many = format!("{BASE},{}", many.join(","));
    assert_eq!(parse(&many).unwrap_err().code, "too_many_fields");
}

#[test]
fn instructions_precede_the_conversation() {
    let read = parse(&format!(r#"{BASE},"instructions":"Be brief.""#)).unwrap();
    let earlier = vec![Message::text("user", "a"), Message::text("assistant", "b")];
    let roles: Vec<_> = read
        .messages(earlier)
        .into_iter()
        .map(|message| format!("{}: {}", message.role, message.plain_text()))
        .collect();
    assert_eq!(
        roles,
        ["system: Be brief.", "user: a", "assistant: b", "user: hi"]
    );
}

#[test]
fn a_count_asks_for_one_token_that_is_not_kept() {
    let count = |fields: &str| CreateResponse::parse_count(format!("{{{fields}}}").as_bytes());
    let read = count(&format!(r#"{BASE},"seed":7,"text":null"#)).unwrap();
    assert_eq!(
        read.params.as_raw().get(),
        r#"{"seed":7,"max_completion_tokens":1}"#
    );
    assert!(!read.settings.store);
    for enough in [
        r#""instructions":"Be brief.""#,
        r#""previous_response_id":"resp_01890a5d-ac96-774b-bcce-b302099a8057""#,
        r#""conversation":"conv_01890a5d-ac96-774b-bcce-b302099a8057""#,
    ] {
        count(&format!(r#""model":"m",{enough}"#)).unwrap();
    }
    let nothing = count(r#""model":"m""#).unwrap_err();
    assert_eq!(nothing.param.as_deref(), Some("input"));
}

#[test]
fn a_count_takes_the_fields_that_the_model_reads_and_refuses_all_others_by_name() {
    let read = [
        "model",
        "agent",
        "input",
        "instructions",
        "previous_response_id",
        "conversation",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text.format",
        "text.verbosity",
        "reasoning.effort",
        "reasoning.summary",
    ];
    let neutral = ["include", "truncation", "top_logprobs"];
    for field in FIELDS {
        for value in field.accepted.iter().filter(|value| **value != "null") {
            let body = body_with(field.name, value);
            let count = CreateResponse::parse_count(body.as_bytes());
            let expected = read.contains(&field.name) || neutral.contains(&field.name);
            assert_eq!(count.is_ok(), expected, "{body}: {count:?}");
            if let Err(error) = count {
                assert_eq!(error.param.as_deref(), Some(field.name), "{body}");
            }
        }
    }
    let error = CreateResponse::parse_count(body_with("personality", "\"friendly\"").as_bytes());
    assert_eq!(error.unwrap_err().param.as_deref(), Some("personality"));
}

#[test]
fn a_limit_of_calls_and_the_kind_of_a_summary_are_kept_and_shown() {
    let read = parse(&format!(
        r#"{BASE},"max_tool_calls":3,"reasoning":{{"effort":"low","summary":"auto"}}"#
    ));
    let read = read.unwrap();
    let params = read.params.as_raw().get();
    assert_eq!(
        params,
        r#"{"reasoning_effort":"low","reasoning":{"summary":"auto"}}"#
    );
    let head = crate::ResponseHead {
        run: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        created_at: 5,
        model: "m".into(),
        settings: read.settings,
        metadata: None,
    };
    let snapshot = crate::Snapshot::empty(crate::Status::Queued);
    let shown = serde_json::to_value(head.object(&snapshot)).unwrap();
    assert_eq!(shown["max_tool_calls"], 3);
    let reasoning = serde_json::json!({"effort": "low", "summary": "auto"});
    assert_eq!(shown["reasoning"], reasoning);
}
