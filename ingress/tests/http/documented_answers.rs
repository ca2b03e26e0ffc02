//! Every operation on threads, conversations, responses and messages to runs, with ids that name
//! nothing, cursors beyond the end, and bodies that its schema forbids. The operations and their fields
//! come from the description, so that a new one is tested too.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::fixture::{Fixture, Worker};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The beginning of an operation's path, and the answer to an unknown first id in it.
const KINDS: [(&str, &str); 4] = [
    ("/v1/threads", "thread_not_found"),
    ("/v1/conversations", "conversation_not_found"),
    ("/v1/responses", "response_not_found"),
    ("/v1/runs/{id}/messages", "run_not_found"),
];

/// An operation of the description.
struct Operation {
    method: String,
    path: String,
    /// The schema of its body.
    body: Option<Value>,
    /// The code for an id that names nothing.
    not_found: &'static str,
}

fn operations(description: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let kind = KINDS.iter().find(|(start, _)| path.starts_with(start));
        let Some((_, not_found)) = kind else { continue };
        for (method, operation) in item.as_object().unwrap() {
            let media = &operation["requestBody"]["content"]["application/json"];
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                body: media.get("schema").cloned(),
                not_found,
            });
        }
    }
    operations
}

/// Returns a body that the operation takes.
fn good_body(operation: &Operation) -> Value {
    let message = json!([{"role": "user", "content": "x"}]);
    match (&*operation.method, &*operation.path) {
        ("POST", "/v1/threads/{id}/messages") => json!({"messages": message}),
        ("POST", "/v1/conversations/{id}/items") => json!({"items": message}),
        ("POST", "/v1/conversations/{id}") => json!({"metadata": {}}),
        ("POST", "/v1/runs/{id}/messages") => json!({"content": "x"}),
        ("POST", "/v1/responses" | "/v1/responses/compact" | "/v1/responses/input_tokens") => {
            json!({"model": "m", "input": "x"})
        }
        ("PATCH" | "POST", _) => json!({}),
        _ => Value::Null,
    }
}

async fn ask(f: &Fixture, method: &str, path: &str, body: Value) -> (u16, Value) {
    f.ask(&f.key, method, path, body).await
}

/// Returns the code of an error, in the shape of either kind of route.
fn code(error: &Value) -> &str {
    let inner = error.get("error").unwrap_or(error);
    inner["code"].as_str().unwrap_or_default()
}

/// Returns the parameter and the words of an error.
fn words(error: &Value) -> String {
    match error.get("error") {
        Some(inner) => format!("{}: {}", inner["param"], inner["message"]),
        None => format!("{}: {}", error["param"], error["detail"]),
    }
}

/// A tenant's objects.
struct Objects {
    thread: String,
    /// A run that is no response, and one that is.
    run: String,
    response: String,
}

impl Objects {
    async fn make(f: &Fixture, key: &str) -> Self {
        let made = async |path: &str, body: Value| {
            let (status, made) = f.ask(key, "POST", path, body).await;
            assert!(status < 300, "{path}: {made}");
            let id = made["id"].as_str().unwrap();
            id.trim_start_matches("resp_").to_owned()
        };
        let response = json!({"model": "m", "input": "x", "background": true});
        Self {
            thread: made("/v1/threads", json!({})).await,
            run: made("/v1/runs", json!({"model": "m", "input": "x"})).await,
            response: made("/v1/responses", response).await,
        }
    }

    /// Returns the id of an object of the kind that this code says does not exist.
    fn named(&self, not_found: &str) -> String {
        match not_found {
            "thread_not_found" => self.thread.clone(),
            "conversation_not_found" => format!("conv_{}", self.thread),
            "response_not_found" => format!("resp_{}", self.response),
            _ => self.run.clone(),
        }
    }
}

#[tokio::test]
async fn an_id_that_names_no_object_of_its_kind_is_not_found() {
    let f = Fixture::start().await;
    let own = Objects::make(&f, &f.key).await;
    let theirs = Objects::make(&f, &f.key_of_another_tenant(77).await).await;
    let description = serde_json::to_value(baton_ingress::openapi()).unwrap();
    let mut asked = 0;
    for operation in operations(&description) {
        if !operation.path.contains("{id}") {
            continue;
        }
        let not_found = operation.not_found;
        let prefix = match not_found {
            "conversation_not_found" => "conv_",
            "response_not_found" => "resp_",
            _ => "",
        };
        // Those of other kinds, with the prefix of this one and with their own.
        let mut bad = vec![
            "x".to_owned(),
            prefix.to_owned() + "x",
            format!("{prefix}{UNKNOWN}"),
            theirs.named(not_found),
            "%00".to_owned(),
        ];
        // It names a run on every route of runs.
        if not_found != "run_not_found" {
            bad.push(format!("chatcmpl-{}", own.run));
        }
        for (_, kind) in KINDS.iter().filter(|(_, kind)| *kind != not_found) {
            let id = own.named(kind);
            if id != own.named(not_found) {
                bad.push(id.clone());
            }
            let bare = id.rsplit('_').next().unwrap();
            if format!("{prefix}{bare}") != own.named(not_found) {
                bad.push(format!("{prefix}{bare}"));
            }
        }
        for id in bad {
            // A response is a run, so its id names one.
            if not_found == "run_not_found" && id == own.response {
                continue;
            }
            let path = operation.path.replace("{id}", &id);
            let path = path
                .replace("{item}", &format!("msg_{UNKNOWN}"))
                .replace("{message}", UNKNOWN);
            let answer = ask(&f, &operation.method, &path, good_body(&operation)).await;
            let (status, error) = answer;
            assert_eq!(status, 404, "{} {path}: {error}", operation.method);
            let no_message =
                operation.path.ends_with("{message}") && code(&error) == "message_not_found";
            assert!(
                code(&error) == not_found || no_message,
                "{} {path}: {error}",
                operation.method
            );
            asked += 1;
        }
        // The id of a part, of an object that there is.
        let path = operation.path.replace("{id}", &own.named(not_found));
        if let Some((start, _)) = path.split_once('{') {
            let expected = if path.ends_with("{item}") {
                "item_not_found"
            } else {
                "message_not_found"
            };
            for part in ["x", UNKNOWN, &format!("msg_{UNKNOWN}"), &own.thread] {
                let path = format!("{start}{part}");
                let (status, error) = ask(&f, &operation.method, &path, Value::Null).await;
                assert_eq!((status, code(&error)), (404, expected), "{path}: {error}");
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

#[tokio::test]
async fn an_id_in_a_body_that_names_no_object_is_refused_by_its_field() {
    let f = Fixture::start().await;
    let own = Objects::make(&f, &f.key).await;
    let theirs = Objects::make(&f, &f.key_of_another_tenant(77).await).await;
    let message = json!([{"role": "user", "content": "x"}]);
    let (threads, responses) = ((&own.run, &theirs.thread), (&own.thread, &theirs.response));
    for (path, field, prefix, (own_other, foreign)) in [
        ("/v1/runs", "thread_id", "", threads),
        ("/v1/chat/completions", "thread_id", "", threads),
        ("/v1/responses", "conversation", "conv_", threads),
        ("/v1/responses", "previous_response_id", "resp_", responses),
    ] {
        for (id, expected) in [
            (format!("{prefix}{UNKNOWN}"), 404),
            (format!("{prefix}{own_other}"), 404),
            (format!("{prefix}{foreign}"), 404),
            ("x".to_owned(), 400),
            (format!("{prefix}x"), 400),
            (format!("other_{UNKNOWN}"), 400),
        ] {
            let mut body = json!({"model": "m", field: id});
            match path {
                "/v1/chat/completions" => body["messages"] = message.clone(),
                _ => body["input"] = json!("x"),
            }
            let (status, error) = ask(&f, "POST", path, body).await;
            assert_eq!(status, expected, "{path} {field} {id}: {error}");
            assert!(
                words(&error).contains(field),
                "{path} {field} {id}: {error}"
            );
        }
    }
    let (_, runs) = ask(&f, "GET", "/v1/runs?limit=100", Value::Null).await;
    assert_eq!(
        runs["data"].as_array().unwrap().len(),
        2,
        "nothing was accepted"
    );
}

#[tokio::test]
async fn a_cursor_beyond_the_end_is_an_empty_page_and_one_of_no_page_is_refused() {
    let f = Fixture::start().await;
    let own = Objects::make(&f, &f.key).await;
    let (thread, run, response) = (&own.thread, &own.run, &own.response);
    let (messages, items) = (
        format!("/v1/threads/{thread}/messages"),
        format!("/v1/conversations/conv_{thread}/items"),
    );
    let message = json!({"messages": [{"role": "user", "content": "x"}]});
    let (_, sent) = ask(&f, "POST", &messages, message).await;
    let item = format!("msg_{}", sent["data"][0]["id"].as_str().unwrap());
    for path in [
        // No thread is older than this one.
        "/v1/threads?cursor=00000000-0000-7000-8000-000000000000".to_owned(),
        format!("{messages}?cursor=9223372036854775807"),
        format!("{messages}?order=desc&cursor=1"),
        format!("/v1/runs/{run}/messages?cursor=4294967295"),
        format!("{items}?after={item}"),
    ] {
        let (status, page) = ask(&f, "GET", &path, Value::Null).await;
        assert_eq!((status, &page["data"]), (200, &json!([])), "{path}: {page}");
        let is_last = page["next_cursor"].is_null() && page["has_more"] != true;
        assert!(is_last, "{path}: {page}");
    }
    for (path, field) in [
        ("/v1/threads?cursor=last".to_owned(), "cursor"),
        (format!("{messages}?cursor=x"), "cursor"),
        (format!("{messages}?cursor=1.5"), "cursor"),
        (
            format!("/v1/runs/{run}/messages?cursor=4294967296"),
            "cursor",
        ),
        (format!("{items}?after=msg_{UNKNOWN}"), "after"),
        (format!("{items}?after={thread}"), "after"),
        (
            format!("/v1/responses/resp_{response}/input_items?after=msg_{UNKNOWN}"),
            "after",
        ),
        (
            format!("/v1/responses/resp_{response}?starting_after=1"),
            "starting_after",
        ),
    ] {
        let (status, error) = ask(&f, "GET", &path, Value::Null).await;
        assert_eq!(status, 400, "{path}: {error}");
        assert!(words(&error).contains(field), "{path}: {error}");
    }
    // Of the two runs, the first is the response's or the other one.
    for _ in 0..2 {
        let mut worker: Worker = f.take_job().await;
        worker.complete().await;
    }
    let beyond = format!("/v1/responses/resp_{response}?stream=true&starting_after=99999999");
    let (status, error) = ask(&f, "GET", &beyond, Value::Null).await;
    assert_eq!(status, 400, "{error}");
    assert!(words(&error).contains("starting_after"), "{error}");
}

/// Follows references, and returns the types that a schema allows and its properties; no types if it
/// allows every one.
fn resolve(
    schema: &Value,
    description: &Value,
) -> (BTreeSet<String>, Map<String, Value>, Vec<String>) {
    let (mut types, mut properties, mut required) = (BTreeSet::new(), Map::new(), Vec::new());
    if let Some(reference) = schema["$ref"].as_str() {
        let target = description.pointer(reference.trim_start_matches('#'));
        return resolve(target.unwrap(), description);
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        for one in schema[several].as_array().into_iter().flatten() {
            let (more, fields, needs) = resolve(one, description);
            types.extend(more);
            properties.extend(fields);
            required.extend(needs);
        }
    }
    match &schema["type"] {
        Value::String(one) => drop(types.insert(one.clone())),
        Value::Array(many) => types.extend(many.iter().map(|it| it.as_str().unwrap().to_owned())),
        _ => {}
    }
    if let Some(own) = schema["properties"].as_object() {
        properties.extend(own.clone());
    }
    let needs = schema["required"].as_array().into_iter().flatten();
    required.extend(needs.map(|name| name.as_str().unwrap().to_owned()));
    (types, properties, required)
}

/// Returns a value of a type that is not among these; `None` if all are.
fn wrong(types: &BTreeSet<String>) -> Option<Value> {
    let values = [
        ("array", json!([7])),
        ("object", json!({"x": 7})),
        ("boolean", json!(true)),
        ("string", json!("x")),
        ("integer", json!(7)),
    ];
    let number = types.contains("number");
    let mut wrong = values
        .into_iter()
        .filter(|(name, _)| !(types.contains(*name) || number && *name == "integer"));
    wrong
        .next()
        .filter(|_| !types.is_empty())
        .map(|(_, value)| value)
}

#[tokio::test]
async fn a_body_that_its_schema_forbids_is_refused_by_the_field() {
    let f = Fixture::start().await;
    let own = Objects::make(&f, &f.key).await;
    let description = serde_json::to_value(baton_ingress::openapi()).unwrap();
    let mut faults = Vec::new();
    let mut asked = 0;
    for operation in operations(&description) {
        let Some(schema) = &operation.body else {
            continue;
        };
        let (_, properties, required) = resolve(schema, &description);
        assert!(!properties.is_empty(), "{}", operation.path);
        let path = operation
            .path
            .replace("{id}", &own.named(operation.not_found));
        let mut bad: Vec<(String, Value)> = Vec::new();
        for (name, schema) in &properties {
            let (types, ..) = resolve(schema, &description);
            let Some(value) = wrong(&types) else { continue };
            let mut body = good_body(&operation);
            body[name] = value;
            bad.push((name.clone(), body));
        }
        for name in &required {
            let mut body = good_body(&operation);
            body.as_object_mut().unwrap().remove(name);
            bad.push((name.clone(), body));
        }
        // The routes of responses pass on the fields that they do not know.
        if !operation.path.starts_with("/v1/responses") {
            let mut body = good_body(&operation);
            body["colour"] = json!("blue");
            bad.push(("colour".to_owned(), body));
        }
        for (name, body) in bad {
            asked += 1;
            // An accepted run waits for a worker.
            let asked = ask(&f, &operation.method, &path, body.clone());
            let asked = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
            let (status, error) = asked.unwrap_or_default();
            if status != 400 || !words(&error).contains(&name) {
                let method = &operation.method;
                faults.push(format!("{name}: {method} {path} {body}: {status} {error}"));
            }
        }
        for body in [json!([]), json!("x"), json!(7)] {
            let (status, error) = ask(&f, &operation.method, &path, body.clone()).await;
            if status != 400 {
                faults.push(format!(
                    "{} {path} {body}: {status} {error}",
                    operation.method
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(asked > 40, "{asked}");
}
