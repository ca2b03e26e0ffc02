//! A database and its two users on a server that Baton has for itself, as in development.
//!
//! In production an operator makes them, with passwords of their own: see `migrations/README.md`.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use crate::errors::StoreError;

/// A user to be made, with its password.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Its name.
    pub user: &'a str,
    /// Its password; set again if the user is there already.
    pub password: &'a str,
}

/// Makes `owner`, `app` and a database that `owner` owns, where they are missing. `superuser_url`
/// leads to any other database of the server.
///
/// The owner may create roles, because the first migration makes the group roles.
pub async fn bootstrap(
    superuser_url: &str,
    database: &str,
    owner: Login<'_>,
    app: Login<'_>,
) -> Result<(), StoreError> {
    let options: PgConnectOptions = superuser_url.parse()?;
    let mut connection = PgConnection::connect_with(&options).await?;
    for (login, rights) in [
        (owner, "CREATEROLE"),
        (app, "NOCREATEROLE NOBYPASSRLS NOSUPERUSER"),
    ] {
        let known: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
                .bind(login.user)
                .fetch_one(&mut connection)
                .await?;
        let verb = if known { "ALTER" } else { "CREATE" };
        let statement = format!(
            "{verb} ROLE {} LOGIN {rights} PASSWORD {}",
            quoted(login.user, '"'),
            quoted(login.password, '\'')
        );
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
    if !known {
        let statement = format!(
            "CREATE DATABASE {} OWNER {}",
            quoted(database, '"'),
            quoted(owner.user, '"')
        );
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    connection.close().await?;
    Ok(())
}

/// Names and passwords cannot be parameters of these statements.
fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
