//! The shared parts of the tests: a stack with a scripted model, a tool that counts, and the check
//! of a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use baton_harness::client::{Client, PATIENCE, RunEvent, check_log, shown_text};
use baton_harness::scripted_model::{Gate, Piece, Recorded, Reply, Script, ScriptedModel};
use baton_harness::stack::{Stack, StackOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Starts a model that answers as `choose` decides.
pub(crate) async fn model(
    choose: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
) -> ScriptedModel {
    ScriptedModel::start(Script::new(choose)).await.unwrap()
}

/// Returns options for the program under test with this model.
pub(crate) fn options(model: &ScriptedModel) -> StackOptions {
    StackOptions::new(env!("CARGO_BIN_EXE_baton"), model.base_url())
}

/// Starts a stack with the usual settings.
pub(crate) async fn stack(model: &ScriptedModel) -> Stack {
    Stack::start(options(model)).await.unwrap()
}

/// Waits until `baton dead list` has a line with this text, and returns the line.
pub(crate) async fn until_dead(stack: &Stack, part: &str) -> String {
    let found = async {
        loop {
            let listed = stack.run(&["dead", "list"]).await.unwrap();
            if let Some(line) = listed.lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("`baton dead list` never shows {part}"))
}

/// Returns the body of a streamed chat.
pub(crate) fn chat() -> Value {
    json!({
        "model": "script", "stream": true,
        "messages": [{"role": "user", "content": "Please."}],
    })
}

/// Returns the body of a native run.
pub(crate) fn run() -> Value {
    json!({"model": "script", "input": "Please."})
}

/// Sends tokens, then nothing until the gate is opened, then the rest.
pub(crate) fn gated(before: &[&str], gate: &Gate, after: &[&str]) -> Reply {
    let text = |token: &&str| Piece::Text((*token).to_owned());
    let pieces = before.iter().map(text).chain([Piece::Wait(gate.clone())]);
    Reply::pieces(pieces.chain(after.iter().map(text))).ended("stop")
}

/// Sends a text, and then a call of a tool.
pub(crate) fn call(text: &str, name: &str, arguments: &Value) -> Reply {
    Reply::pieces(calling(text, name, arguments)).ended("tool_calls")
}

/// As [`call`], with the end of the turn held back until the gate is opened.
pub(crate) fn gated_call(text: &str, name: &str, arguments: &Value, gate: &Gate) -> Reply {
    let wait = [Piece::Wait(gate.clone())];
    Reply::pieces(calling(text, name, arguments).into_iter().chain(wait)).ended("tool_calls")
}

/// Returns the pieces of [`call`].
pub(crate) fn calling(text: &str, name: &str, arguments: &Value) -> Vec<Piece> {
    vec![
        Piece::Text(text.to_owned()),
        Piece::ToolCall {
            index: 0,
            id: "call_1".to_owned(),
            name: name.to_owned(),
            fragments: vec![arguments.to_string()],
        },
    ]
}

/// Returns whether the request is for the turn after a tool's result.
pub(crate) fn has_tool_result(request: &Recorded) -> bool {
    request.last_role() == Some("tool")
}

/// A tool's server that counts its calls. A call is answered once the gate is open.
pub(crate) struct CountingTool {
    calls: Arc<AtomicUsize>,
    abandoned: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<String>>>,
    port: u16,
    _server: JoinSet<()>,
}

impl CountingTool {
    pub(crate) async fn start() -> Self {
        let gate = Gate::closed();
        gate.open();
        Self::start_behind(gate).await
    }

    pub(crate) async fn start_behind(gate: Gate) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let abandoned = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&abandoned);
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&bodies);
        let router = Router::new().route(
            "/count",
            post(async move |body: String| {
                read.lock().unwrap().push(body);
                let n = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let mut call = OpenCall(Some(Arc::clone(&left)));
                gate.passed().await;
                call.0 = None;
                format!("counted {n}")
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            calls,
            abandoned,
            bodies,
            port,
            _server: server,
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns the bodies of all calls.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }

    /// Waits until the connection of a call was closed before the answer.
    pub(crate) async fn until_abandoned(&self) {
        let abandoned = async {
            while self.abandoned.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, abandoned).await.unwrap();
    }

    /// Waits for its first call.
    pub(crate) async fn until_called(&self) {
        let called = async {
            while self.calls() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, called).await.unwrap();
    }

    /// Returns its configuration: a tool that must not be called twice for the same purpose.
    pub(crate) fn config(&self) -> String {
        format!(
            "[[tools.http]]\nname = \"count\"\ndescription = \"Counts\"\n\
             url = \"http://127.0.0.1:{}/count\"\nmethod = \"POST\"\nidempotent = false\n\
             timeout = \"10m\"\n",
            self.port
        )
    }
}

/// A call without an answer so far. It counts as abandoned if the server drops it because the
/// client disconnected.
struct OpenCall(Option<Arc<AtomicUsize>>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(abandoned) = self.0.take() {
            abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Returns the text of the run's messages in the ledger.
pub(crate) fn recorded_text(run: &Value) -> String {
    let messages = run["output"].as_array().unwrap();
    messages
        .iter()
        .filter(|message| message["role"] == "assistant")
        .filter_map(|message| message["content"].as_str())
        .collect()
}

/// Waits for the run's end, and checks that it completed with this text, and that its events agree.
/// Returns the run and its events.
pub(crate) async fn assert_whole(client: &Client, id: &str, text: &str) -> (Value, Vec<RunEvent>) {
    let (run, events) = assert_ended(client, id, "completed").await;
    assert_eq!(recorded_text(&run), text, "the ledger");
    assert_eq!(shown_text(&events), text, "the events");
    (run, events)
}

/// Checks that a run's last turn was broken off after this text: that the text is kept as it was
/// shown, that it does not count as an answer, and that its tokens are counted.
pub(crate) fn assert_cut(run: &Value, events: &[RunEvent], text: &str) {
    assert_eq!(shown_text(events), text, "the events");
    let output = run["output"].as_array().unwrap();
    let last = output.last().unwrap();
    assert_eq!(
        (&last["content"], &last["status"]),
        (&json!(text), &json!("incomplete"))
    );
    let step = run["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&step["kind"], &step["incomplete"]),
        (&json!("turn"), &json!(true))
    );
    assert_eq!(step["finish_reason"], Value::Null);
    assert_eq!(run["usage"]["estimated"], true, "{run:#}");
    assert_ne!(run["usage"]["completion_tokens"], 0);
    assert_eq!(events.last().unwrap().event["data"]["usage"], run["usage"]);
}

/// Waits for the run's end, and checks its final state and the order of its log.
pub(crate) async fn assert_ended(
    client: &Client,
    id: &str,
    status: &str,
) -> (Value, Vec<RunEvent>) {
    let run = client.ended(id).await.unwrap();
    assert_eq!(run["status"], status, "{run:#}");
    let events = client.all_events(id).await.unwrap();
    check_log(&events).unwrap();
    let last = events.last().unwrap();
    assert_eq!(last.kind, format!("run.{status}"));
    assert_eq!(
        run["last_event_id"].as_u64(),
        Some(last.id),
        "the ledger names the last event"
    );
    let steps: Vec<_> = run["steps"].as_array().unwrap().iter().collect();
    for (at, step) in (1_u64..).zip(&steps) {
        assert_eq!(
            step["step"].as_u64(),
            Some(at),
            "steps are dense: {steps:#?}"
        );
    }
    (run, events)
}

/// Counts the events of a type.
pub(crate) fn count(events: &[RunEvent], kind: &str) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}
