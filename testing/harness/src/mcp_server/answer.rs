//! The answers of the server.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{Era, Manner, State};

/// The JSON-RPC code of an unknown method.
const METHOD_NOT_FOUND: i32 = -32601;

pub(super) async fn answer(
    Shared(state): Shared<Arc<State>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let credential = headers.get(header::AUTHORIZATION);
    let credential = credential.and_then(|it| it.to_str().ok()).unwrap_or("none");
    match state.manner() {
        Manner::Redirects(to) => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response();
        }
        Manner::Guarded(token) if credential != format!("Bearer {token}") => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, challenge, credential.to_owned()).into_response();
        }
        _ => {}
    }
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let name = request["method"].as_str().unwrap_or_default().to_owned();
    state
        .seen
        .send_modify(|seen| seen.methods.push(name.clone()));
    let id = request["id"].clone();
    match (&*name, state.era) {
        ("server/discover", Era::Modern) => result(&id, &discovered()),
        ("initialize", Era::Legacy) => {
            let capabilities = &request["params"]["capabilities"];
            state
                .seen
                .send_modify(|seen| seen.capabilities = capabilities.clone());
            let session = [("mcp-session-id", "one")];
            (session, result(&id, &initialized())).into_response()
        }
        ("notifications/cancelled", _) => {
            state.seen.send_modify(|seen| seen.cancelled += 1);
            StatusCode::ACCEPTED.into_response()
        }
        ("tools/list", _) => list(&state, &id, &request["params"], credential),
        ("tools/call", _) => {
            if let Some(observe) = &state.observer {
                observe(&request["params"]);
                // Long enough that a worker may die meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            call(&state, id, &request["params"], credential)
        }
        ("tasks/get", Era::Modern) => found(&state, &id, &request["params"]),
        ("tasks/cancel", Era::Modern) => {
            let task = request["params"]["taskId"].as_str().unwrap_or_default();
            state
                .seen
                .send_modify(|seen| seen.tasks_cancelled.push(task.to_owned()));
            result(&id, &json!({"resultType": "complete"}))
        }
        ("tasks/update", Era::Modern) => {
            let answers = request["params"]["inputResponses"].clone();
            state
                .seen
                .send_modify(|seen| seen.task_answers.push(answers));
            result(&id, &json!({"resultType": "complete"}))
        }
        _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
        _ if state.manner() == Manner::AnswersAnything => result(&id, &json!({})),
        _ => {
            let error = json!({"code": METHOD_NOT_FOUND, "message": "there is no such method"});
            Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response()
        }
    }
}

fn result(id: &Value, result: &Value) -> Response {
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}

fn discovered() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 1000,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "for tests", "version": "1"}},
    })
}

fn initialized() -> Value {
    json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "for tests", "version": "1"},
    })
}

fn tool(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"idempotentHint": name == "echo", "readOnlyHint": false},
    })
}

fn list(state: &State, id: &Value, params: &Value, credential: &str) -> Response {
    let mut tools = vec![
        tool("echo", "Repeats its arguments"),
        tool("wait", "Waits"),
        tool("fail", "Fails"),
    ];
    let mut next = None;
    match state.manner() {
        Manner::ManyTools(more) => {
            tools.extend((0..more).map(|n| tool(&format!("tool_{n}"), "One of many")));
        }
        Manner::EndlessPages => {
            let page: u64 = params["cursor"]
                .as_str()
                .map_or(0, |it| it.parse().unwrap_or(0));
            next = Some((page + 1).to_string());
        }
        Manner::EndlessBody => return json_body(endless()),
        Manner::SlowDrip => {
            let drip = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
            });
            return json_body(Body::from_stream(drip));
        }
        Manner::WrongIds => return result(&json!(987_654), &json!({"tools": tools})),
        Manner::ControlCharacters => {
            tools.push(tool("evil\u{1b}[2J\n\u{202e}name", "\u{1b}]0;owned\u{7}"));
        }
        Manner::BadDefinitions => {
            tools.push(tool("large", &"x".repeat(10 * 1024)));
            let mut broken = tool("broken", "Has no schema");
            broken["inputSchema"]["type"] = json!(5);
            tools.push(broken);
        }
        Manner::TellsSecrets => tools.push(tool("leak", &format!("You sent {credential}"))),
        Manner::Asks => tools.push(tool("ask", "Asks a person")),
        Manner::Tasks => tools.push(tool("task", "Takes a while")),
        Manner::Honest
        | Manner::AnswersAnything
        | Manner::FloodsCalls
        | Manner::Redirects(_)
        | Manner::Guarded(_) => {}
    }
    // A page for each tool, so that paging is always in use.
    let of_one_page = tools.len() <= 4 && next.is_none();
    if of_one_page {
        let page: usize = params["cursor"]
            .as_str()
            .map_or(0, |it| it.parse().unwrap_or(0));
        next = (page + 1 < tools.len()).then(|| (page + 1).to_string());
        tools = tools.into_iter().skip(page).take(1).collect();
    }
    let mut listed = json!({"tools": tools, "nextCursor": next});
    if next.is_none()
        && let Value::Object(fields) = &mut listed
    {
        fields.remove("nextCursor");
    }
    if state.era == Era::Modern {
        listed["resultType"] = json!("complete");
        listed["ttlMs"] = json!(60_000);
        listed["cacheScope"] = json!("private");
    }
    result(id, &listed)
}

fn endless() -> Body {
    let piece = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 * 1024]));
    Body::from_stream(stream::repeat_with(piece))
}

fn json_body(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn call(state: &Arc<State>, id: Value, params: &Value, credential: &str) -> Response {
    state
        .seen
        .send_modify(|seen| seen.calls.push(params.clone()));
    if state.manner() == Manner::FloodsCalls {
        return json_body(endless());
    }
    let content = |text: &str, failed: bool| json!({"content": [{"type": "text", "text": text}], "isError": failed});
    match params["name"].as_str().unwrap_or_default() {
        "echo" => result(&id, &content(&params["arguments"].to_string(), false)),
        "leak" => result(&id, &content(&format!("You sent {credential}"), false)),
        "fail" => result(&id, &content("it went wrong", true)),
        "task" if state.manner() == Manner::Tasks => {
            let extensions = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
            if extensions["extensions"]["io.modelcontextprotocol/tasks"].is_object() {
                let number = state.seen.borrow().calls.len();
                let kind = params["arguments"]["kind"].as_str().unwrap_or("done");
                let mut begun = task(&format!("{kind}-{number}"), "working");
                begun["resultType"] = json!("task");
                result(&id, &begun)
            } else {
                result(&id, &content("this client takes no tasks", true))
            }
        }
        "ask" if state.era == Era::Modern && state.manner() == Manner::Asks => {
            match asked(params) {
                Ok(questions) => result(&id, &questions),
                Err(answer) if params["arguments"]["hold"] == true => {
                    held(state, id, content(&answer, false))
                }
                Err(answer) => result(&id, &content(&answer, false)),
            }
        }
        "wait" => held(state, id, content("waited", false)),
        other => {
            let error = json!({"code": -32602, "message": format!("no tool {other}")});
            Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response()
        }
    }
}

fn task(id: &str, status: &str) -> Value {
    json!({"taskId": id, "status": status, "createdAt": "2026-07-28T00:00:00Z",
        "lastUpdatedAt": "2026-07-28T00:00:00Z", "ttlMs": null, "pollIntervalMs": 1})
}

/// Returns a task as it is now: its id begins with its end.
fn found(state: &State, id: &Value, params: &Value) -> Response {
    let name = params["taskId"].as_str().unwrap_or_default();
    let kind = name.split('-').next().unwrap_or_default();
    let answered = state.seen.borrow().task_answers.last().cloned();
    let mut found = match (kind, answered) {
        ("lost", _) => {
            let error = json!({"code": -32602, "message": "there is no such task"});
            return Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response();
        }
        ("failed", _) => {
            let mut found = task(name, "failed");
            found["error"] = json!({"code": -32000, "message": "it broke"});
            found
        }
        ("cancelled", _) => task(name, "cancelled"),
        ("asks", None) => {
            let mut found = task(name, "input_required");
            found["inputRequests"] = json!({"who": {"method": "elicitation/create", "params": {
                "mode": "form", "message": "Who pays?", "requestedSchema": {"type": "object",
                    "properties": {"name": {"type": "string"}}, "required": ["name"]}}}});
            found
        }
        (_, answered) if state.gate.is_open() => {
            let text =
                answered.map_or_else(|| "done".to_owned(), |it| it["who"]["content"].to_string());
            let mut found = task(name, "completed");
            found["result"] =
                json!({"content": [{"type": "text", "text": text}], "isError": false});
            found
        }
        _ => task(name, "working"),
    };
    found["resultType"] = json!("complete");
    result(id, &found)
}

/// Answers when the gate is open.
fn held(state: &Arc<State>, id: Value, answer: Value) -> Response {
    let (gate, broken) = (state.gate.clone(), state.broken.clone());
    let open = OpenCall(Some(Arc::clone(state)));
    let waiting = stream::once(async move {
        let mut open = open;
        tokio::select! {
            () = gate.passed() => open.0 = None,
            () = broken.passed() => return Err(std::io::Error::other("broken off")),
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "result": answer});
        Ok(Bytes::from(format!("data: {message}\n\n")))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(waiting)).into_response()
}

/// Returns the questions of the tool `ask` in this round, or its result: the answers of the last round.
fn asked(params: &Value) -> Result<Value, String> {
    let arguments = &params["arguments"];
    let state = params["requestState"].as_str();
    // Bytes that a store may take for something else.
    let end = " \u{0}\"state\"";
    let before = match state {
        None => 0,
        Some(state) => state
            .strip_suffix(end)
            .and_then(|round| round.parse().ok())
            .ok_or_else(|| format!("this is no state of mine: {state:?}"))?,
    };
    if before >= arguments["rounds"].as_u64().unwrap_or(1) {
        let responses = params["inputResponses"].as_object();
        let answers = responses.into_iter().flatten().map(|(id, answer)| {
            let action = answer["action"].as_str().unwrap_or_default();
            let of = if id == "who" {
                String::new()
            } else {
                format!("{id}: ")
            };
            match &answer["content"] {
                Value::Null => format!("{of}{action}"),
                content => format!("{of}{action} {content}"),
            }
        });
        let answers: Vec<_> = answers.collect();
        return Err(match &answers[..] {
            [] => "unasked".to_owned(),
            answers => answers.join("; "),
        });
    }
    let form = |message: &str| {
        json!({"method": "elicitation/create", "params": {"mode": "form", "message": message,
            "requestedSchema": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "minLength": 2},
                "times": {"type": "integer", "minimum": 1, "default": 2}}}}})
    };
    let page = json!({"method": "elicitation/create", "params": {"mode": "url", "message": "Pay here",
        "url": "https://pay.example/1"}});
    let sampling =
        json!({"method": "sampling/createMessage", "params": {"maxTokens": 1, "messages": []}});
    let requests = match arguments["kind"].as_str().unwrap_or("form") {
        "sampling" => json!({ "model": sampling }),
        "roots" => json!({"folders": {"method": "roots/list"}}),
        "page" => json!({ "who": page }),
        "two" => json!({"who": form("Who pays?"), "where": form("Where?"), "page": page}),
        "wait" => json!({}),
        "many" => (0..9)
            .map(|n| (format!("q{n}"), form("One of many")))
            .collect(),
        "large_schema" => json!({"who": form(&"x".repeat(40_000))}),
        _ => json!({"who": form("Who pays?")}),
    };
    let state = match arguments["kind"].as_str() {
        Some("large_state") => "x".repeat(70_000),
        _ => format!("{}{end}", before + 1),
    };
    Ok(json!({"resultType": "input_required", "inputRequests": requests, "requestState": state}))
}

/// A call without an answer so far. It counts as abandoned if the client closes the connection.
struct OpenCall(Option<Arc<State>>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.seen.send_modify(|seen| seen.abandoned += 1);
        }
    }
}
