//! The command that runs servers around another command, as a real process.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

fn with_devstack(servers: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-devstack"));
    command.args(servers).args(["--", "sh", "-c", script]);
    command
}

/// Returns the port in an address such as `nats://127.0.0.1:4222` or
/// `postgres://u:p@127.0.0.1:5432/db`.
fn port(url: &str) -> u16 {
    let behind = url.rsplit_once(':').unwrap().1;
    behind.split('/').next().unwrap().parse().unwrap()
}

async fn until_refused(port: u16) {
    let refused = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, refused)
        .await
        .expect("the server outlived its owner");
}

#[test]
fn only_the_servers_that_were_asked_for_are_started_and_the_exit_code_is_the_commands() {
    let script = r#"test -n "$BATON_TEST_NATS_URL" && test -x "$BATON_TEST_NATS_BIN" || exit 1
                    test -z "$BATON_TEST_POSTGRES_URL" || exit 2
                    exit 42"#;
    let status = with_devstack(&["--nats"], script)
        .env_remove("BATON_TEST_POSTGRES_URL")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(42));
}

#[test]
fn a_command_ended_by_a_signal_gives_the_code_that_shells_give() {
    let status = with_devstack(&[], "kill -TERM $$").status().unwrap();
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn a_sigterm_is_passed_on_and_the_servers_are_stopped_after_the_command() {
    let script = r#"trap 'exit 7' TERM; echo "$BATON_TEST_NATS_URL"; while :; do sleep 0.05; done"#;
    let mut owner = with_devstack(&["--nats"], script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();

    kill(
        Pid::from_raw(i32::try_from(owner.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();

    assert_eq!(owner.wait().unwrap().code(), Some(7));
    let address = url.trim().strip_prefix("nats://").unwrap().to_owned();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn servers_end_and_their_folders_go_when_their_owner_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temporary.path(), open).unwrap();
    let script = r#"echo $$; echo "$BATON_TEST_NATS_URL"; echo "$BATON_TEST_POSTGRES_URL"
                    exec sleep 1000"#;
    let mut owner = with_devstack(&["--nats", "--postgres"], script)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    let (sleeper, nats, postgres) = (line(), port(&line()), port(&line()));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 2);
    TcpStream::connect(("127.0.0.1", nats)).await.unwrap();
    TcpStream::connect(("127.0.0.1", postgres)).await.unwrap();

    owner.kill().unwrap();
    owner.wait().unwrap();

    until_refused(nats).await;
    until_refused(postgres).await;
    let emptied = async {
        while std::fs::read_dir(temporary.path()).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, emptied)
        .await
        .expect("a folder was left behind");
    kill(Pid::from_raw(sleeper.parse().unwrap()), Signal::SIGKILL).unwrap();
}
