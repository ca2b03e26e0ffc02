use super::*;

fn check(definition: &str) -> Result<(), InvalidDefinition> {
    let definition: AgentDefinition = serde_json::from_str(definition).unwrap();
    let tools = ["calculator", "current_time", "mail"];
    definition.check(&tools.map(str::to_owned))
}

#[test]
fn a_definition_is_written_as_it_was_read() {
    let text = r#"{"name":"support","description":"d","instructions":"Hi {{user_name}}","model":"m","fallbacks":["n","o"],"tools":[{"type":"server","name":"calculator"},{"type":"server","name":"current_time","approval":"always"},{"type":"server","name":"mail","approval":{"when":{"required":["to"]}}}],"temperature":0.7,"top_p":0.9,"max_output_tokens":100,"reasoning":{"effort":"low"},"text":{"format":{"type":"json_schema","name":"s","schema":{"b":1,"a":2},"strict":true}},"limits":{"max_turns":3,"max_total_tokens":900,"max_tokens":800,"max_cost":"0.5","max_tool_calls":4,"max_wall_time":"5m"},"on_limit":"hand_back","metadata":{"z":1,"a":[2]}}"#;
    let definition: AgentDefinition = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&definition).unwrap(), text);
    assert_eq!(check(text), Ok(()));
    assert_eq!(
        serde_json::to_string(&serde_json::from_str::<AgentDefinition>(r#"{"name":"a"}"#).unwrap())
            .unwrap(),
        r#"{"name":"a"}"#
    );
}

#[test]
fn names_are_words_that_no_id_can_be() {
    for good in ["a", "support-2", &format!("a{}", "b".repeat(62))] {
        assert!(is_agent_name(good), "{good}");
    }
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for bad in [
        "",
        "2a",
        "-a",
        "A",
        "a_b",
        "a@1",
        "a b",
        "ä",
        id,
        &"a".repeat(64),
    ] {
        assert!(!is_agent_name(bad), "{bad}");
    }
}

#[test]
fn a_bad_value_is_refused_by_its_path() {
    let long = "x".repeat(40_000);
    for (fields, param) in [
        (format!(r#""description":"{long}""#), "description"),
        (format!(r#""instructions":"{long}""#), "instructions"),
        (r#""instructions":"a\u0000""#.to_owned(), "instructions"),
        (r#""instructions":"{{now}}""#.to_owned(), "instructions"),
        (r#""model":"""#.to_owned(), "model"),
        (r#""model":"m\n""#.to_owned(), "model"),
        (r#""fallbacks":[""]"#.to_owned(), "fallbacks[0]"),
        (r#""fallbacks":["n","m\n"]"#.to_owned(), "fallbacks[1]"),
        (format!(r#""fallbacks":["{long}"]"#), "fallbacks[0]"),
        (r#""model":"m","fallbacks":["m"]"#.to_owned(), "fallbacks[0]"),
        (r#""fallbacks":["n","n"]"#.to_owned(), "fallbacks[1]"),
        (
            r#""fallbacks":["1","2","3","4","5","6","7","8","9"]"#.to_owned(),
            "fallbacks",
        ),
        (r#""tools":[{"type":"server","name":"shell"}]"#.to_owned(), "tools[0].name"),
        (
            r#""tools":[{"type":"server","name":"calculator"},{"type":"server","name":"calculator"}]"#
                .to_owned(),
            "tools[1].name",
        ),
        (
            r#""tools":[{"type":"server","name":"calculator"},
                        {"type":"server","name":"calculator","approval":"always"}]"#
                .to_owned(),
            "tools[1].name",
        ),
        (r#""temperature":2.1"#.to_owned(), "temperature"),
        (r#""top_p":-0.1"#.to_owned(), "top_p"),
        (r#""max_output_tokens":0"#.to_owned(), "max_output_tokens"),
        (r#""limits":{"max_turns":0}"#.to_owned(), "limits.max_turns"),
        (
            r#""limits":{"max_total_tokens":99999999999}"#.to_owned(),
            "limits.max_total_tokens",
        ),
        (r#""limits":{"max_tokens":0}"#.to_owned(), "limits.max_tokens"),
        (r#""limits":{"max_cost":"free"}"#.to_owned(), "limits.max_cost"),
        (r#""limits":{"max_tool_calls":0}"#.to_owned(), "limits.max_tool_calls"),
        (r#""limits":{"max_wall_time":"0s"}"#.to_owned(), "limits.max_wall_time"),
        (r#""reasoning":{"effort":"HIGH!"}"#.to_owned(), "reasoning.effort"),
        (r#""text":{"format":{"type":"text","strict":true}}"#.to_owned(), "text.format.strict"),
        (r#""text":{"format":{"type":"json_schema","schema":{}}}"#.to_owned(), "text.format.name"),
        (
            r#""text":{"format":{"type":"json_schema","name":"s","schema":[]}}"#.to_owned(),
            "text.format.schema",
        ),
        (format!(r#""metadata":{{"x":"{long}"}}"#), "metadata"),
    ] {
        let error = check(&format!(r#"{{"name":"a",{fields}}}"#)).unwrap_err();
        assert_eq!(error.param, param, "{error}");
        assert!(error.message.contains(&format!("`{}", error.param)), "{error}");
    }
}

#[test]
fn a_field_that_is_not_served_is_refused_by_its_name() {
    for field in [
        "approval",
        "fallback_models",
        "mcp_servers",
        "limits\":{\"max_pages",
    ] {
        let text = format!(r#"{{"name":"a","{field}":1"#);
        let text = format!("{text}{}", "}".repeat(text.matches('{').count()));
        let error = serde_json::from_str::<AgentDefinition>(&text).unwrap_err();
        let named = field.rsplit('"').next().unwrap();
        assert!(error.to_string().contains(named), "{error}");
    }
}
