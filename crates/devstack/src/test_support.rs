//! Servers for tests. Under `with-devstack` they use the servers and programs that it found;
//! without it they work as well, but slower.

use std::path::Path;

use tokio::sync::OnceCell;

use crate::{
    DevstackError, NatsBinary, NatsOptions, NatsServer, Postgres, PostgresOptions, env_url,
};

/// The variable with the superuser's address of a PostgreSQL that all tests share.
pub const TEST_POSTGRES_URL: &str = "BATON_TEST_POSTGRES_URL";
/// The variable with the address of a nats-server that all tests share.
pub const TEST_NATS_URL: &str = "BATON_TEST_NATS_URL";
/// The variable with the nats-server program from which each test starts its own.
pub const TEST_NATS_BIN: &str = "BATON_TEST_NATS_BIN";

/// Returns the superuser's address of the PostgreSQL for tests: `$BATON_TEST_POSTGRES_URL` if it is
/// set, else that of a server that this process starts once and that ends with it.
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

/// Starts a nats-server for the caller alone, which leaves nothing behind. `$BATON_TEST_NATS_BIN`
/// saves the search for the program.
pub async fn test_nats() -> Result<NatsServer, DevstackError> {
    NatsServer::start(test_nats_options().await?).await
}

/// Returns the options of [`test_nats`], for tests that need to change them.
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
