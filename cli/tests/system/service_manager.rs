//! The messages to systemd, received on a socket instead of its own.

use baton_harness::client::{Client, PATIENCE};
use baton_harness::scripted_model::Reply;
use baton_harness::stack::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixDatagram};

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

/// Guards a deploy behind systemd's socket: a request that arrives while no ingress runs waits for
/// the next one.
#[tokio::test]
async fn a_request_between_two_ingresses_waits_at_the_passed_socket() {
    let model = model(|_| Reply::text("hello")).await;
    let stack = Stack::start(options(&model)).await.unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let client = Client::new(address, stack.api_key());

    let mut first = stack.ingress_on(&socket).await.unwrap();
    assert_eq!(client.get("/v1/models").await.unwrap().status, 200);
    first.terminate();
    assert_eq!(first.exit_code().await.unwrap(), 0);
    // The kernel takes the connection and the request.
    let mut waiting = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v1/models HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n",
        stack.api_key()
    );
    waiting.write_all(request.as_bytes()).await.unwrap();
    let _second = stack.ingress_on(&socket).await.unwrap();

    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, waiting.read_to_string(&mut answer)).await;
    read.expect("no ingress serves the socket").unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

/// Guards a unit's mistake: a socket for a role that serves none would take connections for ever.
#[tokio::test]
async fn a_role_that_serves_no_socket_refuses_one() {
    let model = model(|_| Reply::text("hello")).await;
    let stack = Stack::start(options(&model)).await.unwrap();

    let (ended_well, output) = stack
        .output_of(&["worker"], &[("LISTEN_FDS", "1")])
        .await
        .unwrap();

    assert!(!ended_well);
    assert!(output.contains("only an ingress serves one"), "{output}");
}
