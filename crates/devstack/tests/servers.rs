//! Real servers: started, restarted, killed, stopped.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use baton_devstack::test_support::{test_nats, test_nats_options, test_postgres};
use baton_devstack::{
    Data, DevstackError, NatsConfig, NatsServer, Postgres, PostgresOptions, locate_postgres,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Sends one JetStream request and returns the answer.
async fn jetstream(url: &str, subject: &str, body: &str) -> String {
    let stream = TcpStream::connect(url.strip_prefix("nats://").unwrap())
        .await
        .unwrap();
    let mut stream = BufReader::new(stream);
    let request = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    loop {
        let mut line = String::new();
        assert_ne!(
            stream.read_line(&mut line).await.unwrap(),
            0,
            "the connection was closed"
        );
        if line.starts_with("MSG ") {
            let length = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).await.unwrap();
            return String::from_utf8(answer).unwrap();
        }
    }
}

fn psql(postgres: &Postgres, sql: &str) -> String {
    let program = postgres.binaries().bin.join("psql");
    let output = Command::new(program)
        .args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            postgres.superuser_url(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn refuses(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_err()
}

#[tokio::test]
async fn nats_keeps_its_port_and_its_streams_through_a_crash_and_a_restart() {
    let mut nats = test_nats().await.unwrap();
    let (url, first) = (nats.url().to_owned(), nats.pid());
    let stream = r#"{"name":"KEPT","subjects":["kept.>"],"storage":"file"}"#;
    let created = jetstream(&url, "$JS.API.STREAM.CREATE.KEPT", stream).await;
    assert!(created.contains("\"name\":\"KEPT\""), "{created}");

    nats.kill().await;
    assert!(!nats.is_running());
    assert!(refuses(nats.port()).await);

    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);
    assert_ne!(nats.pid(), first);
    let info = jetstream(&url, "$JS.API.STREAM.INFO.KEPT", "").await;
    assert!(info.contains("\"name\":\"KEPT\""), "{info}");

    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);

    let (port, store) = (nats.port(), nats.store_dir());
    assert!(store.exists());
    nats.stop().await.unwrap();
    assert!(refuses(port).await);
    assert!(!store.exists(), "an ephemeral server leaves nothing behind");
}

#[tokio::test]
async fn a_dropped_server_is_stopped_by_its_guardian() {
    let nats = test_nats().await.unwrap();
    let (port, store) = (nats.port(), nats.store_dir());
    drop(nats);
    while !refuses(port).await || store.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn extra_settings_reach_nats() {
    let mut options = test_nats_options().await.unwrap();
    options.config = NatsConfig::Own {
        extra: "max_payload: 2MB".to_owned(),
    };
    let nats = NatsServer::start(options).await.unwrap();
    let stream = TcpStream::connect(("127.0.0.1", nats.port()))
        .await
        .unwrap();
    let mut greeting = String::new();
    BufReader::new(stream)
        .read_line(&mut greeting)
        .await
        .unwrap();
    assert!(greeting.contains("\"max_payload\":2097152"), "{greeting}");
    nats.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_shows_the_end_of_the_log() {
    let mut options = test_nats_options().await.unwrap();
    options.config = NatsConfig::Own {
        extra: "no_such_setting: {".to_owned(),
    };
    let error = NatsServer::start(options).await.unwrap_err();
    assert!(matches!(&error, DevstackError::StartFailed { tail, .. } if !tail.is_empty()));
    let text = error.to_string();
    assert!(
        text.contains("nats-server did not start: it ended with"),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_of_the_callers_choice_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = PostgresOptions::ephemeral();
    options.port = Some(taken.local_addr().unwrap().port());
    let error = Postgres::start(options).await.unwrap_err();
    assert!(
        error.to_string().contains("Address already in use"),
        "{error}"
    );
}

#[tokio::test]
async fn two_servers_in_one_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut options = test_nats_options().await.unwrap();
    options.data = Data::Keep(folder.path().join("nats"));
    let first = NatsServer::start(options.clone()).await.unwrap();
    options.binary = Some(first.binary().clone());

    tokio::time::pause(); // so that the wait for the folder takes no time
    let second = NatsServer::start(options.clone()).await;
    tokio::time::resume();
    assert!(
        matches!(second, Err(DevstackError::DataInUse { .. })),
        "{second:?}"
    );

    first.stop().await.unwrap();
    let third = NatsServer::start(options).await.unwrap();
    third.stop().await.unwrap();
    assert!(
        folder.path().join("nats/data").exists(),
        "a kept folder stays"
    );
}

#[tokio::test]
async fn postgres_survives_an_immediate_end_and_is_found_again_by_a_later_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let options = PostgresOptions::keeping(folder.path().join("deep/postgres"));
    let mut postgres = Postgres::start(options.clone()).await.unwrap();
    let url = postgres.superuser_url().to_owned();
    psql(&postgres, "create table kept as select 127.05 as answer");

    postgres.kill_immediate().await;
    assert!(refuses(postgres.port()).await);
    postgres.restart().await.unwrap();
    assert_eq!(postgres.superuser_url(), url);
    assert_eq!(psql(&postgres, "select answer from kept"), "127.05");
    assert_eq!(psql(&postgres, "show fsync"), "on");

    let wrong = postgres.url_for("postgres", "postgres", "guessed");
    let program = postgres.binaries().bin.join("psql");
    let refused = Command::new(program)
        .args(["-Xc", "select 1", &wrong])
        .output()
        .unwrap();
    assert!(
        !refused.status.success(),
        "loopback alone is no reason to be let in"
    );

    postgres.stop().await.unwrap();
    let postgres = Postgres::start(options).await.unwrap();
    assert_eq!(psql(&postgres, "select answer from kept"), "127.05");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn postgres_never_runs_as_root_even_if_its_folder_is_closed_to_others() {
    // Test folders are closed to other accounts; for root, the server uses another place then.
    let closed = tempfile::tempdir().unwrap();
    let mut options = PostgresOptions::keeping(closed.path().join("postgres"));
    options.durable = false;
    let postgres = Postgres::start(options).await.unwrap();
    let data = postgres.data_dir();
    assert_ne!(std::fs::metadata(&data).unwrap().uid(), 0);
    assert_eq!(psql(&postgres, "show fsync"), "off");
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(data.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn data_of_another_major_version_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let place = folder.path().join("postgres");
    std::fs::create_dir_all(place.join("data")).unwrap();
    std::fs::write(place.join("data/PG_VERSION"), "9\n").unwrap();
    let mut options = PostgresOptions::keeping(&place);
    options.binaries = Some(locate_postgres(options.progress).await.unwrap());

    let error = Postgres::start(options).await.unwrap_err();

    assert!(matches!(&error, DevstackError::DataVersion { made_by, .. } if made_by == "9"));
    assert!(
        Path::new(&place).join("data/PG_VERSION").exists(),
        "nothing was deleted"
    );
}

#[tokio::test]
async fn the_postgres_for_tests_is_started_once() {
    let first = test_postgres().await.unwrap();
    let second = test_postgres().await.unwrap();
    assert_eq!(first, second);
    assert!(first.starts_with("postgres://postgres:"));
}
