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
        "wait" => {
            let (gate, broken) = (state.gate.clone(), state.broken.clone());
            let open = OpenCall(Some(Arc::clone(state)));
            let waiting = stream::once(async move {
                let mut open = open;
                tokio::select! {
                    () = gate.passed() => open.0 = None,
                    () = broken.passed() => return Err(std::io::Error::other("broken off")),
                }
                let done = content("waited", false);
                let message = json!({"jsonrpc": "2.0", "id": id, "result": done});
                Ok(Bytes::from(format!("data: {message}\n\n")))
            });
            let kind = [(header::CONTENT_TYPE, "text/event-stream")];
            (kind, Body::from_stream(waiting)).into_response()
        }
        other => {
            let error = json!({"code": -32602, "message": format!("no tool {other}")});
            Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response()
        }
    }
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
