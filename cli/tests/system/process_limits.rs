//! Roles under tight limits of the operating system.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use baton_harness::client::PATIENCE;
use baton_harness::scripted_model::{Reply, ScriptedModel};
use baton_harness::stack::{Role, Stack, StackOptions};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::fixture::{chat, model, options};

/// Returns options for the program with this model, under a limit of the shell's `ulimit`.
fn limited(model: &ScriptedModel, limit: &str) -> (TempDir, StackOptions) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("baton");
    let usual = options(model);
    let text = format!(
        "#!/bin/sh\nulimit {limit}\nexec {} \"$@\"\n",
        usual.program.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let program = script;
    (folder, StackOptions { program, ..usual })
}

/// Connects from an address of this machine that clients usually do not have.
async fn stranger(ingress: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    timeout(PATIENCE, socket.connect(ingress))
        .await
        .unwrap()
        .unwrap()
}

/// Guards the reserved files, and the share of connections of one address.
#[tokio::test]
async fn with_few_files_strangers_leave_enough_for_probes_and_for_others() {
    const STRANGERS: usize = 264;
    let model = model(|_| Reply::text("served")).await;
    let (_folder, options) = limited(&model, "-n 150");
    let options = options.set("BATON_HTTP__HEADER_TIMEOUT", "1h");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, _worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let address = ingress.address();
    let strangers = join_all((0..STRANGERS).map(|_| stranger(address))).await;
    for _ in 0..3 {
        let metrics = ingress.metrics().await.unwrap();
        assert!(metrics.contains("baton_http_active_connections"));
        let mut answer = stack.client(&ingress).chat(&chat()).await.unwrap();
        answer.finish().await.unwrap();
        assert!(answer.done, "{:?}", answer.error);
    }
    drop(strangers);

    let refused = [
        ("BATON_HTTP__MAX_CONNECTIONS", "1000"),
        ("BATON_HTTP__LISTEN", "127.0.0.1:0"),
        ("BATON_ADMIN__INGRESS", "127.0.0.1:0"),
    ];
    let (started, said) = stack.output_of(&["ingress"], &refused).await.unwrap();
    assert!(!started);
    assert!(
        said.contains("set http.max_connections to 50 or less"),
        "{said}"
    );
}

/// Returns bodies of ten mebibytes, by shape, each with its route and the status of its answer.
fn bodies() -> Vec<(&'static str, &'static str, u16, String)> {
    const SIZE: usize = (10 << 20) - 400;
    let list = |item: &str| {
        let items = vec![item; SIZE / (item.len() + 1)].join(",");
        format!("[{items}]")
    };
    let (objects, deep) = (
        list(r#"{"":0}"#),
        list(&format!("{}0{}", "[".repeat(40), "]".repeat(40))),
    );
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(48_000));
    let (messages, text) = (list(&message), "x".repeat(SIZE));
    let hi = r#"[{"role":"user","content":"hi"}]"#;
    let (chats, runs) = ("/v1/chat/completions", "/v1/runs");
    let chat =
        |messages: &str, more: &str| format!(r#"{{"model":"script","messages":{messages}{more}}}"#);
    let run = |more: &str| format!(r#"{{"model":"script","input":"hi"{more}}}"#);
    let one = format!(r#"[{{"role":"user","content":"{text}"}}]"#);
    let tool = format!(
        r#","tools":[{{"type":"function","function":{{"name":"f","description":"{text}"}}}}]"#
    );
    vec![
        (
            "an unknown field",
            chats,
            400,
            chat(hi, &format!(r#","x":{objects}"#)),
        ),
        ("nested", chats, 400, chat(hi, &format!(r#","x":{deep}"#))),
        (
            "metadata",
            runs,
            400,
            run(&format!(r#","metadata":{objects}"#)),
        ),
        (
            "params",
            runs,
            400,
            run(&format!(r#","params":{{"x":{objects}}}"#)),
        ),
        ("tools", chats, 200, chat(hi, &tool)),
        ("many messages", chats, 200, chat(&messages, "")),
        ("one text", chats, 200, chat(&one, "")),
    ]
}

/// Sends a body until it is not refused for the moment, and returns the status.
async fn sent(address: SocketAddr, key: &str, path: &str, body: &str) -> u16 {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        let exchange = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            stream.read_to_end(&mut answer).await
        };
        // A refused body is read for two seconds, so that a client which sends for longer may see a
        // reset before the answer.
        if let Err(error) = exchange.await {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            continue;
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.get(9..12).and_then(|status| status.parse().ok());
        match status.unwrap_or_else(|| panic!("no answer: {answer}")) {
            429 | 503 => assert!(answer.contains("\r\nretry-after: "), "{answer}"),
            status => return status,
        }
    }
}

/// Waits until a role's memory is at most this.
async fn until_slim(role: &Role, what: &str, most: u64) {
    let slim = async {
        while role.memory() > most {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let held = || role.memory() >> 20;
    timeout(PATIENCE, slim)
        .await
        .unwrap_or_else(|_| panic!("{what}: {} MiB are kept", held()));
}

/// Guards the memory of a request: under the limit, a process that allocates more ends.
#[tokio::test]
async fn large_bodies_of_every_shape_are_served_in_a_quarter_of_a_gibibyte() {
    let model = model(|_| Reply::text("read")).await;
    let (_folder, options) = limited(&model, "-d 262144");
    let stack = Stack::start(options).await.unwrap();
    let (ingress, worker) = tokio::try_join!(stack.ingress(), stack.worker()).unwrap();
    let (address, key) = (ingress.address(), stack.api_key());
    for (shape, path, expected, body) in bodies() {
        let answers = join_all((0..2).map(|_| sent(address, key, path, &body))).await;
        assert_eq!(answers, [expected; 2], "{shape}");
    }
    // An allocator that returns memory only from the end of its heap would keep over 100 MiB in
    // both.
    until_slim(&ingress, "ingress", 80 << 20).await;
    until_slim(&worker, "worker", 80 << 20).await;
}
