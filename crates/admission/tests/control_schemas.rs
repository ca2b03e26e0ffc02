//! The schemas of programs' messages about runs (`nats/*.schema.json`): generated from the types
//! that read the messages, and in agreement with them.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use baton_protocol::{CancelMessage, ControlMessage, DecideMessage, HistoryMessage, SteerMessage};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nats");
const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const APPROVAL: &str = "01890a5d-ac96-774b-bcce-b302099a8058";
const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

/// A kind of message.
struct Kind {
    file: &'static str,
    schema: Value,
    reads: fn(&[u8]) -> bool,
    example: Value,
}

fn finished(schema: impl serde::Serialize, title: &str, example: &Value) -> Value {
    let mut schema = serde_json::to_value(schema).unwrap();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(title);
    schema["properties"]["v"]["const"] = json!(1);
    schema["properties"]["run_id"]["pattern"] = json!(UUID);
    schema["examples"] = json!([example]);
    schema
}

/// Adds the schemas that the schema refers to.
fn with_definitions(mut schema: Value, others: Vec<(String, RefOr<Schema>)>) -> Value {
    let definitions = others.into_iter().map(|(name, other)| (name, json!(other)));
    schema["$defs"] = definitions.collect::<Map<_, _>>().into();
    let text = schema.to_string();
    serde_json::from_str(&text.replace("#/components/schemas/", "#/$defs/")).unwrap()
}

fn cancel() -> Kind {
    let example = json!({"v": 1, "run_id": RUN, "reason": "enough", "request_id": "r-1"});
    let title = "A cancel, as programs publish it to control.<tenant>.<key>.cancel";
    Kind {
        file: "cancel.schema.json",
        schema: finished(CancelMessage::schema(), title, &example),
        reads: |body| ControlMessage::decode("cancel", body).is_ok(),
        example,
    }
}

fn decide() -> Kind {
    let example = json!({"v": 1, "run_id": RUN, "approval_id": APPROVAL, "decision": "retry"});
    let title = "A decision, as programs publish it to control.<tenant>.<key>.decide";
    let mut schema = finished(DecideMessage::schema(), title, &example);
    schema["properties"]["approval_id"]["pattern"] = json!(UUID);
    // Each decision takes its own text or none; null counts as absent.
    let null = json!({"type": "null"});
    let case = |decision: &str, required: &[&str], absent: &[&str]| {
        let mut properties = Map::from_iter([("decision".to_owned(), json!({"const": decision}))]);
        for name in absent {
            properties.insert((*name).to_owned(), null.clone());
        }
        for name in required {
            let kind = if *name == "limits" {
                "object"
            } else {
                "string"
            };
            properties.insert((*name).to_owned(), json!({ "type": kind }));
        }
        json!({"properties": properties, "required": required})
    };
    schema["oneOf"] = json!([
        case(
            "retry",
            &[],
            &[
                "result",
                "reason",
                "arguments",
                "scope",
                "limits",
                "content"
            ]
        ),
        case(
            "result",
            &["result"],
            &["reason", "arguments", "scope", "limits", "content"]
        ),
        case(
            "fail",
            &[],
            &["result", "arguments", "scope", "limits", "content"]
        ),
        case("approve", &[], &["result", "reason", "limits", "content"]),
        case(
            "reject",
            &[],
            &["result", "arguments", "scope", "limits", "content"]
        ),
        case(
            "raise",
            &["limits"],
            &["result", "reason", "arguments", "scope", "content"]
        ),
        case(
            "stop",
            &[],
            &[
                "result",
                "reason",
                "arguments",
                "scope",
                "limits",
                "content"
            ]
        ),
        case(
            "accept",
            &[],
            &["result", "reason", "arguments", "scope", "limits"]
        ),
        case(
            "decline",
            &[],
            &[
                "result",
                "reason",
                "arguments",
                "scope",
                "limits",
                "content"
            ]
        ),
        case(
            "cancel",
            &[],
            &[
                "result",
                "reason",
                "arguments",
                "scope",
                "limits",
                "content"
            ]
        ),
    ]);
    let mut others = Vec::new();
    DecideMessage::schemas(&mut others);
    Kind {
        file: "decide.schema.json",
        schema: with_definitions(schema, others),
        reads: |body| ControlMessage::decode("decide", body).is_ok(),
        example,
    }
}

fn steer() -> Kind {
    let example = json!({"v": 1, "run_id": RUN, "content": "And in euros?", "request_id": "r-1"});
    let title = "A message to a run, as programs publish it to control.<tenant>.<key>.steer";
    let mut schema = finished(SteerMessage::schema(), title, &example);
    schema["properties"]["message_id"]["pattern"] = json!(UUID);
    // The next run has the message's id.
    schema["if"] = json!({"properties": {"mode": {"const": "follow_up"}}, "required": ["mode"]});
    schema["then"] =
        json!({"properties": {"message_id": {"type": "string"}}, "required": ["message_id"]});
    let mut others = Vec::new();
    SteerMessage::schemas(&mut others);
    Kind {
        file: "steer.schema.json",
        schema: with_definitions(schema, others),
        reads: |body| ControlMessage::decode("steer", body).is_ok(),
        example,
    }
}

fn history() -> Kind {
    let example = json!({"v": 1, "run_id": RUN, "after": 0, "limit": 100, "request_id": "r-1"});
    let title = "A question for events, as programs publish it to history.<tenant>.<key>";
    Kind {
        file: "history.schema.json",
        schema: finished(HistoryMessage::schema(), title, &example),
        reads: |body| HistoryMessage::decode(body).is_ok(),
        example,
    }
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    for kind in [cancel(), decide(), history(), steer()] {
        let path = format!("{FOLDER}/{}", kind.file);
        let written = format!("{:#}\n", kind.schema);
        if std::env::var_os("BATON_BLESS").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            written, published,
            "if that is meant, run once with BATON_BLESS=1"
        );
    }
}

/// Guards the purpose of the schemas: a valid message is read, an invalid one is refused.
#[test]
fn each_schema_and_its_reader_agree() {
    let bad_of_all = [
        json!({"v": 2}),
        json!({"v": null}),
        json!({"run_id": "mine"}),
        json!({"run_id": RUN.to_uppercase()}),
        json!({"run_id": null}),
        json!({"request_id": ""}),
        json!({"request_id": "a b"}),
        json!({"request_id": "x".repeat(129)}),
        json!({"colour": "blue"}),
    ];
    let good_of_all = [
        json!({}),
        json!({"request_id": null}),
        json!({"request_id": "x"}),
    ];
    let cases: [(Kind, &[Value], &[Value]); 4] = [
        (
            cancel(),
            &[json!({"reason": null}), json!({"reason": "x".repeat(1024)})],
            &[json!({"reason": 7}), json!({"reason": "x".repeat(1025)})],
        ),
        (
            decide(),
            &[
                json!({"decision": "result", "result": "7"}),
                json!({"decision": "result", "result": "7", "reason": null}),
                json!({"decision": "fail"}),
                json!({"decision": "fail", "reason": "no"}),
                json!({"decision": "retry", "reason": null}),
                json!({"decision": "approve"}),
                json!({"decision": "approve", "arguments": {"amount": 7}}),
                json!({"decision": "approve", "scope": "thread"}),
                json!({"decision": "fail", "scope": null}),
                json!({"decision": "raise", "limits": {"max_tokens": 9}}),
                json!({"decision": "stop", "limits": null}),
                json!({"decision": "accept", "content": {"name": "Ada"}}),
                json!({"decision": "accept"}),
                json!({"decision": "decline", "content": null}),
                json!({"decision": "cancel"}),
                json!({"decision": "reject", "reason": "no", "arguments": null}),
            ],
            &[
                json!({"decision": "maybe"}),
                json!({"decision": null}),
                json!({"decision": "result"}),
                json!({"decision": "result", "result": null}),
                json!({"decision": "result", "result": "7", "reason": "x"}),
                json!({"decision": "fail", "result": "7"}),
                json!({"decision": "retry", "reason": "x"}),
                json!({"decision": "approve", "scope": "always"}),
                json!({"decision": "reject", "scope": "run"}),
                json!({"decision": "raise"}),
                json!({"decision": "raise", "limits": {"max_turns": 9}}),
                json!({"decision": "stop", "limits": {}}),
                json!({"decision": "accept", "content": []}),
                json!({"decision": "cancel", "content": {}}),
                json!({"approval_id": "x"}),
            ],
        ),
        (
            steer(),
            &[
                json!({"content": [{"type": "text", "text": "x"}]}),
                json!({"message_id": APPROVAL}),
                json!({"message_id": null}),
                json!({"mode": "steer"}),
                json!({"mode": null}),
                json!({"mode": "follow_up", "message_id": APPROVAL}),
            ],
            &[
                json!({"message_id": "x"}),
                json!({"mode": "shout"}),
                json!({"mode": "follow_up"}),
                json!({"mode": "follow_up", "message_id": null}),
            ],
        ),
        (
            history(),
            &[
                json!({"after": null, "limit": null}),
                json!({"after": u64::MAX, "limit": 1}),
                json!({"limit": 1000}),
            ],
            &[
                json!({"after": -1}),
                json!({"after": "7"}),
                json!({"limit": 0}),
                json!({"limit": 1001}),
                json!({"limit": 1.5}),
            ],
        ),
    ];
    for (kind, good, bad) in cases {
        jsonschema::meta::validate(&kind.schema).unwrap();
        let validator = jsonschema::validator_for(&kind.schema).unwrap();
        let good = good_of_all.iter().chain(good).map(|fields| (fields, true));
        let bad = bad_of_all.iter().chain(bad).map(|fields| (fields, false));
        for (fields, expected) in good.chain(bad) {
            let mut message = kind.example.clone();
            for (name, value) in fields.as_object().unwrap() {
                message[name] = value.clone();
            }
            let read = (kind.reads)(message.to_string().as_bytes());
            assert_eq!(read, expected, "the reader of {}: {message}", kind.file);
            let valid = validator.is_valid(&message);
            assert_eq!(valid, expected, "{}: {message}", kind.file);
        }
        for name in ["v", "run_id"] {
            let mut message = kind.example.clone();
            message.as_object_mut().unwrap().remove(name);
            assert!(!(kind.reads)(message.to_string().as_bytes()), "{name}");
            assert!(!validator.is_valid(&message), "{name}");
        }
    }
}
