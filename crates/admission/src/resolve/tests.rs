use std::collections::BTreeSet;

use baton_protocol::{OnLimit, UseLimits};
use baton_routing::Knows;

use super::*;
use crate::agent::Agent;

fn any_model(knows: Knows) -> Routes {
    Routes::to_one("only", knows)
}

fn built_in() -> BuiltInAgent {
    BuiltInAgent {
        default_model: Some("house".into()),
        server_tools: vec!["calculator".into(), "current_time".into()],
        approval_required: BTreeSet::from(["current_time".to_owned()]),
        max_turns: 10,
    }
}

fn resolved(body: &str, grant: &Grant) -> Result<RunSpec, SubmitError> {
    resolve(
        SubmitRequest::parse_native(body.as_bytes()).unwrap(),
        &built_in(),
        grant,
        &any_model(Knows::default()),
    )
}

#[test]
fn the_agent_is_named_or_stands_in_model_or_is_the_default() {
    let any = Grant::default();
    for (body, model) in [
        (r#"{"agent":"default","input":"x"}"#, "house"),
        (r#"{"agent":"default","model":"m","input":"x"}"#, "m"),
        (
            r#"{"agent":"default","model":"default","input":"x"}"#,
            "house",
        ),
        (r#"{"model":"default","input":"x"}"#, "house"),
        (r#"{"model":"m","input":"x"}"#, "m"),
    ] {
        let spec = resolved(body, &any).unwrap();
        assert_eq!(spec.model, model, "{body}");
        assert_eq!(
            (spec.agent.name.as_str(), spec.agent.version),
            ("default", 0),
            "{body}"
        );
        let tools = OfferedTool::names(&spec.server_tools);
        assert_eq!(tools, "calculator, current_time", "{body}");
    }
    let unknown = resolved(r#"{"agent":"nobody","input":"x"}"#, &any).unwrap_err();
    assert!(matches!(unknown, SubmitError::UnknownAgent(name) if name == "nobody"));
}

#[test]
fn a_grant_limits_models_and_tools() {
    let grant = Grant {
        models: Some(vec!["m".into()]),
        tools: Some(vec!["calculator".into()]),
        ..Grant::default()
    };
    let spec = resolved(r#"{"model":"m","input":"x"}"#, &grant).unwrap();
    assert_eq!(OfferedTool::names(&spec.server_tools), "calculator");
    for body in [
        r#"{"model":"other","input":"x"}"#,
        r#"{"agent":"default","input":"x"}"#,
    ] {
        let refused = resolved(body, &grant).unwrap_err();
        assert!(matches!(refused, SubmitError::ModelNotAllowed(_)), "{body}");
    }
    let none = Grant {
        tools: Some(vec![]),
        ..Grant::default()
    };
    assert!(
        resolved(r#"{"model":"m","input":"x"}"#, &none)
            .unwrap()
            .server_tools
            .is_empty()
    );
}

#[test]
fn given_calls_are_confined_by_the_list_of_tools_alone() {
    let there = ["calculator".to_owned(), "current_time".to_owned()];
    let resolved = |names: [&str; 2], grant: &Grant| {
        let calls = names
            .map(|name| format!(r#"{{"name":"{name}"}}"#))
            .join(",");
        let body = format!(r#"{{"calls":[{calls}]}}"#);
        let request = SubmitRequest::parse_calls(body.as_bytes()).unwrap();
        resolve_given_calls(request, &there, &built_in(), grant)
    };
    let confined = Grant {
        models: Some(vec![]),
        tools: Some(vec!["calculator".into()]),
        ..Grant::default()
    };
    let spec = resolved(["calculator", "calculator"], &confined).unwrap();
    assert_eq!((spec.calls.len(), spec.server_tools.len()), (2, 1));
    let written = serde_json::to_value(&spec).unwrap();
    assert!(
        written.get("model").is_none(),
        "an older worker would ask a model: {written}"
    );
    let refused = resolved(["calculator", "current_time"], &confined).unwrap_err();
    assert!(matches!(refused, SubmitError::ToolNotAllowed(tool) if tool == "current_time"));
    let unknown = resolved(["calculator", "pay"], &Grant::default()).unwrap_err();
    assert!(matches!(unknown, SubmitError::UnknownTool(tool) if tool == "pay"));
}

#[test]
fn a_client_tool_replaces_the_server_tool_of_its_name() {
    let body = r#"{"model":"m","input":"x",
        "tools":[{"type":"function","function":{"name":"calculator"}}]}"#;
    let spec = resolved(body, &Grant::default()).unwrap();
    assert_eq!(OfferedTool::names(&spec.server_tools), "current_time");
}

#[test]
fn no_more_tools_than_an_upstream_takes_go_up_together() {
    let body = |count: usize, first: &str| {
        let names = (1..count).map(|n| format!("f{n}"));
        let tools = std::iter::once(first.to_owned()).chain(names);
        let tools = tools.map(|n| format!(r#"{{"type":"function","function":{{"name":"{n}"}}}}"#));
        let tools = tools.collect::<Vec<_>>().join(",");
        format!(r#"{{"model":"m","input":"x","tools":[{tools}]}}"#)
    };
    let any = Grant::default();
    let refused = resolved(&body(127, "f"), &any).unwrap_err();
    let SubmitError::Invalid(refused) = refused else {
        panic!("{refused}");
    };
    assert_eq!(
        (refused.code, refused.param.as_deref()),
        ("too_many_tools", Some("tools"))
    );
    for named in [
        "127",
        "`default`",
        "calculator, current_time",
        "128",
        "Leave out 1 ",
    ] {
        assert!(refused.message.contains(named), "{}", refused.message);
    }
    assert!(resolved(&body(126, "f"), &any).is_ok());
    // A tool of the caller's replaces the agent's of its name.
    assert!(resolved(&body(127, "calculator"), &any).is_ok());
    let no_tools = Grant {
        tools: Some(vec![]),
        ..Grant::default()
    };
    assert!(resolved(&body(128, "f"), &no_tools).is_ok());
}

#[test]
fn a_request_is_refused_by_the_part_that_the_upstream_lacks() {
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
    let one_call = r#""params":{"parallel_tool_calls":false}"#;
    let lacks_tools = Knows {
        tools: false,
        ..Knows::default()
    };
    let lacks_choice = Knows {
        parallel_tool_calls: false,
        ..Knows::default()
    };
    let lacks_format = Knows {
        response_format: false,
        ..Knows::default()
    };
    let format = |kind: &str| format!(r#""params":{{"response_format":{kind}}}"#);
    for (knows, rest, param) in [
        (
            lacks_format,
            format(r#"{"type":"json_object"}"#),
            Some("response_format"),
        ),
        (lacks_format, format(r#"{"type":"text"}"#), None),
        (lacks_format, format("null"), None),
        (lacks_tools, tools.to_owned(), Some("tools")),
        (lacks_tools, r#""tools":[]"#.to_owned(), None),
        (lacks_tools, r#""tools":null"#.to_owned(), None),
        (
            lacks_choice,
            format!("{tools},{one_call}"),
            Some("parallel_tool_calls"),
        ),
        (lacks_choice, tools.to_owned(), None),
        (
            lacks_choice,
            format!(r#"{tools},"params":{{"parallel_tool_calls":true}}"#),
            None,
        ),
        (Knows::default(), format!("{tools},{one_call}"), None),
    ] {
        let body = format!(r#"{{"model":"m","input":"x",{rest}}}"#);
        let request = SubmitRequest::parse_native(body.as_bytes()).unwrap();
        let agents = BuiltInAgent {
            server_tools: Vec::new(),
            ..built_in()
        };
        let refused = resolve(request, &agents, &Grant::default(), &any_model(knows)).err();
        let refused = refused.map(|error| match error {
            SubmitError::Invalid(invalid) => invalid.param.unwrap(),
            error => panic!("{error}"),
        });
        assert_eq!(refused.as_deref(), param, "{rest}");
    }
}

/// One agent besides the built-in one.
struct One(Agent);

impl AgentSource for One {
    fn find(&self, name: &str) -> Option<Agent> {
        (name == self.0.name).then(|| self.0.clone())
    }
}

#[test]
fn an_agent_adds_to_what_the_operator_requires_and_lifts_nothing() {
    let definition = |tools: &str| {
        let definition = format!(r#"{{"name":"support","model":"m","tools":[{tools}]}}"#);
        let agent = serde_json::from_str(&definition).unwrap();
        let agent = One(Agent::of(&agent, 1, &built_in()));
        let body = br#"{"agent":"support","input":"x"}"#;
        let request = SubmitRequest::parse_native(body).unwrap();
        let routes = any_model(Knows::default());
        let spec = resolve(request, &agent, &Grant::default(), &routes).unwrap();
        let rules = spec.server_tools.into_iter();
        rules.map(|tool| tool.approval).collect::<Vec<_>>()
    };
    let rules = |rules: [&str; 2]| rules.map(|it| serde_json::from_str(it).unwrap()).to_vec();
    let (never, always) = (r#""never""#, r#""always""#);
    let free = r#"{"type":"server","name":"calculator"}"#;
    let own = r#"{"type":"server","name":"calculator","approval":"always"}"#;
    let lifts = r#"{"type":"server","name":"current_time","approval":"never"}"#;
    assert_eq!(
        definition(&format!("{free},{lifts}")),
        rules([never, always])
    );
    assert_eq!(definition(own), [ToolApproval::Always]);
    let when = r#"{"when":{"required":["expression"]}}"#;
    let some = ["calculator", "current_time"]
        .map(|name| format!(r#"{{"type":"server","name":"{name}","approval":{when}}}"#));
    assert_eq!(definition(&some.join(",")), rules([when, always]));
    let default = resolved(r#"{"model":"m","input":"x"}"#, &Grant::default()).unwrap();
    let of_default = default.server_tools.into_iter().map(|it| it.approval);
    assert_eq!(of_default.collect::<Vec<_>>(), rules([never, always]));
}

#[test]
fn an_agent_gives_what_the_request_leaves_out() {
    let definition = serde_json::from_str(
        r#"{"name":"support","instructions":"Be brief.","model":"dear","fallbacks":["cheap","free"],
            "tools":[{"type":"server","name":"calculator"}],"temperature":0.5,"top_p":0.9,
            "max_output_tokens":70,"reasoning":{"effort":"low"},
            "text":{"format":{"type":"json_schema","name":"s","schema":{"b":1,"a":2}}},
            "limits":{"max_turns":3,"max_total_tokens":500,"max_tokens":400,"max_cost":"0.5"},
            "on_limit":"hand_back"}"#,
    );
    let agent = Agent::of(&definition.unwrap(), 4, &built_in());
    let resolved = |body: &str, grant: &Grant| {
        let request = SubmitRequest::parse_native(body.as_bytes()).unwrap();
        let routes = any_model(Knows::default());
        resolve(request, &One(agent.clone()), grant, &routes)
    };
    let any = Grant::default();
    let spec = resolved(r#"{"agent":"support","input":"x"}"#, &any).unwrap();
    assert_eq!(
        (spec.agent.name.as_str(), spec.agent.version),
        ("support", 4)
    );
    assert_eq!(spec.model, "dear");
    assert_eq!(spec.fallbacks, ["cheap", "free"]);
    assert_eq!(spec.instructions.as_deref(), Some("Be brief."));
    assert_eq!(OfferedTool::names(&spec.server_tools), "calculator");
    assert_eq!(
        (spec.limits.max_turns, spec.limits.max_total_tokens),
        (3, Some(500))
    );
    assert_eq!(
        spec.params.as_raw().get(),
        r#"{"temperature":0.5,"top_p":0.9,"max_tokens":70,"reasoning_effort":"low","response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"b":1,"a":2}}}}"#
    );
    assert_eq!(spec.limits.most.max_cost_nanos, Some(500_000_000));
    assert_eq!(spec.limits.on_limit, OnLimit::HandBack);
    let own = r#"{"model":"support","input":"x","max_total_tokens":900,"max_turns":2,
        "limits":{"max_tokens":9000,"max_cost":"0.25","max_tool_calls":2},"on_limit":"stop",
        "params":{"temperature":1,"max_completion_tokens":5,"top_p":1,"reasoning_effort":"high",
                  "response_format":{"type":"text"}}}"#;
    let spec = resolved(own, &any).unwrap();
    assert_eq!(spec.params.read("temperature"), Some(1));
    assert_eq!(spec.params.fields().len(), 5, "{:?}", spec.params);
    assert_eq!(
        (spec.limits.max_turns, spec.limits.max_total_tokens),
        (2, Some(500))
    );
    let smaller = UseLimits {
        max_tokens: Some(400),
        max_cost_nanos: Some(250_000_000),
        max_tool_calls: Some(2),
        max_wall_ms: None,
    };
    assert_eq!(spec.limits.most, smaller);
    assert_eq!(spec.limits.on_limit, OnLimit::Stop);
    let some = Grant {
        models: Some(vec!["dear".into(), "free".into()]),
        ..Grant::default()
    };
    let spec = resolved(r#"{"model":"support","input":"x"}"#, &some).unwrap();
    assert_eq!(spec.fallbacks, ["free"]);
    let spec = resolved(r#"{"agent":"support","model":"dear","input":"x"}"#, &any).unwrap();
    assert!(spec.fallbacks.is_empty(), "the request means this model");
    let cheap = Grant {
        models: Some(vec!["cheap".into()]),
        ..Grant::default()
    };
    let refused = resolved(r#"{"model":"support","input":"x"}"#, &cheap).unwrap_err();
    assert!(matches!(refused, SubmitError::ModelNotAllowed(model) if model == "dear"));
    let many = r#"{"agent":"support","input":"x","max_turns":4}"#;
    assert!(resolved(many, &any).is_err(), "the agent's limit holds");
}

#[test]
fn a_model_without_a_route_and_an_agent_with_tools_for_one_without_are_refused() {
    let request = || SubmitRequest::parse_native(br#"{"model":"m","input":"x"}"#).unwrap();
    let refused =
        |routes: &Routes| resolve(request(), &built_in(), &Grant::default(), routes).unwrap_err();
    let none = refused(&Routes::default());
    assert!(matches!(none, SubmitError::NoRoute(model) if model == "m"));
    let lacks_tools = Knows {
        tools: false,
        ..Knows::default()
    };
    let SubmitError::Invalid(refused) = refused(&any_model(lacks_tools)) else {
        panic!("it is another refusal")
    };
    assert_eq!(refused.param.as_deref(), Some("model"));
    assert!(refused.message.contains("calculator"), "{refused}");
}

#[test]
fn turns_can_be_fewer_but_not_more() {
    let any = Grant::default();
    let spec = resolved(r#"{"model":"m","input":"x","max_turns":2}"#, &any).unwrap();
    assert_eq!(spec.limits.max_turns, 2);
    let error = resolved(r#"{"model":"m","input":"x","max_turns":11}"#, &any).unwrap_err();
    assert!(matches!(error, SubmitError::Invalid(invalid) if invalid.code == "invalid_limit"));
}
