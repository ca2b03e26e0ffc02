//! `nats/job.schema.json`, with which programs can check their messages: generated from the types
//! that read them, and in agreement with them.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use baton_admission::SubmitRequest;
use baton_admission::request::NativeRequest;
use baton_protocol::{Lane, SubmitJob};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nats/job.schema.json");
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Returns the types' own description, with their further checks.
fn schema() -> Value {
    let mut schema = serde_json::to_value(SubmitJob::schema()).unwrap();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("A job, as programs publish it to jobs.<tenant>.<key>.<lane>");
    schema["properties"]["v"]["const"] = json!(1);
    schema["properties"]["kind"]["const"] = json!("submit");
    schema["properties"]["request"] = json!({"$ref": "#/$defs/Request"});
    schema["examples"] = json!(examples());

    let mut request = serde_json::to_value(NativeRequest::schema()).unwrap();
    // Exactly one of them; null counts as absent.
    let given =
        |name: &str| json!({"required": [name], "properties": {name: {"not": {"type": "null"}}}});
    request["allOf"] = json!([
        {"anyOf": [given("model"), given("agent")]},
        {"oneOf": [given("messages"), given("input")]},
    ]);
    let roles = [
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
    ];
    let messages = &mut request["properties"]["messages"];
    messages["minItems"] = json!(1);
    messages["items"] = json!({
        "type": "object", "required": ["role"], "properties": {"role": {"enum": roles}},
    });
    request["properties"]["tools"]["maxItems"] = json!(128);
    let reserved = [
        "model",
        "messages",
        "tools",
        "stream",
        "stream_options",
        "n",
        "functions",
        "function_call",
    ];
    request["properties"]["params"]["propertyNames"] = json!({"not": {"enum": reserved}});
    let mut definitions = Map::from_iter([("Request".to_owned(), request)]);
    let mut others = Vec::new();
    NativeRequest::schemas(&mut others);
    for (name, other) in others {
        definitions.insert(name, serde_json::to_value(other).unwrap());
    }
    schema["$defs"] = definitions.into();
    let text = schema
        .to_string()
        .replace("#/components/schemas/", "#/$defs/");
    serde_json::from_str(&text).unwrap()
}

fn examples() -> Vec<Value> {
    let job = |request: Value| json!({"v": 1, "kind": "submit", "run_id": ID, "request": request});
    vec![
        job(json!({"model": "gpt-4o-mini", "input": "What is 15% of 847?"})),
        job(json!({
            "agent": "default",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 15% of 847?"},
            ],
            "params": {"temperature": 0.2},
            "metadata": {"order": "1017"},
            "max_turns": 4,
        })),
    ]
}

fn decodes(message: &Value) -> Result<(), String> {
    let job = SubmitJob::decode(message.to_string().as_bytes()).map_err(|bad| bad.message)?;
    SubmitRequest::parse_submitted(job.request.get().as_bytes(), Lane::Interactive)
        .map(|_| ())
        .map_err(|invalid| invalid.message)
}

#[test]
fn the_published_schema_is_the_one_of_the_types() {
    let written = format!("{:#}\n", schema());
    if std::env::var_os("BATON_BLESS").is_some() {
        std::fs::write(FILE, &written).unwrap();
    }
    let published = std::fs::read_to_string(FILE).unwrap_or_default();
    assert_eq!(
        written, published,
        "if that is meant, run once with BATON_BLESS=1"
    );
}

/// Guards the purpose of the schema: a valid message is read, an invalid one is refused.
#[test]
fn the_schema_and_the_reader_agree() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for example in examples() {
        assert!(validator.is_valid(&example), "{example}");
        decodes(&example).unwrap();
    }
    let with = |changes: Value| {
        let mut message = examples().remove(0);
        for (name, value) in changes.as_object().unwrap() {
            match name.split_once('.') {
                Some((_, field)) => message["request"][field] = value.clone(),
                None => message[name] = value.clone(),
            }
        }
        message
    };
    let without = |name: &str| {
        let mut message = examples().remove(0);
        message.as_object_mut().unwrap().remove(name);
        message
    };
    let user = json!([{"role": "user", "content": "x"}]);
    for (message, good) in [
        (with(json!({})), true),
        (with(json!({"r.agent": "default"})), true),
        (with(json!({"r.model": null, "r.agent": "default"})), true),
        (with(json!({"r.input": null, "r.messages": user})), true),
        (with(json!({"r.messages": null})), true),
        (with(json!({"r.lane": "interactive"})), true),
        (
            with(json!({"r.metadata": {"a": [1]}, "r.params": {"seed": 1}})),
            true,
        ),
        (
            with(json!({"r.tools": [{"type": "function", "function": {"name": "f"}}]})),
            true,
        ),
        (
            with(json!({"r.thread_id": null, "r.max_turns": 1, "r.max_total_tokens": 1})),
            true,
        ),
        (
            with(json!({"request_id": "r-1", "traceparent": TRACE})),
            true,
        ),
        (with(json!({"request_id": null, "traceparent": null})), true),
        (with(json!({"request_id": ""})), false),
        (with(json!({"request_id": "a b"})), false),
        (with(json!({"request_id": "x".repeat(129)})), false),
        (with(json!({"request_id": 7})), false),
        (with(json!({"traceparent": "00-x"})), false),
        (with(json!({"traceparent": TRACE.to_uppercase()})), false),
        (json!([]), false),
        (json!("x"), false),
        (without("v"), false),
        (without("kind"), false),
        (without("run_id"), false),
        (without("request"), false),
        (with(json!({"v": 2})), false),
        (with(json!({"v": "1"})), false),
        (with(json!({"kind": "run"})), false),
        (
            with(json!({"run_id": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"})),
            false,
        ),
        (with(json!({"run_id": ID.to_uppercase()})), false),
        (with(json!({"run_id": 7})), false),
        (with(json!({"extra": 1})), false),
        (with(json!({"request": "x"})), false),
        (with(json!({"r.colour": "blue"})), false),
        (with(json!({"r.model": null})), false),
        (with(json!({"r.model": 1})), false),
        (with(json!({"r.input": null})), false),
        (with(json!({"r.messages": user})), false),
        (with(json!({"r.input": null, "r.messages": []})), false),
        (
            with(json!({"r.input": null, "r.messages": [{"content": "x"}]})),
            false,
        ),
        (
            with(json!({"r.input": null, "r.messages": [{"role": "me"}]})),
            false,
        ),
        (with(json!({"r.lane": "fast"})), false),
        (with(json!({"r.metadata": [1]})), false),
        (with(json!({"r.params": {"stream": true}})), false),
        (with(json!({"r.thread_id": "t"})), false),
        (with(json!({"r.max_turns": 0})), false),
        (with(json!({"r.max_total_tokens": 0})), false),
        (with(json!({"r.max_turns": 1.5})), false),
    ] {
        let read = decodes(&message);
        assert_eq!(read.is_ok(), good, "the reader: {message}: {read:?}");
        assert_eq!(validator.is_valid(&message), good, "the schema: {message}");
    }
}
