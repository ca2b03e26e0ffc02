use serde_json::{Value, json};

use super::*;

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn spec(params: &Value) -> RunSpec {
    serde_json::from_str(
        &json!({
            "v": 1, "agent": {"name": "default", "version": 0}, "model": "gpt-x",
            "messages": [], "params": params, "limits": {"max_turns": 4},
        })
        .to_string(),
    )
    .unwrap()
}

fn rendered(
    spec: &RunSpec,
    messages: &RawValue,
    tools: Option<&RawValue>,
    first_turn: bool,
    answer_limit: Option<(&'static str, u64)>,
    unsupported: &[UpstreamFeature],
) -> Value {
    let turn = Turn {
        model: &spec.model,
        messages,
        tools,
        is_first: first_turn,
        answer_limit,
    };
    serde_json::from_slice(&render_request(spec, turn, unsupported)).unwrap()
}

#[test]
fn unknown_fields_travel_and_batons_own_do_not() {
    let spec = spec(&json!({
        "temperature": 0.2, "brand_new": {"a": [1]}, "tool_choice": "auto", "lane": "background",
        "stream": false, "stream_options": {"x": 1, "include_usage": false}, "model": "other", "messages": "no",
    }));
    let messages = raw(&json!([{"role": "user", "content": "é"}]));
    let tools = raw(&json!([{"type": "function", "function": {"name": "f"}}]));
    let body = rendered(&spec, &messages, Some(&tools), true, None, &[]);
    assert_eq!(
        body,
        json!({
            "temperature": 0.2, "brand_new": {"a": [1]}, "tool_choice": "auto",
            "model": "gpt-x", "messages": [{"role": "user", "content": "é"}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "stream": true, "stream_options": {"x": 1, "include_usage": true},
        }),
    );
}

#[test]
fn without_tools_nothing_is_said_about_them() {
    let spec = spec(&json!({"tool_choice": "none", "parallel_tool_calls": false}));
    let body = rendered(&spec, &raw(&json!([])), None, true, None, &[]);
    let keys: Vec<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, ["messages", "model", "stream", "stream_options"]);
}

#[test]
fn a_limited_answer_is_never_longer_whatever_the_client_wants() {
    let rendered = |params: Value| -> Value {
        let spec = spec(&params);
        let limit = Some(("max_tokens", 50));
        rendered(&spec, &spec.messages, None, true, limit, &[])
    };
    let body = rendered(json!({}));
    assert_eq!(body["max_tokens"], 50);
    for (wish, limit) in [(json!(20), 20), (json!(50), 50), (json!(99), 50)] {
        let body = rendered(json!({"max_completion_tokens": wish}));
        assert_eq!(body["max_completion_tokens"], limit);
        assert_eq!(body.get("max_tokens"), None, "an upstream takes one");
    }
    for wish in [json!(null), json!("99"), json!(-1)] {
        let body = rendered(json!({"max_completion_tokens": wish}));
        assert_eq!(body["max_tokens"], 50);
        assert_eq!(body.get("max_completion_tokens"), None);
    }
}

/// Guards that an upstream never gets a part of the API that it lacks.
#[test]
fn what_the_upstream_lacks_is_left_out_or_has_its_other_name() {
    use UpstreamFeature as Lacks;

    let tools = raw(&json!([{"type": "function", "function": {"name": "f"}}]));
    let messages = raw(&json!([
        {"role": "developer", "name": "d", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "the role \"developer\""},
    ]));
    let params = json!({"parallel_tool_calls": true, "max_completion_tokens": 9, "seed": 7});
    let all = json!({
        "parallel_tool_calls": true, "max_completion_tokens": 9, "seed": 7, "model": "gpt-x",
        "messages": serde_json::from_str::<Value>(messages.get()).unwrap(),
        "tools": serde_json::from_str::<Value>(tools.get()).unwrap(),
        "stream": true, "stream_options": {"include_usage": true},
    });
    let spec_of_all = spec(&params);
    let body = |unsupported: &[Lacks]| {
        rendered(
            &spec_of_all,
            &messages,
            Some(&tools),
            true,
            None,
            unsupported,
        )
    };
    assert_eq!(body(&[]), all);
    for (lacks, change) in [
        (Lacks::StreamOptions, json!({"stream_options": null})),
        (
            Lacks::ParallelToolCalls,
            json!({"parallel_tool_calls": null}),
        ),
        (
            Lacks::MaxCompletionTokens,
            json!({"max_completion_tokens": null, "max_tokens": 9}),
        ),
        (Lacks::MaxTokens, json!({})),
        (
            Lacks::DeveloperRole,
            json!({"messages": [
                {"role": "system", "name": "d", "content": [{"type": "text", "text": "Be kind."}]},
                {"role": "user", "content": "the role \"developer\""},
            ]}),
        ),
    ] {
        let mut expected = all.clone();
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                expected.as_object_mut().unwrap().remove(name);
            } else {
                expected[name] = value.clone();
            }
        }
        assert_eq!(body(&[lacks]), expected, "{lacks:?}");
    }
    for (params, limit, expected) in [
        (
            json!({"max_tokens": 9, "max_completion_tokens": 5}),
            None,
            json!(5),
        ),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 9}),
            None,
            json!(5),
        ),
        (json!({"max_completion_tokens": "x"}), None, json!("x")),
        (
            json!({"max_completion_tokens": 9}),
            Some(("max_tokens", 4)),
            json!(4),
        ),
        (
            json!({"max_completion_tokens": "x"}),
            Some(("max_tokens", 4)),
            json!(4),
        ),
    ] {
        let spec = spec(&params);
        let lacks = [Lacks::MaxCompletionTokens];
        let body = rendered(&spec, &messages, None, true, limit, &lacks);
        assert_eq!(body["max_tokens"], expected, "{params}");
        assert_eq!(body.get("max_completion_tokens"), None, "{params}");
    }
}
