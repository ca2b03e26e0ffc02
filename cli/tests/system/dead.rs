//! Messages that cannot be processed.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use crate::fixture::{assert_whole, model, run, stack, until_dead};

/// Publishes as the user who may do everything, without a client library.
async fn publish(stack: &Stack, subject: &str, payload: &str) {
    publish_as(stack.nats.port(), &login(stack), subject, payload).await;
}

fn login(stack: &Stack) -> String {
    let (user, pass) = stack.broker_user();
    json!({"user": user, "pass": pass, "headers": true}).to_string()
}

/// As [`publish`], with the options of `CONNECT`, a JSON object.
pub(crate) async fn publish_as(port: u16, login: &str, subject: &str, payload: &str) {
    let length = payload.len();
    let frame = format!("PUB {subject} {length}\r\n{payload}\r\n");
    send(port, login, &frame).await;
}

/// As [`publish`], with headers.
async fn publish_with(stack: &Stack, subject: &str, headers: &[(&str, &str)], payload: &str) {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let headers = format!("NATS/1.0\r\n{}\r\n", headers.concat());
    let (head, all) = (headers.len(), headers.len() + payload.len());
    let frame = format!("HPUB {subject} {head} {all}\r\n{headers}{payload}\r\n");
    send(stack.nats.port(), &login(stack), &frame).await;
}

async fn send(port: u16, login: &str, frame: &str) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = BufStream::new(stream);
    let frames = format!("CONNECT {login}\r\n{frame}PING\r\n");
    stream.write_all(frames.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

/// Guards the search for stranded messages, and the quarantine: messages that no worker can receive
/// or read are set aside with the reason, and delay nothing.
#[tokio::test]
async fn messages_that_nobody_can_work_on_are_set_aside_with_their_reason() {
    let model = model(|_| Reply::text("as always")).await;
    let stack = stack(&model).await;
    let (ingress, scheduler, worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let tenant = "01890a5d-ac96-774b-bcce-b302099a8057";
    let nowhere = format!("jobs.{tenant}.nowhere");
    publish(&stack, &nowhere, r#"{"lost":true}"#).await;
    let readable_by_nobody = format!("jobs.{tenant}.interactive");
    publish(&stack, &readable_by_nobody, "garbage").await;

    let quarantined = "baton_jobs_quarantined_total";
    scheduler.until_metric(quarantined, 1).await.unwrap();
    worker.until_metric(quarantined, 1).await.unwrap();
    let stranded = until_dead(&stack, &nowhere).await;
    assert!(
        stranded.contains("no consumer takes this subject"),
        "{stranded}"
    );
    until_dead(&stack, &readable_by_nobody).await;
    let left = stack.bus().await.unwrap().stranded_jobs(10).await.unwrap();
    assert_eq!(left.jobs, [], "moved, and not only copied");

    let client = stack.client(&ingress);
    let id = client.submit(&run()).await.unwrap();
    assert_whole(&client, &id, "as always").await;
}

/// Guards the operator's terminal: a stranger's text never reaches it raw. Before: ESC and the mark
/// that reverses a line were printed.
#[tokio::test]
async fn what_strangers_wrote_is_printed_with_escapes() {
    let model = model(|_| Reply::text("unused")).await;
    let stack = stack(&model).await;
    // The ingress makes the streams.
    let _ingress = stack.ingress().await.unwrap();
    let tricks = "\u{1b}[2Jgone\u{202e}txt\u{7}";
    let subject = "dead.submit.x\u{1b}[31m\u{202e}.interactive";
    publish_with(
        &stack,
        subject,
        &[("Baton-Reason", tricks)],
        &format!("{tricks}\n\u{9b}31m"),
    )
    .await;
    let (_, listed) = stack.output_of(&["dead", "list"], &[]).await.unwrap();
    let (_, shown) = stack.output_of(&["dead", "show", "1"], &[]).await.unwrap();
    for text in [&listed, &shown] {
        let raw = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{text:?}");
    }
    assert!(
        listed.contains("\\u{1b}[2Jgone\\u{202e}txt\\u{7}"),
        "{listed}"
    );
    let raw = stack.run(&["dead", "show", "--raw", "1"]).await.unwrap();
    assert!(raw.starts_with(tricks), "{raw:?}");
}

/// Guards the replay from DEAD: a submission is checked on behalf of the program that published it,
/// a job is queued again, a refusal is reported, and the audit log records all of it.
#[tokio::test]
async fn what_was_set_aside_is_shown_and_put_on_its_way_again() {
    let model = model(|_| Reply::text("at last")).await;
    let stack = stack(&model).await;
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let listed = stack.run(&["keys", "list"]).await.unwrap();
    let key = listed.split_whitespace().next().unwrap();
    let first = client.submit(&run()).await.unwrap();
    assert_whole(&client, &first, "at last").await;
    let tenant = stack.tenant().await.unwrap();

    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let request = r#"{"model":"script","input":"Please."}"#;
    let submission = format!(r#"{{"v":1,"kind":"submit","run_id":"{id}","request":{request}}}"#);
    let job = format!(r#"{{"v":1,"kind":"run","run_id":"{first}"}}"#);
    let by = [("Baton-Reason", "too new")];
    let submitted = format!("dead.submit.{tenant}.{key}.interactive");
    publish_with(&stack, &submitted, &by, &submission).await;
    publish_with(&stack, &submitted, &by, "garbage").await;
    for lane in ["interactive", "nowhere"] {
        let dead = format!("dead.jobs.{tenant}.{lane}");
        publish_with(&stack, &dead, &by, &job).await;
    }

    assert_eq!(stack.run(&["dead", "show", "1"]).await.unwrap(), submission);
    let listed = async |arguments: &[&str]| {
        let all = stack
            .run(&[&["dead", "list"], arguments].concat())
            .await
            .unwrap();
        all.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]).await.len(), 4, "none was replayed");
    let replayed = stack.run(&["dead", "replay", "1", "3"]).await.unwrap();
    let lines: Vec<_> = replayed.lines().collect();
    assert_eq!(lines[0], format!("1  accepted: run {id} is queued"));
    assert!(lines[1].starts_with("3  queued again as job"), "{replayed}");
    assert_whole(&client, id, "at last").await;

    let all = ["dead", "replay", "--all-with-reason", "new"];
    let left = stack.run(&all).await.unwrap_err().to_string();
    assert!(left.contains("2 of them were not taken"), "{left}");
    // A delivered message is not delivered a second time, unless it is named.
    let lines = listed(&[]).await;
    assert_eq!(lines.len(), 8, "{lines:?}");
    let actor = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let by = format!("by {}", actor.as_deref().unwrap_or("an operator"));
    for (at, what) in [
        (1, format!("{by}: accepted: run {id} is queued")),
        (3, format!("{by}: refused: invalid_json")),
        (5, format!("{by}: queued again as job")),
        (7, format!("{by}: not replayed: nobody takes messages on")),
    ] {
        assert!(lines[at].starts_with("    replayed 20"), "{lines:?}");
        assert!(lines[at].contains(&what), "{what}: {lines:?}");
    }
    let open = listed(&["--open"]).await;
    let sequences: Vec<_> = open.iter().filter_map(|line| line.chars().next()).collect();
    assert_eq!(sequences, ['2', ' ', '4', ' '], "{open:?}");
    stack.run(&["dead", "replay", "1"]).await.unwrap();
    let audited = stack.run(&["audit", "--action", "dead."]).await.unwrap();
    // Five replays, each with a begin and an end.
    assert_eq!(audited.lines().count(), 10, "{audited}");
    assert!(audited.contains("refused: invalid_json"), "{audited}");
    assert!(audited.contains("nobody takes messages on"), "{audited}");
    let (ended, _) = assert_whole(&client, id, "at last").await;
    assert_eq!(ended["attempt"], 1, "twice did no harm");
}
