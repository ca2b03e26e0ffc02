//! Every value of a request is bounded in the description, or has its reason here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const MAX_BODY: &str = "text of any length; the limit of the body, `http.max_body_bytes`, holds";
const UPSTREAM: &str = "the upstream reads it, and its form is the upstream's";
const MANY: &str = "as many as fit into the values that a body may have";
const CHOSEN: &str = "an id that a model or a client chose, of any form";
const EXTENSIBLE: &str = "an object of the OpenAI API; fields that Baton does not know travel";
const SCHEMA: &str = "the JSON Schema of the tool bounds it";
const BYTES: &str = "limited in bytes of JSON, which JSON Schema cannot say";
const MODEL: &str = "the name of a model, of at most 512 bytes";
const TEXTS: &str = "at most 16 texts of 512 characters";
const CONVERSATION: &str = "the id of a conversation, or an object with it";

/// The loose values of requests, each with its reason.
const LOOSE: &[(&str, &str)] = &[
    ("AgentDefinition.fallbacks[]", MODEL),
    ("AgentDefinition.metadata", BYTES),
    ("AppendMessages.messages[]", EXTENSIBLE),
    ("ArgumentsSchema", BYTES),
    ("ChatRequest", EXTENSIBLE),
    ("ChatRequest.function_call", EXTENSIBLE),
    ("ChatRequest.tool_choice", UPSTREAM),
    ("ChatRequest.user", MAX_BODY),
    ("Content", MAX_BODY),
    ("Content[]", UPSTREAM),
    ("AddItemsRequest.items[]", EXTENSIBLE),
    ("ConversationChange.metadata", TEXTS),
    ("ConversationRequest.items[]", EXTENSIBLE),
    ("ConversationRequest.metadata", TEXTS),
    ("CompactRequest.input", MAX_BODY),
    ("CompactRequest.instructions", MAX_BODY),
    ("CompactRequest.prompt_cache_key", UPSTREAM),
    ("CountRequest.conversation", CONVERSATION),
    ("CountRequest.input", MAX_BODY),
    ("CountRequest.instructions", MAX_BODY),
    ("CountRequest.reasoning", UPSTREAM),
    ("CountRequest.text", EXTENSIBLE),
    ("CountRequest.tool_choice", UPSTREAM),
    ("CountRequest.tools[]", EXTENSIBLE),
    ("Decision.arguments", BYTES),
    ("Decision.content", BYTES),
    ("ExecuteCall.arguments", SCHEMA),
    ("ExecuteCall.metadata", BYTES),
    ("ExecuteCalls.metadata", BYTES),
    ("FunctionCall", EXTENSIBLE),
    ("FunctionCall.arguments", MAX_BODY),
    ("FunctionCall.name", CHOSEN),
    ("FunctionDefinition", EXTENSIBLE),
    ("FunctionDefinition.description", MAX_BODY),
    ("FunctionDefinition.name", UPSTREAM),
    ("FunctionDefinition.parameters", UPSTREAM),
    ("Message", EXTENSIBLE),
    ("Message.name", UPSTREAM),
    ("Message.tool_call_id", CHOSEN),
    ("Message.tool_calls", MANY),
    ("NativeRequest.input", MAX_BODY),
    ("NativeRequest.messages[]", EXTENSIBLE),
    ("NativeRequest.metadata", BYTES),
    ("NativeRequest.params", UPSTREAM),
    ("NativeRequest.tools[]", EXTENSIBLE),
    ("ResponseRequest.input", MAX_BODY),
    ("ResponseRequest.instructions", MAX_BODY),
    ("ResponseRequest.conversation", CONVERSATION),
    ("ResponseRequest.metadata", TEXTS),
    ("ResponseRequest.reasoning", UPSTREAM),
    ("ResponseRequest.text", EXTENSIBLE),
    ("ResponseRequest.tool_choice", UPSTREAM),
    ("ResponseRequest.tools[]", EXTENSIBLE),
    ("StreamOptions", EXTENSIBLE),
    ("TextFormat.description", MAX_BODY),
    ("TextFormat.schema", "a JSON Schema"),
    ("Tool", EXTENSIBLE),
    ("Tool.type", UPSTREAM),
    ("ToolCall", EXTENSIBLE),
    ("ToolCall.id", CHOSEN),
    ("ToolCall.type", UPSTREAM),
    ("ToolCallRequest.arguments", SCHEMA),
];

/// A walk through the schemas of the description.
struct Walk<'a> {
    schemas: &'a Map<String, Value>,
    seen: BTreeSet<String>,
    loose: BTreeMap<String, &'static str>,
}

impl Walk<'_> {
    /// Notes the loose values of a schema at this path, and of the schemas that it refers to.
    fn visit(&mut self, schema: &Value, path: &str) {
        if let Some(target) = schema["$ref"].as_str() {
            let name = target.rsplit('/').next().unwrap();
            if self.seen.insert(name.to_owned()) {
                let schemas = self.schemas;
                self.visit(&schemas[name], name);
            }
            return;
        }
        if let Some(missing) = missing(schema) {
            self.loose.insert(path.to_owned(), missing);
        }
        for part in ["allOf", "oneOf", "anyOf"] {
            for schema in schema[part].as_array().into_iter().flatten() {
                self.visit(schema, path);
            }
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            self.visit(schema, &format!("{path}.{name}"));
        }
        if let Some(items) = schema.get("items") {
            self.visit(items, &format!("{path}[]"));
        }
    }
}

/// Returns the bound that a schema lacks.
fn missing(schema: &Value) -> Option<&'static str> {
    let has = |names: &[&str]| names.iter().any(|name| schema.get(name).is_some());
    if has(&["enum", "const"]) {
        return None;
    }
    let is = |kind: &str| match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|it| it == kind),
        it => it == kind,
    };
    let bounds = [
        ("string", has(&["format", "pattern", "maxLength"]), "a form"),
        ("integer", has(&["minimum"]), "a minimum"),
        ("integer", has(&["maximum", "format"]), "a maximum"),
        ("number", has(&["minimum"]), "a minimum"),
        ("number", has(&["maximum"]), "a maximum"),
        ("array", has(&["maxItems"]), "a maximum of items"),
        (
            "object",
            has(&["properties", "additionalProperties"]),
            "fields",
        ),
    ];
    let any = ["type", "allOf", "oneOf", "anyOf"];
    if !has(&any) {
        return Some("a type");
    }
    let lacks = bounds
        .into_iter()
        .find(|(kind, there, _)| is(kind) && !there);
    lacks.map(|(_, _, bound)| bound)
}

#[test]
fn every_value_of_a_request_is_bounded_or_has_its_reason() {
    let description = serde_json::to_value(crate::routes::described().1).unwrap();
    let mut walk = Walk {
        schemas: description["components"]["schemas"].as_object().unwrap(),
        seen: BTreeSet::new(),
        loose: BTreeMap::new(),
    };
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                walk.visit(&parameter["schema"], &format!("{method} {path} {name}"));
            }
            let contents = operation["requestBody"]["content"].as_object();
            for content in contents.into_iter().flatten() {
                walk.visit(&content.1["schema"], &format!("{method} {path}"));
            }
        }
    }
    assert!(walk.seen.len() > 25, "{:?}", walk.seen);
    let reasons: BTreeMap<_, _> = LOOSE.iter().copied().collect();
    let unexplained: Vec<_> = walk
        .loose
        .iter()
        .filter(|(path, _)| !reasons.contains_key(path.as_str()))
        .map(|(path, bound)| format!("{path} lacks {bound}"))
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let stale: Vec<_> = reasons
        .keys()
        .filter(|path| !walk.loose.contains_key(**path))
        .collect();
    assert!(stale.is_empty(), "bounded, or gone: {stale:?}");
}
