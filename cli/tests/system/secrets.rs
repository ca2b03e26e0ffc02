//! Secrets are planted, used and abused; then all output of Baton is searched for them.

mod mistakes;
mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use baton_harness::client::Client;
use baton_harness::scripted_model::{Piece, Recorded, Reply};
use baton_harness::span_receiver::{ReceivedSpan, SpanReceiver};
use baton_harness::stack::{Role, Stack};
use baton_openai::ErrorObject;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use self::search::{Said, Secret};
use crate::dead::publish_as;
use crate::fixture::{call, has_tool_result, model, options, until_dead};

const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
const UPSTREAM_KEY: &str = "sk-canary/upstream+5f1d0c7b9a";
const TOOL_KEY: &str = "canary.tool-4c83be2f61";
const JWT_KEY: &str = "canary-jwt/Zq8v1LxT0mWc7+RyB3nKd5HsA";
const PASSWORD: &str = "canary horse/battery+staple";
const MISTYPED: &str = "canary mule/battery+staple";
const NEW: &str = "canary ox/battery+staple";
/// A secret that belongs to nobody, sent in place of credentials.
const STRANGE: &str = "canary-strange-0c5b7de4f2";

/// Starts a tool that repeats its input, and refuses every second call.
async fn indiscreet_tool(server: &mut JoinSet<()>) -> String {
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = move |mut headers: HeaderMap| async move {
        headers.remove("host");
        let first = calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        let said = format!("You sent {headers:?}: {TOOL_KEY}, indeed.");
        assert_eq!(headers["authorization"], format!("Bearer {TOOL_KEY}"));
        if first {
            (StatusCode::OK, said)
        } else {
            (StatusCode::FORBIDDEN, said)
        }
    };
    let router = Router::new().route("/fetch", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!(
        "[[tools.http]]\nname = \"fetch\"\ndescription = \"Fetches\"\n\
         url = \"http://127.0.0.1:{port}/fetch\"\nmethod = \"POST\"\nidempotent = true\n\
         headers = {{ authorization = \"Bearer {TOOL_KEY}\" }}\n"
    )
}

/// Replies as an upstream that quotes its key wherever it can.
fn indiscreet_model(request: &Recorded) -> Reply {
    let error = || ErrorObject {
        param: Some(UPSTREAM_KEY.to_owned()),
        ..ErrorObject::new(UPSTREAM_KEY, UPSTREAM_KEY, format!("{UPSTREAM_KEY} is bad"))
    };
    let body = || json!({"error": error()}).to_string();
    let stream = |pieces: Vec<Piece>| Reply::pieces(pieces);
    match request.model.as_str() {
        "unauthorized" => Reply::status(401).body(body()),
        "limited" => Reply::status(429).header("retry-after", "0").body(body()),
        "rejected" => Reply::status(400).body(body()),
        "failing" => Reply::status(500).body(body()),
        "wordy" => Reply::status(400).body(format!("<h1>{UPSTREAM_KEY}</h1>")),
        "reporting" => stream(vec![Piece::Text("So ".into()), Piece::Error(error())]),
        "babbling" => {
            let line = format!("data: {{\"choices\": {UPSTREAM_KEY}\n\n");
            stream(vec![Piece::Text("So ".into()), Piece::Raw(line.into())])
        }
        _ if has_tool_result(request) => Reply::text("done"),
        _ => call("let me see ", "fetch", &json!({"what": "it"})),
    }
}

/// Makes runs that succeed and runs that fail, through both doors.
async fn run_and_fail(said: &mut Said, client: &Client) {
    for (model, state) in [
        ("script", "completed"),
        ("script", "completed"),
        ("unauthorized", "failed"),
        ("limited", "failed"),
        ("rejected", "failed"),
        ("failing", "failed"),
        ("wordy", "failed"),
        ("reporting", "failed"),
        ("babbling", "failed"),
    ] {
        assert_eq!(said.run(client, model).await, state, "{model}");
        let messages = json!([{"role": "user", "content": "x"}]);
        for stream in [false, true] {
            let chat = json!({"model": model, "messages": messages, "stream": stream});
            said.post(client, "/v1/chat/completions", &chat).await;
        }
    }
}

fn part(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap().to_owned()
}

/// People register, sign in, mistype, are invited and forget their password. Returns their secrets;
/// the answers that are meant to hold one are not recorded.
async fn let_people_in(said: &mut Said, stack: &Stack, ingress: &Role) -> Vec<Secret> {
    let anybody = ingress.client("");
    let made = async |path: &str, body: Value| {
        let answer = anybody.post(path, &body).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer.json().unwrap()
    };
    let bootstrap = stack.run(&["users", "bootstrap"]).await.unwrap();
    let short = json!({"email": "anna@example.org", "password": "short", "token": bootstrap});
    assert_eq!(said.post(&anybody, "/v1/auth/register", &short).await, 400);
    let anna = json!({"email": "anna@example.org", "password": PASSWORD, "token": bootstrap});
    let tokens = made("/v1/auth/register", anna.clone()).await;
    // A repeated registration: the address and the token are both used.
    assert_eq!(said.post(&anybody, "/v1/auth/register", &anna).await, 400);

    let wrong = json!({"email": "anna@example.org", "password": MISTYPED});
    assert_eq!(said.post(&anybody, "/v1/auth/login", &wrong).await, 401);
    for mistyped in [
        json!({"email": 7, "password": PASSWORD}),
        json!({"email": "anna@example.org", "password": [PASSWORD]}),
        json!({"email": "anna@example.org", "password": PASSWORD, "paswort": PASSWORD}),
        json!(PASSWORD),
    ] {
        assert_eq!(said.post(&anybody, "/v1/auth/login", &mistyped).await, 400);
    }
    let in_query = format!("/v1/auth/me?access_token={STRANGE}&api_key={STRANGE}");
    assert_eq!(said.get(&anybody, &in_query).await, 401);

    let (access, first) = (
        part(&tokens, "access_token"),
        part(&tokens, "refresh_token"),
    );
    let signed_in = ingress.client(&access);
    for path in ["/v1/auth/me", "/v1/auth/sessions", "/v1/members"] {
        assert_eq!(said.get(&signed_in, path).await, 200, "{path}");
    }
    let refresh = |token: &str| json!({"refresh_token": token});
    let second = part(
        &made("/v1/auth/refresh", refresh(&first)).await,
        "refresh_token",
    );
    let third = part(
        &made("/v1/auth/refresh", refresh(&second)).await,
        "refresh_token",
    );
    let mistyped = json!({"refresh_token": third, "tenant": 7});
    assert_eq!(
        said.post(&anybody, "/v1/auth/refresh", &mistyped).await,
        400
    );
    for bad in [&first, &third, &format!("{third}x")] {
        // The first token was used long ago, which ends the session.
        assert_eq!(
            said.post(&anybody, "/v1/auth/refresh", &refresh(bad)).await,
            401
        );
    }
    assert_eq!(said.get(&signed_in, "/v1/auth/me").await, 401);

    let again = json!({"email": "anna@example.org", "password": PASSWORD});
    let signed_in = ingress.client(&part(&made("/v1/auth/login", again).await, "access_token"));
    let body = json!({"role": "member", "email": "bert@example.org"});
    let invite = signed_in.post("/v1/invites", &body).await.unwrap();
    let invite = part(&invite.json().unwrap(), "token");
    assert_eq!(said.get(&signed_in, "/v1/invites").await, 200);
    let other = json!({"email": "carl@example.org", "password": PASSWORD, "token": invite});
    assert_eq!(said.post(&anybody, "/v1/auth/register", &other).await, 400);
    let change = json!({"current_password": MISTYPED, "new_password": NEW});
    assert_eq!(
        said.post(&signed_in, "/v1/auth/password", &change).await,
        401
    );

    let reset = stack
        .run(&["users", "reset-password", "anna@example.org"])
        .await;
    let reset = reset.unwrap();
    for (password, status) in [("short", 400), (NEW, 204), (MISTYPED, 400)] {
        let body = json!({"token": reset, "new_password": password});
        let answered = said.post(&anybody, "/v1/auth/password/reset", &body).await;
        assert_eq!(answered, status, "{password}");
    }
    vec![
        Secret::new("a bootstrap token", bootstrap),
        Secret::new("an access token", access),
        Secret::new("a refresh token", first),
        Secret::new("a later refresh token", second),
        Secret::new("the last refresh token", third),
        Secret::new("an invite", invite),
        Secret::new("a reset token", reset),
    ]
}

/// Keys are made, used, rotated and revoked; strings that are not keys are sent as keys.
async fn let_machines_in(said: &mut Said, stack: &Stack, ingress: &Role) -> Vec<Secret> {
    let owner = stack.client(ingress);
    let made = owner.post("/v1/api-keys", &json!({"name": "one"})).await;
    let made = made.unwrap().json().unwrap();
    let (id, key) = (part(&made, "id"), part(&made, "key"));
    let rotate = format!("/v1/api-keys/{id}/rotate");
    let rotated = owner.post(&rotate, &json!({"overlap_seconds": 0})).await;
    let rotated = rotated.unwrap().json().unwrap();
    let (new_id, new_key) = (part(&rotated, "id"), part(&rotated, "key"));
    assert_eq!(said.get(&ingress.client(&new_key), "/v1/models").await, 200);
    let revoked = owner
        .delete(&format!("/v1/api-keys/{new_id}"))
        .await
        .unwrap();
    said.answer(&revoked);
    assert_eq!(said.get(&ingress.client(&new_key), "/v1/models").await, 401);
    assert_eq!(said.get(&owner, "/v1/api-keys").await, 200);

    let (owners, nobody, nothing) = (stack.api_key(), ingress.client(""), json!({}));
    let run = json!({"model": "script", "input": "x"});
    let run = part(
        &owner.post("/v1/runs", &run).await.unwrap().json().unwrap(),
        "id",
    );
    let events = format!("/v1/runs/{run}/events");
    let ticket = owner.post(&format!("{events}/ticket"), &nothing).await;
    let ticket = part(&ticket.unwrap().json().unwrap(), "ticket");
    for (query, status) in [
        (format!("ticket={ticket}"), 200),
        (format!("ticket={ticket}x"), 401),
    ] {
        assert_eq!(
            said.get(&nobody, &format!("{events}?{query}")).await,
            status,
            "{query}"
        );
    }
    let basic = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("anna:{STRANGE}"),
    );
    for headers in [
        &[("authorization", &*format!("Bearer {owners}x"))][..],
        &[("authorization", &*format!("Bearer {STRANGE}"))],
        &[("authorization", STRANGE)],
        &[("authorization", &*format!("Basic {basic}"))],
        &[("x-api-key", STRANGE)],
        &[
            ("x-api-key", owners),
            ("authorization", &*format!("Bearer {STRANGE}")),
        ],
        &[("cookie", &*format!("session={STRANGE}"))],
        &[("proxy-authorization", STRANGE)],
    ] {
        let answered = said.post_with(&nobody, "/v1/runs", headers, &nothing).await;
        assert_eq!(answered, 401, "{headers:?}");
    }
    let stray = json!({"model": "script", "input": "x", "api_key": STRANGE});
    assert_eq!(said.post(&owner, "/v1/runs", &stray).await, 400);
    assert_eq!(said.get(&owner, &format!("/v1/{STRANGE}")).await, 404);
    vec![
        Secret::new("the owner's key", owners),
        Secret::new("a key", key),
        Secret::new("a rotated key", new_key),
        Secret::new("a stream ticket", ticket),
    ]
}

/// An unreadable message from the bus that holds a secret is reported without it. The message
/// itself is stored unchanged.
async fn quarantine(said: &mut Said, stack: &Stack) {
    let subject = "jobs.01890a5d-ac96-774b-bcce-b302099a8057.interactive";
    let (user, pass) = stack.broker_user();
    let login = json!({"user": user, "pass": pass}).to_string();
    let job = json!({"v": 1, "kind": STRANGE, "api_key": STRANGE}).to_string();
    publish_as(stack.nats.port(), &login, subject, &job).await;
    said.add("commands", until_dead(stack, subject).await);
}

/// Programs connect to the broker with valid and invalid keys, and are disconnected.
async fn let_programs_in(said: &mut Said, stack: &Stack, ingress: &Role) -> Secret {
    let owner = stack.client(ingress);
    let made = owner
        .post("/v1/api-keys", &json!({"name": "program"}))
        .await;
    let made = made.unwrap().json().unwrap();
    let key = part(&made, "key");
    let port = stack.nats.port();
    assert!(is_let_in(port, &key).await);
    assert!(!is_let_in(port, STRANGE).await);
    let path = format!("/v1/api-keys/{}", part(&made, "id"));
    said.answer(&owner.delete(&path).await.unwrap());
    while is_let_in(port, &key).await {}
    let audit = stack.run(&["audit", "--action", "bus.connected"]).await;
    said.add("commands", audit.unwrap());
    Secret::new("a program's key", key)
}

async fn is_let_in(port: u16, token: &str) -> bool {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = BufStream::new(stream);
    let hello = json!({"auth_token": token, "verbose": false});
    let frames = format!("CONNECT {hello}\r\nPING\r\n");
    stream.write_all(frames.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    loop {
        line.clear();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => return false,
            Ok(_) if line.starts_with("PONG") => return true,
            Ok(_) => {}
        }
    }
}

/// Errors about a secret do not show it, and neither does the printed configuration.
async fn print_configuration(said: &mut Said, stack: &Stack) {
    let secrets = stack.broker_secrets();
    let of = |what: &str| {
        let found = secrets.iter().find(|(name, _)| *name == what);
        found.unwrap().1.clone()
    };
    let (issuer, xkey, system) = (of("issuer"), of("xkey"), of("system"));
    let (callout, programs) = (of("callout"), of("programs"));
    let good = [
        ("BATON_NATS__CALLOUT_SEED", &*issuer),
        ("BATON_NATS__CALLOUT_XKEY_SEED", &*xkey),
        ("BATON_NATS__SYSTEM_USER", "system"),
        ("BATON_NATS__SYSTEM_PASSWORD", &*system),
        ("BATON_NATS__CALLOUT_USER", "callout"),
        ("BATON_NATS__CALLOUT_PASSWORD", &*callout),
        ("BATON_NATS__PROGRAMS_USER", "programs"),
        ("BATON_NATS__PROGRAMS_PASSWORD", &*programs),
    ];
    let (succeeded, text) = stack.output_of(&["config", "print"], &good).await.unwrap();
    assert!(succeeded, "{text}");
    said.add("commands", text);
    let mut exchanged = good;
    (exchanged[0].1, exchanged[1].1) = (&xkey, &issuer);
    let ingress = stack.output_of(&["ingress"], &exchanged).await;
    let (succeeded, text) = ingress.unwrap();
    assert!(!succeeded, "{text}");
    assert!(text.contains("nats.callout_xkey_seed"), "{text}");
    said.add("commands", text);
}

/// Guards invariant I21 over everything that the roles write and store: logs at the finest level,
/// answers, events, metrics, spans with content, the audit log and the disks of both servers, both in
/// success and in failure.
#[tokio::test]
async fn planted_secrets_are_in_no_log_answer_event_or_metric() {
    let mut server = JoinSet::new();
    let model = model(indiscreet_model).await;
    let receiver = SpanReceiver::start().await.unwrap();
    let mut options = options(&model)
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint())
        .set("OTEL_BSP_SCHEDULE_DELAY", "50")
        .set(CAPTURE, "SPAN_ONLY")
        .set("LLM_API_KEY", UPSTREAM_KEY)
        .set("JWT_SECRET", JWT_KEY)
        .set("BATON_LLM__MAX_RETRIES", "1")
        .set("RUST_LOG", "trace");
    options.own_postgres = true;
    options.config = indiscreet_tool(&mut server).await;
    let mut stack = Stack::start(options).await.unwrap();
    let (ingress, worker, scheduler) =
        tokio::try_join!(stack.ingress(), stack.worker(), stack.scheduler()).unwrap();
    let client = stack.client(&ingress);
    let mut said = Said::default();

    run_and_fail(&mut said, &client).await;
    let results = |spans: &[ReceivedSpan]| {
        let result = |span: &&ReceivedSpan| !span.attribute("gen_ai.tool.call.result").is_empty();
        spans.iter().filter(result).count() >= 2
    };
    receiver.until(results).await.unwrap();
    let bearer = format!("Bearer {UPSTREAM_KEY}");
    let used = |request: &Recorded| request.headers["authorization"] == bearer;
    assert!(model.requests().iter().all(used), "the key is used");
    let mut secrets = let_people_in(&mut said, &stack, &ingress).await;
    secrets.extend(let_machines_in(&mut said, &stack, &ingress).await);
    secrets.push(let_programs_in(&mut said, &stack, &ingress).await);
    print_configuration(&mut said, &stack).await;
    quarantine(&mut said, &stack).await;
    said.add("spans", format!("{:?}", receiver.spans()));
    for command in [
        &["audit", "--json"][..],
        &["keys", "list"],
        &["users", "list"],
        &["dead", "list"],
        &["config", "print"],
    ] {
        said.add("commands", stack.run(command).await.unwrap());
    }
    said.metrics(&[&ingress, &worker, &scheduler]).await;
    said.disk("broker's disk", &stack.nats.store_dir());
    let postgres = stack.database_disk().unwrap();
    said.disk("ledger's disk", &postgres.join("pg_wal"));
    for database in std::fs::read_dir(postgres.join("base")).unwrap() {
        let database = database.unwrap();
        // PostgreSQL's own databases have lower numbers.
        let ours = |number: u32| number >= 16_384;
        let name = database.file_name().into_string().unwrap();
        if name.parse().is_ok_and(ours) {
            said.disk("ledger's disk", &database.path());
        }
    }

    // The servers end, which is logged with all details about them.
    stack.nats.kill().await;
    let run = json!({"model": "script", "input": "x"});
    said.post(&client, "/v1/runs", &run).await;
    let database = stack.database_password().unwrap().to_owned();
    stack.kill_postgres().await.unwrap();
    said.post(&client, "/v1/runs", &run).await;
    said.metrics(&[&ingress, &worker, &scheduler]).await;
    for command in [&["worker"][..], &["keys", "list"], &["dead", "list"]] {
        let (succeeded, text) = stack.output_of(command, &[]).await.unwrap();
        assert!(!succeeded, "{text}");
        said.add("commands", text);
    }
    said.add("logs", stack.logged().unwrap());

    for (place, sign) in [
        ("logs", "answered"),
        ("logs", "TRACE"),
        ("answers", "upstream_unauthorized"),
        ("events", "run.failed"),
        ("events", "You sent"),
        ("metrics", "baton_http_requests_total"),
        ("spans", "Please."),
        ("spans", "You sent"),
        ("commands", "password_reset.created"),
        ("commands", "cannot connect"),
        ("commands", "bus.connected"),
        ("commands", "callout_xkey_seed"),
        ("broker's disk", "You sent"),
        ("ledger's disk", "anna@example.org"),
    ] {
        said.assert_heard(place, sign);
    }
    // Clients get no details of the internal servers.
    let server = |url: &str| url.split("://").nth(1).unwrap().replace("/v1", "");
    let internal = [
        &server(&model.base_url()),
        &server(stack.nats.url()),
        "postgres",
        "PostgreSQL",
        "sqlx",
        "SELECT ",
        "INSERT INTO",
        "relation \"",
        "_nats",
        ".rs:",
        env!("CARGO_MANIFEST_DIR"),
    ];
    said.assert_unmentioned(&["answers", "events"], &internal);
    let own = |what, value: &str| Secret::new(what, value);
    secrets.extend([
        own("the upstream's key", UPSTREAM_KEY),
        own("the tool's key", TOOL_KEY),
        own("the signing key", JWT_KEY),
        own("the database's password", &database),
        own("a password", PASSWORD),
        own("a mistyped password", MISTYPED),
        own("a new password", NEW),
        own("a stranger's credential", STRANGE),
    ]);

    for (whose, secret) in stack.broker_secrets() {
        let what: &'static str = match whose {
            "issuer" => "the seed that lets programs in",
            "xkey" => "the seed that reads who they are",
            "system" => "the system user's password",
            _ => "a role's password at the broker",
        };
        secrets.push(own(what, &secret));
    }

    said.assert_silent(&secrets, &[("a stranger's credential", "broker's disk")]);
}
