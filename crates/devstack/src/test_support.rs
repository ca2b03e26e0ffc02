//! Servers for tests. Under `with-devstack` they use what it has started and found; without it they
//! work all the same, only slower.

use std::path::Path;

use tokio::sync::OnceCell;

use crate::{
    DevstackError, NatsBinary, NatsOptions, NatsServer, Postgres, PostgresOptions, env_url,
};

/// The superuser's address of a PostgreSQL that all tests share.
pub const TEST_POSTGRES_URL: &str = "BATON_TEST_POSTGRES_URL";
/// The address of a nats-server that all tests share.
pub const TEST_NATS_URL: &str = "BATON_TEST_NATS_URL";
/// The nats-server program from which each test starts one of its own.
pub const TEST_NATS_BIN: &str = "BATON_TEST_NATS_BIN";

/// The superuser's address of the PostgreSQL for tests: `$BATON_TEST_POSTGRES_URL` if it is set,
/// else that of one which this process starts once and which ends with it.
pub async fn test_postgres() -> Result<&'static str, DevstackError> {
    static URL: OnceCell<String> = OnceCell::const_new();
    // Never dropped: its guardian stops it when this process ends.
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();

    let url = URL.get_or_try_init(async || {
        if let Some(url) = env_url(TEST_POSTGRES_URL) {
            return Ok(url);
        }
        let start = || Postgres::start(PostgresOptions::ephemeral());
        SERVER
            .get_or_try_init(start)
            .await
            .map(|server| server.superuser_url().to_owned())
    });
    url.await.map(String::as_str)
}

/// A nats-server of the caller's own, which leaves nothing behind. `$BATON_TEST_NATS_BIN` spares the
/// search for the program.
pub async fn test_nats() -> Result<NatsServer, DevstackError> {
    NatsServer::start(test_nats_options().await?).await
}

/// The options that [`test_nats`] uses, to be changed by tests that need other ones.
pub async fn test_nats_options() -> Result<NatsOptions, DevstackError> {
    let binary = match env_url(TEST_NATS_BIN) {
        Some(path) => Some(NatsBinary::at(Path::new(&path)).await?),
        None => None,
    };
    Ok(NatsOptions {
        binary,
        ..NatsOptions::ephemeral()
    })
}
