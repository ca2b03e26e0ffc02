//! A role that has lost the broker for good.

use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use crate::fixture::{assert_whole, model, run, stack};

/// Publishes a header block that makes the client library's connection task panic: a carriage
/// return within a value.
async fn poison(stack: &Stack, subject: &str) {
    let (user, pass) = stack.broker_user();
    let login = json!({"user": user, "pass": pass, "verbose": false, "headers": true});
    let head = "NATS/1.0\r\nX: a\rb\r\n\r\n";
    let frames = format!(
        "CONNECT {login}\r\nHPUB {subject} {0} {0}\r\n{head}\r\nPING\r\n",
        head.len()
    );
    let stream = TcpStream::connect(("127.0.0.1", stack.nats.port())).await;
    let mut stream = BufStream::new(stream.unwrap());
    stream.write_all(frames.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

/// Guards the end of a role that can never work again: code 1, so that an orchestrator restarts it.
/// Before: the process lived on, and `/livez` reported it as alive.
#[tokio::test]
async fn a_role_whose_connection_to_the_broker_has_died_ends_with_code_1() {
    let model = model(|_| Reply::text("goes on")).await;
    let stack = stack(&model).await;
    let bus = stack.bus().await.unwrap();
    let mut hellos = bus.hellos().await.unwrap();
    bus.ping().await.unwrap();
    let (mut ingress, mut scheduler, mut worker) =
        tokio::try_join!(stack.ingress(), stack.scheduler(), stack.worker()).unwrap();
    let id = hellos.next().await.unwrap();
    drop(hellos);
    bus.close().await;

    poison(&stack, &format!("worker.{id}.x")).await;
    assert_eq!(worker.exit_code().await.unwrap(), 1, "the worker");
    poison(&stack, "workers.hello").await;
    assert_eq!(scheduler.exit_code().await.unwrap(), 1, "the scheduler");
    poison(&stack, "ingress.revoked").await;
    let reason = ingress.until_dead().await.unwrap();
    assert!(reason.contains("closed for good"), "{reason}");
    assert_eq!(ingress.exit_code().await.unwrap(), 1, "the ingress");
    let log = stack.logged().unwrap();
    assert!(log.contains("this process cannot go on and ends itself"));

    // After a restart they work as before.
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let client = stack.client(&ingress);
    let next = client.submit(&run()).await.unwrap();
    assert_whole(&client, &next, "goes on").await;
}
