//! The messages to systemd, received on a socket instead of its own.

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use tokio::net::UnixDatagram;

use crate::fixture::{model, options};

/// Reads messages until one has this line, and returns all lines before it.
async fn until(socket: &UnixDatagram, line: &str) -> Vec<String> {
    let mut before = Vec::new();
    let found = async {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.lines().any(|each| each == line) {
                return;
            }
            before.extend(message.lines().map(str::to_owned));
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("{line} never came, but {before:?}"));
    before
}

#[tokio::test]
async fn a_role_says_when_it_is_ready_alive_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let model = model(|_| Reply::text("hello")).await;
    let options = options(&model)
        .set("NOTIFY_SOCKET", path.display().to_string())
        .set("WATCHDOG_USEC", "200000");
    let stack = Stack::start(options).await.unwrap();

    let scheduler = stack.scheduler().await.unwrap();
    let before = until(&socket, "READY=1").await;
    assert!(
        !before.iter().any(|line| line == "WATCHDOG=1"),
        "{before:?}"
    );
    // More than one, or systemd would kill it after the first.
    until(&socket, "WATCHDOG=1").await;
    until(&socket, "WATCHDOG=1").await;
    scheduler.terminate();
    until(&socket, "STOPPING=1").await;
}
