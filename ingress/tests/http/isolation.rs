//! Two tenants. Every operation in the description is called with one tenant's credentials and the
//! other's ids: another tenant's objects do not exist, and none of them changes. A new operation
//! must be added here, or the test fails.

use baton_protocol::RunId;
use baton_service::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::fixture::{Fixture, PASSWORD, soon};
use crate::parked::park;

/// A tenant's objects, and the credentials that act for it.
struct Tenant {
    email: &'static str,
    /// An owner's access token, and a key with all scopes.
    credentials: [Credential; 2],
    id: String,
    run: String,
    response: String,
    approval: String,
    message: String,
    api_key: String,
    invite: String,
    user: String,
    session: String,
    agent: String,
    thread: String,
    conversation: String,
    item: String,
}

#[derive(Clone)]
struct Credential {
    is_key: bool,
    text: String,
}

/// An operation's relation to tenants, and the body to call it with.
enum How {
    /// Its path names an object of one tenant.
    Owned(Value),
    /// It reads or creates objects of the caller.
    Own(Value),
    /// It names another tenant, or a secret, in its body, and is refused.
    Refused(Value),
    /// A worker answers it, and no worker runs here.
    AsksWorker,
}

/// Returns the way to call an operation with `other`'s ids; `None` if this test does not know it.
fn how(method: &str, path: &str, own: &Tenant, other: &Tenant) -> Option<How> {
    let nothing = Value::Null;
    let message = json!([{"role": "user", "content": "x"}]);
    Some(match (method, path) {
        (
            "GET",
            "/v1/runs/{id}"
            | "/v1/runs/{id}/events"
            | "/v1/responses/{id}"
            | "/v1/responses/{id}/input_items"
            | "/v1/runs/{id}/approvals"
            | "/v1/runs/{id}/messages"
            | "/v1/runs/{id}/timeline"
            | "/v1/runs/{id}/feedback"
            | "/v1/agents/{id}"
            | "/v1/agents/{id}/versions"
            | "/v1/agents/{id}/diff"
            | "/v1/threads/{id}"
            | "/v1/threads/{id}/messages"
            | "/v1/conversations/{id}"
            | "/v1/conversations/{id}/items"
            | "/v1/conversations/{id}/items/{item}",
        )
        | (
            "POST",
            "/v1/runs/{id}/cancel"
            | "/v1/responses/{id}/cancel"
            | "/v1/runs/{id}/events/ticket"
            | "/v1/members/{id}/password-reset",
        )
        | (
            "DELETE",
            "/v1/api-keys/{id}"
            | "/v1/invites/{id}"
            | "/v1/members/{id}"
            | "/v1/agents/{id}"
            | "/v1/runs/{id}/messages/{message}"
            | "/v1/runs/{id}/approvals/{approval}/grant"
            | "/v1/responses/{id}"
            | "/v1/threads/{id}"
            | "/v1/conversations/{id}"
            | "/v1/conversations/{id}/items/{item}"
            | "/v1/auth/sessions/{id}",
        ) => How::Owned(nothing),
        ("POST", "/v1/runs/{id}/feedback") => How::Owned(json!({"key": "helpful", "score": 1})),
        ("PATCH", "/v1/runs/{id}") => How::Owned(json!({"limits": {"max_tokens": 9}})),
        ("PATCH", "/v1/threads/{id}") => How::Owned(json!({"title": "taken"})),
        ("POST", "/v1/threads/{id}/messages") => How::Owned(json!({"messages": message})),
        ("POST", "/v1/runs/{id}/messages") => How::Owned(json!({"content": "x"})),
        ("POST", "/v1/conversations/{id}") => How::Owned(json!({"metadata": {"k": "taken"}})),
        ("POST", "/v1/conversations/{id}/items") => How::Owned(json!({"items": message})),
        ("POST", "/v1/conversations") => How::Own(json!({})),
        ("POST", "/v1/threads") => How::Own(json!({"title": "another"})),
        ("PUT", "/v1/agents/{id}") => How::Owned(json!({"name": "support", "model": "mine"})),
        ("POST", "/v1/agents/{id}/rollback") => How::Owned(json!({"version": 1})),
        ("POST", "/v1/runs/{id}/approvals") => How::Owned(json!({"decisions": [
            {"approval_id": other.approval, "decision": "fail", "reason": "by a stranger"},
        ]})),
        ("POST", "/v1/runs/{id}/approvals/{approval}") => {
            How::Owned(json!({"decision": "fail", "reason": "by a stranger"}))
        }
        ("POST", "/v1/api-keys/{id}/rotate") => How::Owned(json!({})),
        ("PATCH", "/v1/members/{id}") => How::Owned(json!({"role": "viewer"})),

        (
            "GET",
            "/v1/runs"
            | "/v1/runs/export"
            | "/v1/api-keys"
            | "/v1/invites"
            | "/v1/members"
            | "/v1/agents"
            | "/v1/approvals"
            | "/v1/threads"
            | "/v1/usage"
            | "/v1/models"
            | "/v1/models/{id}"
            | "/v1/auth/me"
            | "/v1/auth/sessions"
            | "/.well-known/jwks.json",
        )
        | ("POST", "/v1/auth/sessions/revoke-others") => How::Own(nothing),
        ("POST", "/v1/runs") => How::Own(json!({"model": "m", "input": "x"})),
        ("POST", "/v1/responses") => {
            How::Own(json!({"model": "m", "input": "x", "background": true}))
        }
        ("POST", "/v1/responses/input_tokens" | "/v1/responses/compact") => {
            How::Refused(json!({"model": "m", "previous_response_id": other.response}))
        }
        ("POST", "/v1/chat/completions") => {
            How::Own(json!({"model": "m", "messages": message, "stream": true}))
        }
        ("POST", "/v1/api-keys") => How::Own(json!({"name": "another", "scopes": ["runs:read"]})),
        ("POST", "/v1/agents") => {
            // Names are unique.
            How::Own(json!({"name": format!("a-{}", RunId::new(SystemClock.now()))}))
        }
        ("POST", "/v1/invites") => How::Own(json!({"role": "viewer"})),
        // Tools belong to no tenant, and none is called `house`.
        ("GET", "/v1/tools") => How::AsksWorker,
        ("GET", "/v1/tools/{name}") => How::Refused(nothing),
        ("POST", "/v1/tools/{name}/execute") => How::Refused(json!({})),
        ("POST", "/v1/tools/execute") => How::Refused(json!({"calls": [{"name": "house"}]})),

        ("POST", "/v1/auth/login") => {
            How::Refused(json!({"email": own.email, "password": PASSWORD, "tenant": other.id}))
        }
        ("POST", "/v1/auth/switch") => How::Refused(json!({"tenant": other.id})),
        ("POST", "/v1/auth/refresh") => {
            How::Refused(json!({"refresh_token": "none", "tenant": other.id}))
        }
        ("POST", "/v1/auth/accept-invite") => How::Refused(json!({"token": other.invite})),
        ("POST", "/v1/auth/register") => How::Refused(
            json!({"email": "eve@example.org", "password": PASSWORD, "token": other.invite}),
        ),
        ("POST", "/v1/auth/password") => How::Refused(
            json!({"current_password": "not this one at all", "new_password": PASSWORD}),
        ),
        ("POST", "/v1/auth/password/reset") => {
            How::Refused(json!({"token": other.user, "new_password": PASSWORD}))
        }
        // A caller without a token learns nothing, not even that it is bad.
        ("POST", "/v1/auth/logout") => How::Own(json!({"refresh_token": "none"})),
        _ => return None,
    })
}

/// Returns the path with this tenant's ids.
fn fill(path: &str, of: &Tenant) -> String {
    let id = match path.split('/').nth(2) {
        Some("runs") => &of.run,
        Some("responses") => &of.response,
        Some("api-keys") => &of.api_key,
        Some("invites") => &of.invite,
        Some("members") => &of.user,
        Some("agents") => &of.agent,
        Some("threads") => &of.thread,
        Some("conversations") => &of.conversation,
        Some("auth") => &of.session,
        _ => "house",
    };
    let filled = path
        .replace("{id}", id)
        .replace("{approval}", &of.approval)
        .replace("{message}", &of.message)
        .replace("{item}", &of.item);
    let filled = filled.replace("{name}", "house");
    assert!(!filled.contains('{'), "no id is known for {path}");
    filled
}

impl Tenant {
    async fn new(f: &Fixture, email: &'static str) -> Self {
        let tokens = f.register(email).await;
        let token = text(&tokens, "access_token");
        let ask = async |method: &str, path: &str, body: Value| {
            let (status, answer) = f.ask(&token, method, path, body).await;
            assert!(status < 300, "{method} {path}: {status} {answer}");
            answer
        };
        let me = ask("GET", "/v1/auth/me", Value::Null).await;
        let sessions = ask("GET", "/v1/auth/sessions", Value::Null).await;
        let key = json!({"name": "all", "scopes": ["*"]});
        let key = ask("POST", "/v1/api-keys", key).await;
        let invite = ask("POST", "/v1/invites", json!({"role": "viewer"})).await;
        let agent = ask("POST", "/v1/agents", json!({"name": "support"})).await;
        let thread = ask("POST", "/v1/threads", json!({"title": "of one tenant"})).await;
        let items = json!({"items": [{"role": "user", "content": "of one tenant"}]});
        let conversation = ask("POST", "/v1/conversations", items).await;
        let conversation = text(&conversation, "id");
        let items = format!("/v1/conversations/{conversation}/items");
        let items = ask("GET", &items, Value::Null).await;
        let run = json!({"model": "m", "input": "of one tenant"});
        let run = text(&ask("POST", "/v1/runs", run).await, "id");
        let response = json!({"model": "m", "input": "of one tenant", "background": true});
        let response = text(&ask("POST", "/v1/responses", response).await, "id");
        let tenant = text(&me, "tenant");
        let approval = park(f, tenant.parse().unwrap(), run.parse().unwrap()).await;
        let messages = format!("/v1/runs/{run}/messages");
        let message = ask("POST", &messages, json!({"content": "x"})).await;
        Self {
            email,
            id: tenant,
            run,
            response,
            approval: approval.to_string(),
            message: text(&message, "id"),
            api_key: text(&key, "id"),
            invite: text(&invite, "id"),
            user: text(&me, "id"),
            agent: text(&agent, "id"),
            thread: text(&thread, "id"),
            conversation,
            item: text(&items["data"][0], "id"),
            session: text(&sessions["data"][0], "id"),
            credentials: [
                Credential {
                    is_key: false,
                    text: token,
                },
                Credential {
                    is_key: true,
                    text: text(&key, "key"),
                },
            ],
        }
    }

    /// Returns the values that no stranger may ever see.
    fn ids(&self) -> [&str; 13] {
        [
            &self.id,
            &self.run,
            &self.response,
            &self.approval,
            &self.message,
            &self.api_key,
            &self.invite,
            &self.user,
            &self.session,
            &self.agent,
            &self.thread,
            &self.conversation,
            &self.item,
        ]
    }

    /// Returns all objects of the tenant, as its owner sees them.
    async fn snapshot(&self, f: &Fixture) -> Vec<Value> {
        let mut seen = Vec::new();
        for path in [
            "/v1/runs",
            "/v1/runs/{id}",
            "/v1/runs/{id}/approvals",
            "/v1/runs/{id}/feedback",
            "/v1/approvals",
            "/v1/runs/{id}/messages",
            "/v1/responses/{id}",
            "/v1/runs/{id}/timeline",
            "/v1/usage?group_by=key,model",
            "/v1/api-keys",
            "/v1/invites",
            "/v1/members",
            "/v1/agents",
            "/v1/agents/{id}/versions",
            "/v1/threads",
            "/v1/threads/{id}/messages",
            "/v1/conversations/{id}",
            "/v1/conversations/{id}/items",
            "/v1/auth/sessions",
            "/v1/auth/me",
        ] {
            let token = &self.credentials[0].text;
            let (status, mut answer) = f.ask(token, "GET", &fill(path, self), Value::Null).await;
            assert_eq!(status, 200, "{path}: {answer}");
            without_times_of_use(&mut answer);
            seen.push(answer);
        }
        seen
    }
}

fn text(answer: &Value, field: &str) -> String {
    answer[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {answer}"))
        .to_owned()
}

fn without_times_of_use(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with("last_used"));
            fields.values_mut().for_each(without_times_of_use);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times_of_use),
        _ => {}
    }
}

/// An operation in the description.
struct Operation {
    method: String,
    path: String,
    is_secured: bool,
    takes_keys: bool,
}

fn operations() -> Vec<Operation> {
    let description = serde_json::to_value(baton_ingress::openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array();
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                is_secured: security.is_some(),
                takes_keys: security
                    .is_some_and(|ways| ways.iter().any(|way| way.get("api_key").is_some())),
            });
        }
    }
    assert!(operations.len() > 20, "the description is whole");
    operations
}

/// Returns the status and the body. A stream is closed unread.
async fn call(
    f: &Fixture,
    credential: Option<&Credential>,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, String) {
    let mut request = f.plain(method, path, body);
    if let Some(credential) = credential {
        request = request.bearer_auth(&credential.text);
    }
    let answer = soon(request.send()).await.unwrap();
    let status = answer.status().as_u16();
    let is_stream = answer
        .headers()
        .get("content-type")
        .is_some_and(|media| media == "text/event-stream");
    if is_stream {
        return (status, String::new());
    }
    (status, answer.text().await.unwrap())
}

/// Calls every operation as `own` with `other`'s ids.
async fn intrude(f: &Fixture, own: &Tenant, other: &Tenant) {
    for operation in operations() {
        let Operation {
            method,
            path,
            is_secured,
            takes_keys,
        } = &operation;
        let target = fill(path, other);
        for credential in &own.credentials {
            let how = how(method, path, own, other)
                .unwrap_or_else(|| panic!("say in `how` what {method} {path} is to other tenants"));
            let body = match &how {
                How::Owned(body) | How::Own(body) | How::Refused(body) => body,
                How::AsksWorker => &Value::Null,
            };
            let (status, answer) = call(f, Some(credential), method, &target, body).await;
            let what = format!("{method} {target}: {status} {answer}");
            let is_for_people = *is_secured && !takes_keys && credential.is_key;
            match how {
                _ if is_for_people => assert_eq!(status, 403, "{what}"),
                How::Owned(_) => assert_eq!(status, 404, "{what}"),
                How::Own(_) => assert!(status < 300, "{what}"),
                How::AsksWorker => assert_eq!(status, 503, "{what}"),
                How::Refused(_) => assert!((400..500).contains(&status), "{what}"),
            }
            for id in other.ids() {
                assert!(!answer.contains(id), "tells {id}: {what}");
            }
        }
    }
}

/// Guards the tenant in every statement, and row-level security behind it, on all routes, including
/// future ones.
#[tokio::test]
async fn what_is_another_tenants_does_not_exist_on_any_route() {
    let f = Fixture::start().await;
    let anna = Tenant::new(&f, "anna@example.org").await;
    let bob = Tenant::new(&f, "bob@example.org").await;
    for tenant in [&anna, &bob] {
        let token = &tenant.credentials[0].text;
        let (_, usage) = f.ask(token, "GET", "/v1/usage", Value::Null).await;
        assert_eq!(usage["data"][0]["turns"], 1, "its own alone: {usage}");
    }
    for (own, other) in [(&anna, &bob), (&bob, &anna)] {
        let before = other.snapshot(&f).await;
        intrude(&f, own, other).await;
        assert_eq!(other.snapshot(&f).await, before, "something has changed");
    }

    // The ids are good: their owner gets answers. The order is reversed, so that objects are used
    // before they are deleted. Agents come first, because all credentials end later on.
    let mut operations = operations();
    operations.sort_by_key(|operation| operation.path.starts_with("/v1/agents"));
    for operation in operations.iter().rev() {
        let Operation {
            method,
            path,
            is_secured,
            ..
        } = operation;
        let target = fill(path, &anna);
        if *is_secured {
            let (status, answer) = call(&f, None, method, &target, &Value::Null).await;
            assert_eq!(
                status, 401,
                "{method} {target} without a credential: {answer}"
            );
        }
        if let Some(How::Owned(body)) = how(method, path, &anna, &bob) {
            let is_for_people = path.starts_with("/v1/auth/");
            let credential = &anna.credentials[usize::from(!is_for_people)];
            let (status, answer) = call(&f, Some(credential), method, &target, &body).await;
            assert!(
                ![401, 404].contains(&status),
                "{method} {target} by its owner: {status} {answer}"
            );
        }
    }
}
