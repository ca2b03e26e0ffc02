//! Ingresses that stop, in order or not.

use baton_harness::scripted_model::{Gate, Piece, Reply, ScriptedModel};
use baton_harness::stack::Stack;

use crate::fixture::{assert_whole, calling, chat, gated, model, options, run, stack};

/// Guards the drain of streams: native ones close between two events and resume elsewhere, chats go
/// on to their end, and a stopping ingress does not count as a client's disconnect.
#[tokio::test]
async fn a_terminated_ingress_cancels_nothing_and_native_streams_resume_on_another() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |_| gated(&["before ", "and "], &held, &["after"])).await;
    let stack = stack(&model).await;
    let (mut first, second, _worker) =
        tokio::try_join!(stack.ingress(), stack.ingress(), stack.worker()).unwrap();
    let (client, other) = (stack.client(&first), stack.client(&second));
    let id = client.submit(&run()).await.unwrap();
    let mut native = client.events(&id, None).await.unwrap();
    native.until("text.delta").await.unwrap();
    let mut answer = client.chat(&chat()).await.unwrap();
    answer.until_text("and ").await.unwrap();

    first.terminate();
    let mut seen = native.rest().await.unwrap();
    let cursor = seen.last().unwrap();
    assert!(
        !cursor.is_terminal(),
        "the stream was closed, not the run ended"
    );
    let resumed = other.events(&id, Some(cursor.id)).await.unwrap();
    gate.open();
    answer.finish().await.unwrap();

    assert!(
        answer.done,
        "within the grace a chat is finished: {:?}",
        answer.error
    );
    assert_eq!(first.exit_code().await.unwrap(), 0);
    seen.extend(resumed.rest().await.unwrap());
    let (_, events) = assert_whole(&other, &id, "before and after").await;
    assert_eq!(seen, events, "no gap, no duplicate");
    assert_whole(&other, &answer.run, "before and after").await;
}

/// Guards the same without a warning: a follower of a run by its id loses nothing with an ingress,
/// and a run that lost its only client with the server is finished and recorded.
#[tokio::test]
async fn a_killed_ingress_cancels_nothing_and_its_followers_resume_on_another() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |request| match request.index {
        0 => gated(&["one ", "two "], &held, &["three"]),
        _ => Reply::text("more"),
    })
    .await;
    let stack = stack(&model).await;
    let (first, second, _worker) =
        tokio::try_join!(stack.ingress(), stack.ingress(), stack.worker()).unwrap();
    let (client, other) = (stack.client(&first), stack.client(&second));
    let mut answer = client.chat(&chat()).await.unwrap();
    let mut native = client.events(&answer.run, None).await.unwrap();
    answer.until_text("two ").await.unwrap();
    native.until("text.delta").await.unwrap();

    first.kill().await;
    while let Ok(Some(_)) = native.next().await {}
    let mut seen = native.seen;
    let resumed = other
        .events(&answer.run, Some(seen.last().unwrap().id))
        .await
        .unwrap();
    gate.open();

    seen.extend(resumed.rest().await.unwrap());
    let (run, events) = assert_whole(&other, &answer.run, "one two three").await;
    assert_eq!(seen, events);
    assert_eq!(run["attempt"], 1, "the worker noticed nothing");
}

/// Starts a stack in which a client may read nothing for as long as a run takes on a busy machine.
async fn patient_stack(model: &ScriptedModel) -> Stack {
    let options = options(model).set("BATON_HTTP__WRITE_TIMEOUT", "10m");
    Stack::start(options).await.unwrap()
}

/// Guards the follower's memory of sent events: readers that stop reading delay nothing, and get
/// the rest when they read on.
#[tokio::test]
async fn a_client_that_reads_late_gets_everything_and_holds_up_nobody() {
    let model = model(|_| Reply::tokens(2_000)).await;
    let stack = patient_stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    let slow = client.events(&id, None).await.unwrap();

    // The run ends before the slow client has read a byte.
    client.ended(&id).await.unwrap();

    let seen = slow.rest().await.unwrap();
    assert_eq!(seen, client.all_events(&id).await.unwrap());
    baton_harness::client::check_log(&seen).unwrap();
}

/// Guards the key, which is committed with its run: if a client repeats a request because its
/// server died, it is attached to the run that it had, from its first event.
#[tokio::test]
async fn a_client_that_repeats_its_key_after_its_ingress_died_gets_the_same_run() {
    let gate = Gate::closed();
    let held = gate.clone();
    let model = model(move |_| gated(&["once ", "and "], &held, &["only once"])).await;
    let stack = stack(&model).await;
    let (first, second, _worker) =
        tokio::try_join!(stack.ingress(), stack.ingress(), stack.worker()).unwrap();
    let (client, other) = (stack.client(&first), stack.client(&second));
    let mut answer = client.keyed_chat(&chat(), "key-1").await.unwrap();
    answer.until_text("and ").await.unwrap();

    first.kill().await;
    let mut again = other.keyed_chat(&chat(), "key-1").await.unwrap();
    gate.open();
    again.finish().await.unwrap();

    assert_eq!(again.run, answer.run);
    assert_eq!((again.error, &*again.text), (None, "once and only once"));
    assert_whole(&other, &again.run, &again.text).await;
    assert_eq!(model.counts().requests, 1);
    let other_body = serde_json::json!({"model": "script", "stream": true,
        "messages": [{"role": "user", "content": "Something else."}]});
    let refused = other.keyed_chat(&other_body, "key-1").await.unwrap_err();
    assert!(refused.to_string().starts_with("422"), "{refused:#}");
}

/// Guards the buffers for a client that does not read: they are bounded in messages and in bytes.
/// Events beyond the bound are read again from the stream, so that nothing waits for the client,
/// and it can resume.
#[tokio::test]
async fn clients_that_never_read_cost_little_memory_and_hold_up_nobody() {
    const TURNS: usize = 5;
    /// The memory of the ingress for each client: 10 to 18 MiB were measured, with the allocator's
    /// share.
    const HELD: usize = 24 << 20;

    let shown = TURNS * PIECES * PIECE.len();
    let model = model(|request| {
        let mut pieces = long_text();
        if request.index + 1 == TURNS {
            return Reply::pieces(pieces).ended("stop");
        }
        let one = serde_json::json!({"expression": "1"});
        pieces.extend(calling("", "calculator", &one));
        Reply::pieces(pieces).ended("tool_calls")
    })
    .await;
    let stack = patient_stack(&model).await;
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let before = ingress.memory();
    let chat = client.chat(&chat()).await.unwrap();
    let mut native = Vec::new();
    for _ in 0..2 {
        native.push(client.events(&chat.run, None).await.unwrap());
    }

    worker
        .until_metric("baton_runs_ended_total", 1)
        .await
        .unwrap();

    let held = usize::try_from(ingress.memory().saturating_sub(before)).unwrap();
    assert!(held < 3 * HELD, "{held} bytes are held of {shown} each");
    let seen = native.pop().unwrap().rest().await.unwrap();
    assert_eq!(baton_harness::client::shown_text(&seen).len(), shown);
    baton_harness::client::check_log(&seen).unwrap();
}

/// A few kilobytes.
const PIECE: &str = include_str!("ingress.rs");
const PIECES: usize = (7 << 20) / PIECE.len();

/// Sends seven mebibytes as fast as possible.
fn long_text() -> Vec<Piece> {
    vec![Piece::Text(PIECE.to_owned()); PIECES]
}
